"""plugin/skills/supervise-loop: every command that it tells, as it tells it, in the order of its text."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.control_steps import CLAIM, FAILS, long_run
from tests.support.harness import Workspace, wait_until
from tests.support.program import PROGRAM

SKILL = Path(__file__).resolve().parents[2] / "plugin" / "skills" / "supervise-loop" / "SKILL.md"
TEXT = SKILL.read_text(encoding="utf-8")
COMMANDS = list(dict.fromkeys(re.findall(r"`codex-self-iter ([^`]+)`", TEXT)))


def do(ws: Workspace, command: str) -> subprocess.CompletedProcess[str]:
    """A command of the text, typed in the workspace."""
    words = shlex.split(command.replace("show N", "show 1"))
    return subprocess.run(
        [*PROGRAM, *words], cwd=ws.path, env=ws.environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_every_command_is_tried_here() -> None:
    assert COMMANDS == [
        "--version", "init", "doctor", "run", "service install", "status", "history", "show N",
        "logs", 'steer "text"', "stop --after-iteration", "stop", "mcp",
    ]  # fmt: skip
    assert "`--json`" in TEXT


@pytest.mark.slow
def test_setting_one_up_works_as_it_is_told(ws: Workspace) -> None:
    assert do(ws, "--version").stdout.startswith("codex-self-iter ")
    (ws.path / "plan.md").unlink()
    (ws.path / "test_it.py").write_text("def test_it():\n    assert True\n")
    (ws.path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    assert do(ws, "init").returncode == 0
    config = ws.path / "codex-self-iter.toml"
    for name in ("TASK.md", "plan.md"):
        assert (ws.path / name).exists()
    assert "pytest" in config.read_text()  # it finds the test command
    for name in ("TASK.md", "plan.md", config.name):
        (ws.path / name).write_text("mine\n")
    assert do(ws, "init").returncode == 0
    assert {(ws.path / name).read_text() for name in ("TASK.md", "plan.md", config.name)} == {
        "mine\n"
    }
    ws.plan("- [ ] step\n")
    (ws.path / "TASK.md").write_text("# Task\n\nMake it so.\n")
    ws.config("[verify]\ncommands = ['true']\n")
    doctor = do(ws, "doctor")
    assert doctor.returncode == 0, doctor.stdout
    ws.config("[verify]\ncommands = ['./nothing-like-that']\n")
    assert do(ws, "doctor").returncode != 0  # it names what is to be mended
    assert do(ws, "service install --manager systemd --dry-run").returncode == 0


def test_a_completion_is_believed_when_the_commands_agree(ws: Workspace) -> None:
    ws.config("[verify]\ncommands = ['test -e proof']\n")
    ws.script(CLAIM, {"write": {"proof": ""}, **CLAIM})
    assert do(ws, "run").returncode == 0
    assert ws.verdicts() == ["claim_rejected", "completed"]


@pytest.mark.slow
def test_looking_after_one_works_as_it_is_told(ws: Workspace) -> None:
    ws.script({**CLAIM, "say": "hello there", "block": {"summary": "made a start"}}, long_run("go"))
    process = ws.start()
    ws.wait_runs(2)
    ws.wait_state("running")
    before = (ws.state / "runtime.json").read_bytes()
    assert "running" in do(ws, "status").stdout
    assert do(ws, "mcp").returncode == 0  # its stdin has ended
    assert json.loads(do(ws, "status --json").stdout)["state"] == "running"
    assert "made a start" in do(ws, "history").stdout
    assert "made a start" in do(ws, "show N").stdout
    assert "hello there" in do(ws, "logs 1").stdout
    assert do(ws, "logs").returncode == 0
    assert (ws.state / "runtime.json").read_bytes() == before  # reading commands are safe
    assert do(ws, 'steer "text"').returncode == 0
    assert do(ws, "stop --after-iteration").returncode == 0
    wait_until(lambda: "stops after" in ws.status()["reason"], "status to say so")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["continue", "continue"]
    (ws.state / "STOP").unlink()
    (ws.control / "go").unlink()
    process = ws.start()
    ws.wait_runs(3)
    assert "text" in ws.prompt(3)
    assert do(ws, "stop").returncode == 0
    assert ws.ended(process) == 0
    assert ws.verdicts()[-1] == "aborted"
    assert "stopped" in do(ws, "status").stdout


@pytest.mark.parametrize("code", [0, 2, 3, 4, 75])
def test_exit_codes_are_those_that_it_tells(ws: Workspace, code: int) -> None:
    told = {int(number) for number in re.findall(r"\b(\d+) [a-z]", TEXT.partition("Exit codes")[2])}
    assert told == {0, 2, 3, 4, 75}
    ws.config(max_stagnation=1, max_consecutive_errors=1)
    ws.script({0: CLAIM, 3: {"block": {"next_goal": "x"}}, 4: FAILS}.get(code, long_run()))
    if code == 2:
        (ws.path / "plan.md").unlink()
    first = ws.start() if code == 75 else None
    if first:
        ws.wait_runs(1)
    assert do(ws, "run").returncode == code
    if first:
        first.terminate()
        assert ws.ended(first) == 0
    elif code in (3, 4):
        assert ws.status()["exit"]["reason"].split()[0] in do(ws, "status").stdout
