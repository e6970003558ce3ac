"""`init`: writes what is missing, keeps what is there, recognises agent and tests."""

from __future__ import annotations

import argparse
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.cli import init
from codex_self_iter.errors import UsageError
from codex_self_iter.settings import CONFIG_NAME, load, validate_workspace
from codex_self_iter.setup.detect import find_agent, gate_commands, with_gates

Call = Callable[..., str]
CASE = "import unittest\n\nclass A(unittest.TestCase):\n    def test_a(self):\n        pass\n"
PYTEST = ("python3 -m pytest -q",)
NAMES = ("TASK.md", "plan.md", CONFIG_NAME)


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Run the command on `tmp_path/ws`, with nothing installed; what it printed."""
    (tmp_path / "ws").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("NVM_DIR", raising=False)

    def run(*argv: str) -> str:
        parser = argparse.ArgumentParser()
        init.add_arguments(parser)
        assert init.run(parser.parse_args(["--workspace", str(tmp_path / "ws"), *argv])) == 0
        return capsys.readouterr().out

    return run


def program(path: Path, does: str = "") -> Path:
    """An executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    return path


def test_a_fresh_workspace_gets_three_private_files_with_which_a_loop_could_start(
    call: Call, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        text = call()
    finally:
        os.umask(before)
    assert all(stat.S_IMODE((tmp_path / "ws" / name).stat().st_mode) == 0o600 for name in NAMES)
    assert all(f"wrote    {tmp_path / 'ws' / name}" in text for name in NAMES)
    settings = load({"workspace": "ws"}, config_file=None, environ={}, cwd=str(tmp_path))
    assert settings.sources == (tmp_path / "ws" / CONFIG_NAME,)
    validate_workspace(settings)
    assert "doctor" in text
    assert "run" in text


def test_what_is_there_is_kept_and_said(call: Call, tmp_path: Path) -> None:
    (tmp_path / "ws/plan.md").write_text("mine")
    (tmp_path / "ws/TASK.md").symlink_to("gone")
    text = call()
    assert (tmp_path / "ws/plan.md").read_text() == "mine"
    assert f"kept     {tmp_path / 'ws/plan.md'}" in text
    assert f"kept     {tmp_path / 'ws/plan.md'}\n" in text
    assert f"kept     {tmp_path / 'ws/TASK.md'} (a link to nothing: remove it" in text
    assert not (tmp_path / "ws/gone").exists()


def test_a_directory_in_the_place_of_a_file_is_said(call: Call, tmp_path: Path) -> None:
    (tmp_path / "ws/plan.md").mkdir()
    assert f"kept     {tmp_path / 'ws/plan.md'} (it is no file: move it away" in call()


def test_force_keeps_every_old_file_beside_the_new(call: Call, tmp_path: Path) -> None:
    (tmp_path / "ws/plan.md").write_text("first")
    call("--force")
    (tmp_path / "ws/plan.md").write_text("second")
    call("--force")
    assert (tmp_path / "ws/plan.md.bak").read_text() == "first"
    assert (tmp_path / "ws/plan.md.bak2").read_text() == "second"
    assert "- [ ]" in (tmp_path / "ws/plan.md").read_text()


def test_a_missing_workspace_is_refused(call: Call) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        call("--workspace", "/dev/null/x")


@pytest.mark.parametrize("place", ["bin", "home/.local/bin", "home/.nvm/versions/node/v20.1.0/bin"])
def test_an_installed_agent_is_found_and_configured(call: Call, tmp_path: Path, place: str) -> None:
    program(tmp_path / place / "codex")
    text = call()
    assert str(tmp_path / place / "codex") in text
    settings = load({"workspace": "ws"}, config_file=None, environ={}, cwd=str(tmp_path))
    assert settings.agent == "codex"


def test_the_newest_of_several_node_versions_is_taken(tmp_path: Path) -> None:
    for version in ("v9.0.0", "v20.11.0", "v20.2.0"):
        program(tmp_path / f".nvm/versions/node/{version}/bin/codex")
    found = find_agent("codex", {"HOME": str(tmp_path), "PATH": "/nonexistent"})
    assert "v20.11.0" in found


@pytest.mark.parametrize(
    ("files", "gates"),
    [
        ({}, ()),
        ({"pyproject.toml": "[tool.pytest.ini_options]\n"}, ("python3 -m pytest -q",)),
        ({"pyproject.toml": "[project]\nname='x'\n"}, ()),
        ({"pyproject.toml": "broken ="}, ()),
        ({"tests/test_a.py": ""}, ("python3 -m pytest -q",)),
        ({"test_a.py": CASE}, ("python3 -m unittest -q",)),
        ({"tests/__init__.py": "", "tests/test_a.py": CASE}, ("python3 -m unittest -q",)),
        ({"tests/test_a.py": CASE}, ("python3 -m unittest discover -q -s tests",)),
        # anything that speaks of pytest, or that unittest would not run
        ({"tests/test_a.py": CASE, "requirements-dev.txt": "pytest>=8"}, PYTEST),
        ({"tests/test_a.py": CASE, "tox.ini": "commands = pytest"}, PYTEST),
        ({"tests/test_a.py": CASE, "tests/conftest.py": ""}, PYTEST),
        ({"tests/test_a.py": CASE, "tests/test_b.py": "def test_b(): pass"}, PYTEST),
        ({"tests/test_a.py": CASE + "\n\ndef test_b():\n    pass\n"}, PYTEST),
        ({"tests/test_a.py": CASE, "test_b.py": CASE}, PYTEST),
        ({"setup.cfg": "[tool:pytest]\n"}, ("python3 -m pytest -q",)),
        ({"package.json": '{"scripts": {"test": "jest"}}'}, ("npm test",)),
        (
            {
                "package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}}'
            },
            (),
        ),
        ({"package.json": "[1"}, ()),
        ({"package.json": '["scripts"]'}, ()),
        ({"Cargo.toml": ""}, ("cargo test",)),
        ({"go.mod": ""}, ("go test ./...",)),
        ({"Makefile": "all:\n\ntest: all\n\tx\n"}, ("make test",)),
        ({"Makefile": "test := 3\ntests:\n"}, ()),
        ({"Makefile": "test:\n", "go.mod": ""}, ("go test ./...",)),
        (
            {"package.json": '{"scripts": {"test": "x"}}', "Cargo.toml": ""},
            ("npm test", "cargo test"),
        ),
    ],
)
def test_the_test_command_is_recognised_by_files(
    tmp_path: Path, files: dict[str, str], gates: tuple[str, ...]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert gate_commands(str(tmp_path), {"PATH": "/nonexistent"}) == gates


@pytest.mark.parametrize(
    ("own", "files", "gate"),
    [
        (".venv/bin/pytest", {"conftest.py": ""}, ".venv/bin/python -m pytest -q"),
        ("venv/bin/pytest", {"conftest.py": ""}, "venv/bin/python -m pytest -q"),
        ("venv/bin/other", {"conftest.py": ""}, "pytest -q"),  # it has none
        ("venv/bin/other", {"test_a.py": CASE}, "venv/bin/python -m unittest -q"),
    ],
)
def test_the_environment_of_the_repository_runs_its_tests(
    tmp_path: Path, own: str, files: dict[str, str], gate: str
) -> None:
    """A pytest from elsewhere would not find what the tests import."""
    program(tmp_path / "bin/pytest")
    program(tmp_path / own)
    program(tmp_path / own.rpartition("/")[0] / "python")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    path = {"PATH": str(tmp_path / "bin")}
    assert gate_commands(str(tmp_path), path) == (gate,)
    settings = load({"workspace": "."}, config_file=None, environ={}, cwd=str(tmp_path))
    assert with_gates(settings, path, new=True).verify.commands == (gate,)
    if "/" in gate.partition(" ")[0]:
        (tmp_path / gate.partition(" ")[0]).chmod(0o644)
        assert with_gates(settings, path, new=True).verify.commands == ()


@pytest.mark.parametrize("place", [".", "tests", "package"])
@pytest.mark.parametrize("good", [True, False])
def test_the_command_for_unittest_runs_the_tests(tmp_path: Path, place: str, good: bool) -> None:
    (tmp_path / "mine.py").write_text("X = 1\n")
    directory = tmp_path / place.replace("package", "tests")
    directory.mkdir(exist_ok=True)
    if place == "package":
        (directory / "__init__.py").touch()
    text = CASE.replace("pass", f"self.assertEqual(mine.X, {1 if good else 2})")
    (directory / "test_a.py").write_text(f"import mine\n{text}")
    (command,) = gate_commands(str(tmp_path), {"PATH": "/nonexistent"})
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "Ran 1 test" in done.stderr
    assert (done.returncode == 0) is good


@pytest.mark.parametrize("there", [True, False])
def test_a_module_is_looked_for_and_not_imported(tmp_path: Path, there: bool) -> None:
    """To import what runs tests takes longer than all else of a start."""
    program(tmp_path / "bin/python3", f'exec "{sys.executable}" -S "$@"')
    (tmp_path / "conftest.py").touch()
    module = tmp_path / "modules" / ("pytest.py" if there else "other.py")
    module.parent.mkdir()
    module.write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\n")
    environ = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "PYTHONPATH": str(module.parent)}
    settings = load({"workspace": "."}, config_file=None, environ={}, cwd=str(tmp_path))
    gates = with_gates(settings, environ, new=True).verify.commands
    assert gates == (("python3 -m pytest -q",) if there else ())
    assert not (tmp_path / "imported").exists()


def test_recognised_gates_stand_in_the_configuration(call: Call, tmp_path: Path) -> None:
    (tmp_path / "ws/go.mod").touch()
    program(tmp_path / "bin/pytest")
    (tmp_path / "ws/conftest.py").touch()
    call()
    settings = load({"workspace": "ws"}, config_file=None, environ={}, cwd=str(tmp_path))
    assert settings.verify.commands == ("pytest -q", "go test ./...")


@pytest.mark.slow
def test_the_command_itself_writes_and_then_keeps(command: Any) -> None:
    first, second = command("init"), command("init")
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.count("wrote ") == 2  # the plan was there
    assert second.stdout.count("kept  ") == 3
    assert command("config", "check").returncode == 0
    assert command("init", "--workspace", "gone").returncode == 2


@pytest.mark.slow
def test_what_is_kept_is_read_and_only_what_is_true_is_said(command: Any) -> None:
    """Negative control: without the configuration it says that there is no agent and no gate."""
    here, agent = command.workspace, command.workspace.parent / "my-agent"
    program(agent)
    nothing = command("init", PATH="/usr/bin:/bin").stdout
    assert "no agent was found" in nothing
    assert "no gate is configured" in nothing
    assert "Write down what is wanted in TASK.md." in nothing  # the plan was there
    (here / CONFIG_NAME).write_text(
        f'agent_command_template = "{agent} {{prompt_file}}"\ntask_file = "docs/WANTED.md"\n'
        '[verify]\ncommands = ["true"]\n'
    )
    kept = command("init", PATH="/usr/bin:/bin").stdout
    assert f"wrote    {here}/docs/WANTED.md" in kept
    assert "no agent" not in kept
    assert "no gate" not in kept
    assert f"Agents of {CONFIG_NAME}: command." in kept
    assert "A completion must pass: true." in kept
    assert "Write down what is wanted in docs/WANTED.md." in kept
    (here / "docs/WANTED.md").write_text("Everything\n")
    assert "Write down" not in command("init", PATH="/usr/bin:/bin").stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_iteratons = 3\n", "config check"),
        ('agent_command_template = "/gone {prompt_file}"\n', "/gone"),
    ],
)
def test_a_kept_configuration_with_which_nothing_starts_is_said(
    command: Any, text: str, said: str
) -> None:
    (command.workspace / CONFIG_NAME).write_text(text)
    done = command("init", PATH="/usr/bin:/bin")
    assert done.returncode == 0
    mend = [line for line in done.stdout.splitlines() if ". Mend " in line]
    assert len(mend) == 1
    assert CONFIG_NAME in mend[0]
    assert said in mend[0]
    assert "no agent was found" not in done.stdout


