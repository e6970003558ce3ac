"""README.md: what a newcomer types, and what is seen then."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.claims.documents import ROOT
from tests.support.agent_runs import need_real
from tests.support.harness import Workspace
from tests.support.program import PROGRAM

README = (ROOT / "README.md").read_text(encoding="utf-8")
AGENTS = ("codex", "claude", "gemini", "opencode")


def shape(text: str) -> list[str]:
    """A session without its times, names of directories and of commits."""
    text = re.sub(r"\S*codex-self-iter(?= (status|history|show|run|rewind))", "PROGRAM", text)
    text = re.sub(r"(~|/)\S*demo-\S+?(?=[\s/]|$)", "DIRECTORY", text)
    text = re.sub(r"^(  time +)[0-9.]+ s,", r"\1SECONDS,", text, flags=re.MULTILINE)
    text = re.sub(r"^  [0-9a-f]{7,12} ", "  COMMIT ", text, flags=re.MULTILINE)
    return [line.rstrip() for line in text.strip().splitlines() if line.strip()]


@pytest.mark.slow
def test_the_session_is_what_the_demo_prints(tmp_path: Path) -> None:
    shown = README.partition("<!-- session:start -->\n```console\n")[2].partition("```")[0]
    _, _, session = shown.partition("\n")
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"),
                   "XDG_STATE_HOME": str(tmp_path / "state")}  # fmt: skip
    done = subprocess.run(
        [*PROGRAM, "demo"], env=environment, cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = done.stdout.replace(shlex.join(PROGRAM), "codex-self-iter")
    assert shape(printed.partition("\nIterations\n")[0]) == shape(session)


def test_the_card_is_the_one_of_the_tutorial() -> None:
    """Which is compared with what the program prints."""
    card = README.partition("```console\n")[2].partition("```")[0]
    assert card.startswith("completed: ")
    assert card in (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


def test_the_session_leaves_no_file_in_the_clone() -> None:
    command = README.partition("```console\n$ ")[2].partition("\n")[0]
    assert f"echo '$ {command}'" in (ROOT / "scripts" / "capture-session.sh").read_text()
    _, _, log = command.partition(" 2>")
    assert Path(log).is_absolute()


@pytest.mark.slow
def test_the_scripts_work_in_a_fresh_clone(tmp_path: Path) -> None:
    """They make the environment, the demo ends well, and the tests of the clone are run.

    By `venv` and `pip` out of the package index, at a path with everything that quoting can get
    wrong; with uv see tests/project/test_scripts.py."""
    clone = tmp_path / "a fresh clone, it's [new] $HOME é"
    leave_out = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, clone, ignore=leave_out)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home"), "LC_ALL": "C",
                   "PYTHON": os.path.realpath(sys.executable),
                   **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))},
                   "PIP_NO_COMPILE": "1"}  # fmt: skip
    (tmp_path / "home").mkdir()

    def script(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(clone / "scripts" / name), *words]
        return subprocess.run(
            command, env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=500
        )  # fmt: skip

    demo = script("run-local.sh")
    assert demo.returncode == 0, demo.stderr[-2000:]
    assert "completed: Every item of the plan is ticked (5 of 5)." in demo.stdout
    assert (clone / ".venv" / "bin" / "python").exists()
    target = tmp_path / "mine"
    target.mkdir()
    any_command = script("run-local.sh", "init", "--workspace", str(target))
    assert any_command.returncode == 0, any_command.stderr
    assert (target / "plan.md").exists()
    tests = script("test.sh", "-q", "tests/claims/test_complete.py::test_no_table_is_left_over")
    assert tests.returncode == 0, tests.stdout[-2000:] + tests.stderr[-2000:]
    assert "1 passed" in tests.stdout


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Workspace]:
    """A repository with tests, and with an agent of each name on PATH."""
    ws = Workspace(tmp_path, "mine")
    ws.without_plan()
    (ws.path / "Makefile").write_text("test:\n\ttest -f done\n")
    yield ws
    ws.close()


def test_init_finds_agent_and_tests_and_doctor_looks_at_what_it_wrote(fresh: Workspace) -> None:
    binaries = fresh.root / "bin"
    binaries.mkdir()
    (binaries / "claude").write_text("#!/bin/sh\necho '2.1.332 (Claude Code)'\n")
    (binaries / "claude").chmod(0o755)
    fresh.environment["PATH"] = f"{binaries}:{fresh.environment['PATH']}"
    said = fresh.cli("init")
    assert said.returncode == 0, said.stderr
    for name in ("TASK.md", "plan.md", "codex-self-iter.toml"):
        assert (fresh.path / name).exists()
    written = (fresh.path / "codex-self-iter.toml").read_text()
    assert '"claude"' in written
    assert "make test" in written
    shown = fresh.cli("doctor")
    assert "claude" in shown.stdout
    assert "make test" in shown.stdout


@pytest.mark.parametrize(
    "name", ["codex", *(pytest.param(name, marks=pytest.mark.slow) for name in AGENTS[1:])]
)
def test_every_agent_that_is_named_is_called_by_its_name(ws: Workspace, name: str) -> None:
    binaries, called = ws.root / "bin", ws.root / "called"
    binaries.mkdir()
    (binaries / name).write_text(f'#!/bin/sh\necho "$@" >> "{called}"\ncat > /dev/null\nexit 3\n')
    (binaries / name).chmod(0o755)
    ws.config(agent=name, agent_command_template="", max_consecutive_errors=1)
    assert ws.run(
        "--max-iterations", "1", environment={"PATH": f"{binaries}:{os.environ['PATH']}"}
    ) in (0, 4)
    assert called.read_text().strip()
    assert ws.journal()[0]["agent"] == name


def test_any_program_works_through_a_command_line(ws: Workspace) -> None:
    """The template as it stands, with a sentence as the README has it, and without one."""
    template = re.findall(r'--agent-command-template "([^"]+)"', README)[0]
    assert template.startswith("my-agent ")
    answer = json.dumps({"summary": "s", "next_goal": "n", "stop": False, "completed": True})
    binaries = ws.root / "bin"
    binaries.mkdir()
    lines = f'#!/bin/sh\ntest -s "$1" && cd "$2" && echo 1 > work && echo \'{answer}\'\n'
    (binaries / "my-agent").write_text(lines)
    (binaries / "my-agent").chmod(0o755)
    (ws.path / "codex-self-iter.toml").unlink()
    path = {"PATH": f"{binaries}:{os.environ['PATH']}"}
    assert ws.run("--agent-command-template", template, environment=path) == 0
    assert ws.journal()[0]["agent"] == "command"
    assert (ws.path / "work").exists()
    flags = "run", "Do the work", "--agent-command-template", template
    assert ws.run(*flags, environment=path) == 0, ws.log()
    assert (ws.state / "task.md").read_text() == "Do the work\n"


@pytest.mark.slow
def test_a_wait_always_says_why_and_until_when(ws: Workspace) -> None:
    ws.config(backoff_base_sec=60, backoff_max_sec=60)
    ws.script({"exit": 3})
    ws.start()
    status = ws.wait_state("backoff")
    assert "exit code 3" in status["reason"]
    assert status["until"] == status["wait"]["until"]
    shown = ws.cli("status").stdout
    assert "exit code 3" in shown
    assert "until" in shown


@pytest.fixture
def mcp_program(tmp_path: Path, ws: Workspace) -> dict[str, str]:
    """An environment with our program on PATH, and a home in which the real CLIs find nothing."""
    home = tmp_path / "codex"
    home.mkdir()
    return {**ws.with_command(), "HOME": str(tmp_path), "CODEX_HOME": str(home)}


@pytest.mark.slow
@pytest.mark.real_agents
@pytest.mark.parametrize("name", ["codex", "claude"])
def test_the_plugin_is_taken_from_this_repository(
    tmp_path: Path, mcp_program: dict[str, str], name: str
) -> None:
    """The two lines of the README, with the real program and a home of its own: skill and tools are
    there, and nothing else of the repository."""
    real = need_real(name)

    def do(*words: str) -> str:
        done = subprocess.run(
            [real, *words], env=mcp_program, cwd=tmp_path, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    if name == "claude":
        for place in (ROOT, ROOT / "plugin"):
            assert "passed" in do("plugin", "validate", "--strict", str(place))
    lines = re.findall(rf"(?:^    |&& ){name} (plugin [^&\n]+)", README, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        do(*line.replace("/path/to/this/repository", str(ROOT)).split())
    assert "codex-self-iter mcp" in re.sub(" +", " ", do("mcp", "list"))
    if name == "claude":
        assert "Skills (1)  supervise-loop" in do("plugin", "details", "codex-self-iter")
        assert "Connected" in do("mcp", "list")
        return
    (copied,) = (tmp_path / "codex").glob("plugins/cache/*/*/*/")
    names = {path.relative_to(copied) for path in copied.rglob("*") if path.is_file()}
    plugin = ROOT / "plugin"
    assert names == {path.relative_to(plugin) for path in plugin.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_examples_are_read_as_they_are(ws: Workspace) -> None:
    """Copied into a repository, task and plan stand in the prompt, and every item is counted."""
    for name in ("TASK.md", "plan.md"):
        shutil.copy(ROOT / "examples" / name, ws.path / name)
    assert ws.run("--once") == 0
    prompt = ws.prompt(1)
    for name in ("TASK.md", "plan.md"):
        assert (ROOT / "examples" / name).read_text().strip() in prompt
    boxes = (ROOT / "examples" / "plan.md").read_text().count("- [ ]")
    assert ws.status()["plan"]["total"] == boxes
    task = (ROOT / "examples" / "TASK.md").read_text()
    assert re.findall("^## (.+)$", task, re.MULTILINE) == [
        "What is wanted", "What must not change", "How one can tell that it is done",
    ]  # fmt: skip
    assert ws.cli("doctor").returncode == 0


@pytest.mark.slow
def test_plan_shell_works_through_its_example(ws: Workspace) -> None:
    shutil.copy(ROOT / "examples" / "plan-shell.md", ws.path / "plan.md")
    (ws.path / "one.py").write_text("print(1)\n")
    ws.config(agent="plan-shell", agent_command_template="")
    assert ws.run() == 0
    assert ws.verdicts() == ["continue", "completed"]
    assert "one.py" in (ws.path / "line-counts.txt").read_text()
    assert "- [ ]" not in (ws.path / "plan.md").read_text()
