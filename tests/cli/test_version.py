"""`version`: what is installed, as the package index's own tools would say it."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import codex_self_iter
from tests.support.program import PROGRAM, PYTHON

LIBRARIES = {"anyio", "psutil", "pydantic", "pydantic-settings", "structlog", "watchfiles"}
METADATA = """\
Metadata-Version: 2.4
Name: codex-self-iter
Version: 7.0
Requires-Dist: first-one<3,>=2.9
Requires-Dist: Second.One
Requires-Dist: mac-only; sys_platform == 'darwin'
Provides-Extra: most
Requires-Dist: first-one; extra == 'most'
Requires-Dist: absent[fast]>=1; extra == 'most'
Provides-Extra: whole
Requires-Dist: second_one; extra == 'whole'
Requires-Dist: mac-only; (sys_platform == 'darwin') and extra == 'whole'

Requires-Dist: a description says this
"""


def facts(command, **env: str) -> dict:
    done = command("version", "--json", **env)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_it_says_what_is_installed(command) -> None:
    said = facts(command)
    assert ", ".join(said) in " ".join(command("version", "--help").stdout.split())
    assert said["name"] == "codex-self-iter"
    assert said["version"] == codex_self_iter.__version__
    assert Path(said["location"], "cli", "version.py").exists()
    assert said["executable"] == PYTHON
    assert said["python"] == platform.python_version()
    assert said["platform"] == f"{sys.platform}-{platform.machine()}"
    assert said["libraries"].keys() == LIBRARIES
    assert said["extras"].keys() >= {"dev", "test"}
    ask = f"import importlib.metadata as m, json; print(json.dumps([m.version(n) for n in {LIBRARIES}]))"
    done = subprocess.run([PYTHON, "-c", ask], capture_output=True, check=True, timeout=60)
    assert sorted(said["libraries"].values()) == sorted(json.loads(done.stdout))
    if sys.executable == PYTHON:  # a wheel that `--installed` made has no extras
        test = said["extras"]["test"]
        assert test["installed"]
        assert test["libraries"]["pytest"] == importlib.metadata.version("pytest")


def test_an_extra_is_there_when_all_of_it_is(command, tmp_path: Path) -> None:
    """Names are compared as the index does, and what another machine needs is not missed here."""
    for name in ("codex_self_iter-7.0", "First_One-2.10.1", "second.one-1!3"):
        (tmp_path / f"{name}.dist-info").mkdir()
    (tmp_path / "codex_self_iter-7.0.dist-info" / "METADATA").write_text(METADATA)
    said = facts(command, PYTHONPATH=str(tmp_path))
    assert said["libraries"] == {"first-one": "2.10.1", "second-one": "1!3"}
    assert said["extras"] == {
        "most": {"installed": False, "libraries": {"absent": None, "first-one": "2.10.1"}},
        "whole": {"installed": True, "libraries": {"second-one": "1!3"}},
    }
    shown = command("version", PYTHONPATH=str(tmp_path)).stdout
    assert "libraries  first-one 2.10.1, second-one 1!3\n" in shown
    assert "most (not installed: absent missing, first-one 2.10.1); whole (installed: " in shown


def test_files_that_were_never_installed_say_so(tmp_path: Path) -> None:
    package = Path(codex_self_iter.__file__).parent.parent
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(package)}
    if package.name == "site-packages":
        (tmp_path / "codex_self_iter").symlink_to(package / "codex_self_iter")
        environment["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-S", *PROGRAM[1:], "version"], env=environment, cwd=tmp_path,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "libraries  unknown: it was not installed as a package\nextras     none\n" in done.stdout