def test_a_task_in_words_that_comes_first_is_said(call: Call, tmp_path: Path) -> None:
    assert "--task-file" not in call()
    (tmp_path / "ws/.codex-self-iter").mkdir()
    (tmp_path / "ws/.codex-self-iter/task.md").write_text("Make it pass\n")
    assert f"the loop here works on {tmp_path}/ws/.codex-self-iter/task.md, unless" in call()


def test_a_plan_that_was_made_for_a_task_in_words_stays_the_plan(
    call: Call, tmp_path: Path
) -> None:
    """`plan "…"`, then `init`: a placeholder in the work tree would go before it."""
    own = tmp_path / "ws/.codex-self-iter"
    own.mkdir()
    for name in ("task.md", "plan.md"):
        (own / name).write_text("- [ ] the accepted step\n")
    text = call()
    assert f"kept     {own}/plan.md" in text
    assert "Write down" not in text
    assert sorted(path.name for path in (tmp_path / "ws").iterdir()) == [own.name, CONFIG_NAME]
    settings = load({"workspace": "ws"}, config_file=None, environ={}, cwd=str(tmp_path))
    assert validate_workspace(settings).plan == own / "plan.md"
    assert f"wrote    {tmp_path}/ws/plan.md" in call("--force")  # who wants them gets them
    assert (own / "plan.md").read_text() == "- [ ] the accepted step\n"
