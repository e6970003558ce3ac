"""From outside: what is said of every bad input at a start, word for word: `shown/bad-starts.txt`.

    pytest tests/program/test_bad_starts.py --basetemp DIR   then   python -m tests.program.test_bad_starts DIR

writes the file anew. Whatever is refused leaves nothing behind, and each message is all there is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.control_steps import CLAIM, WORK
from tests.support.harness import Workspace
from tests.support.program import PROGRAM

GOLDEN = Path(__file__).parent / "shown" / "bad-starts.txt"
TASK = "Make the tests pass"
PLAN_OF_WORDS = {"raw": "There is nothing to plan."}


def typed(
    ws: Workspace, *words: str, place: Path | None = None, given: str = "", **env: str
) -> str:
    """What a command says to somebody in the workspace, with its exit code; there is no terminal."""
    done = subprocess.run(
        [*PROGRAM, *words], cwd=place or ws.path, env={**ws.environment, **env}, input=given,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return f"{done.stdout}{done.stderr}exit {done.returncode}\n"


def without_agents(ws: Workspace) -> dict[str, str]:
    """A PATH with git and nothing else."""
    ws.config(agent_command_template="")
    tools = ws.root / "tools"
    tools.mkdir()
    for name in ("git", "sh"):
        (tools / name).symlink_to(shutil.which(name) or name)
    return {"PATH": str(tools)}


def no_repository(ws: Workspace) -> str:
    shutil.rmtree(ws.path / ".git")
    return typed(ws, "run", TASK)


def bare_repository(ws: Workspace) -> str:
    ws.git("clone", "-q", "--bare", ".", str(ws.root / "bare.git"))
    template = "cat {prompt_file}"
    env = {"CODEX_SELF_ITER_AGENT_COMMAND_TEMPLATE": template}
    return typed(ws, "run", TASK, place=ws.root / "bare.git", **env)


def gates_that_cannot_run(ws: Workspace) -> str:
    env = without_agents(ws)
    ws.config()
    (ws.path / "Cargo.toml").touch()
    (ws.path / "conftest.py").touch()
    said = typed(ws, "run", TASK, "--dry-run", **env)
    return "".join(line for line in said.splitlines(True) if line.startswith("nothing"))


def a_plan_that_never_comes(ws: Workspace) -> str:
    ws.script(PLAN_OF_WORDS)
    return typed(ws, "plan", TASK, "--yes")


def warnings(ws: Workspace) -> str:
    """What the loop warned of in the end."""
    assert ws.run() == 0, ws.log()
    return "".join(f"{text}\n" for text in ws.status()["warnings"])


def a_hook_that_hangs(ws: Workspace) -> str:
    ws.config("[hooks]\ntimeout_sec = 0.5\nafter_iteration = ['sleep 600']\n")
    return warnings(ws)


def a_text_that_is_lost(ws: Workspace) -> str:
    (ws.path / "mine.md").write_text("MINE\n")
    ws.config('[prompt]\nbefore = "mine.md"\n')
    ws.script({**WORK, "run": "rm mine.md"}, CLAIM)
    return warnings(ws)


def a_text_that_is_not_there(ws: Workspace) -> str:
    ws.config('[prompt]\nbefore = "mine.md"\n')
    return typed(ws, "run", TASK)


def a_plan_that_is_none(ws: Workspace) -> str:
    ws.plan("- one\n-[ ] two\n")
    return typed(ws, "plan", "check")


SCENES: dict[str, Callable[[Workspace], str]] = {
    "an empty task": lambda ws: typed(ws, "run", "  "),
    "one word": lambda ws: typed(ws, "run", "stats"),
    "no quotes": lambda ws: typed(ws, "run", "Make", "the", "tests", "pass"),
    "no command": lambda ws: typed(ws, TASK),
    "a long task": lambda ws: typed(ws, "run", "a b" * 30_000),
    "a long word": lambda ws: typed(ws, "plan", "a" * 100_000),
    "nothing, from standard input": lambda ws: typed(ws, "plan", "-", "--yes", given="\n"),
    "no terminal": lambda ws: typed(ws, "plan", TASK),
    "no repository": no_repository,
    "a bare repository": bare_repository,
    "no agent": lambda ws: typed(ws, "run", TASK, **without_agents(ws)),
    "an agent that is not there": lambda ws: re.sub(
        r"on PATH or in .*?; install", "on PATH or in …; install",
        typed(ws, "run", TASK, "--agent", "codex", **without_agents(ws)),
    ),
    "an agent that reads no task": lambda ws: typed(
        ws, "run", TASK, "--agent", "plan-shell", **without_agents(ws)
    ),
    "no plan, and no task": lambda ws: typed(ws, "run"),
    "gates that cannot run": gates_that_cannot_run,
    "a plan that never comes": a_plan_that_never_comes,
    "a plan that is none": a_plan_that_is_none,
    "a text of [prompt] that is not there": a_text_that_is_not_there,
    "a text of [prompt] that is lost": a_text_that_is_lost,
    "a hook that hangs": a_hook_that_hangs,
}  # fmt: skip
RUNS = ("a plan that never comes", "a text of [prompt] that is lost", "a hook that hangs")
"""Here something is started; every other one is refused before."""


def agreed() -> dict[str, str]:
    """The text of each scene."""
    parts = re.split(r"^== (.*)\n", GOLDEN.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture
def ws(ws: Workspace) -> Workspace:
    ws.without_plan()
    return ws


@pytest.mark.parametrize("scene", SCENES)
def test_it_is_said_as_it_was_agreed(ws: Workspace, scene: str) -> None:
    if scene in RUNS[1:]:
        ws.plan("- [ ] one\n")
    said = SCENES[scene](ws).replace(str(ws.path), "/shop").replace(str(ws.root), "/tmp")
    said = re.sub(r"[^\s`]*/codex-self-iter ", "codex-self-iter ", said)
    (ws.root.parent / f"said-{list(SCENES).index(scene):02}").write_text(f"== {scene}\n{said}\n")
    assert f"{said}\n" == agreed().get(scene)
    assert "Traceback" not in said
    if scene not in RUNS:
        assert ws.started() == 0
        assert not os.path.lexists(ws.state)


if __name__ == "__main__":
    said = sorted(Path(sys.argv[1]).glob("**/said-*"), key=lambda path: path.name)
    GOLDEN.write_text("".join(path.read_text() for path in said), encoding="utf-8")
