"""Wheel and sdist as people install them, on every Python that is here: what comes is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import codex_self_iter
from tests.project.make_manual import COMPLETIONS, MANUAL, SHARE
from tests.support import wheel
from tests.support.harness import wipe
from tests.support.wheel import ROOT, Kit

pytestmark = pytest.mark.slow
NAME = "codex-self-iter"


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Kit:
    base = tmp_path_factory.getbasetemp()
    return wheel.kit((base if worker_id == "master" else base.parent) / "kit")


@pytest.fixture
def run(kit: Kit, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Runs a command for a person with an empty home; what it printed. It must succeed."""

    def run(*words: str | Path) -> str:
        done = subprocess.run(
            words, env={**kit.environment, "HOME": str(tmp_path)}, cwd=tmp_path,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    yield run
    wipe(tmp_path)  # pytest would keep it, and it is large


def check(run: Callable[..., str], command: Path, share: Path, python: str = "3.") -> None:
    """It is this version with all it needs, works to the demo's end, and what shells and `man` read
    is where they look."""
    said = json.loads(run(command, "version", "--json"))
    assert said["version"] == codex_self_iter.__version__
    assert said["python"].startswith(python)
    assert not Path(said["location"]).is_relative_to(ROOT)
    assert len(said["libraries"]) >= 6
    assert [name for name, its in said["libraries"].items() if its is None] == []
    assert "completed: Every item of the plan is ticked (5 of 5)." in run(command, "demo")
    for file in (MANUAL, *COMPLETIONS.values()):
        assert (share / file.relative_to(SHARE)).read_text() == file.read_text()


every_version = pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])


def interpreter(version: str) -> str:
    found = wheel.interpreter(version)
    if found is None:
        pytest.skip(f"NOT TESTED HERE: there is no Python {version} on PATH or in pyenv")
    return found


@pytest.mark.parametrize("version", ["3.11", "3.14"])  # what it costs: four times as much as uv
def test_pip_installs_the_wheel(
    run: Callable[..., str], kit: Kit, tmp_path: Path, version: str
) -> None:
    place = tmp_path / "place"
    run(interpreter(version), "-m", "venv", place)
    run(place / "bin" / "pip", "install", "--quiet", kit.wheel)
    check(run, place / "bin" / NAME, place / "share", f"{version}.")
    said = run(place / "bin" / "python", "-m", "codex_self_iter", "--help")
    assert said == run(place / "bin" / NAME, "--help")


def test_pip_installs_the_sdist(run: Callable[..., str], kit: Kit, tmp_path: Path) -> None:
    place = tmp_path / "place"
    run(sys.executable, "-m", "venv", place)
    run(place / "bin" / "pip", "install", "--quiet", kit.sdist)
    check(run, place / "bin" / NAME, place / "share")


@every_version
def test_uv_installs_the_sdist_as_a_tool(
    run: Callable[..., str], kit: Kit, tmp_path: Path, version: str
) -> None:
    run(kit.uv, "tool", "install", "--quiet", "--python", interpreter(version), kit.sdist)
    local = tmp_path / ".local"
    share = local / "share" / "uv" / "tools" / NAME / "share"
    check(run, local / "bin" / NAME, share, f"{version}.")


def test_pipx_installs_the_wheel_and_links_manual_and_completions(
    run: Callable[..., str], kit: Kit, tmp_path: Path
) -> None:
    """They are in `~/.local/share`, where `man` and shells look."""
    run(kit.pipx, "install", kit.wheel)
    local = tmp_path / ".local"
    check(run, local / "bin" / NAME, local / "share")


def test_all_that_is_optional_comes_with_one_word(
    run: Callable[..., str], kit: Kit, tmp_path: Path
) -> None:
    """Every extra but those for developers."""
    place = tmp_path / "place"
    run(kit.uv, "venv", "--quiet", place)
    run(kit.uv, "pip", "install", "--quiet", "--python", place, f"{kit.wheel}[all]")
    extras = json.loads(run(place / "bin" / NAME, "version", "--json"))["extras"]
    assert {name for name in extras if extras[name]["installed"]} == extras.keys() - {"test", "dev"}


def test_uvx_runs_it_out_of_a_directory(run: Callable[..., str], kit: Kit) -> None:
    """`uvx --from DIR codex-self-iter demo`: nothing is installed."""
    uvx = kit.uv.with_name("uvx")
    said = run(uvx, "--quiet", "--from", ROOT, NAME, "demo")
    assert "completed: Every item of the plan is ticked (5 of 5)." in said
    said = run(kit.uv, "tool", "run", "--quiet", "--from", ROOT, NAME, "version", "--json")
    assert json.loads(said)["version"] == codex_self_iter.__version__


def test_an_environment_that_lacks_something_is_noticed(
    run: Callable[..., str], kit: Kit, tmp_path: Path
) -> None:
    """Negative control."""
    place = tmp_path / "place"
    run(kit.uv, "venv", "--quiet", place)
    install = (kit.uv, "pip", "install", "--quiet", "--python", place)
    run(*install, "--no-deps", kit.wheel)
    (place / "share" / MANUAL.relative_to(SHARE)).unlink()
    with pytest.raises(AssertionError, match="anyio"):
        check(run, place / "bin" / NAME, place / "share")
    run(*install, kit.wheel)
    with pytest.raises(FileNotFoundError, match="man1"):
        check(run, place / "bin" / NAME, place / "share")
