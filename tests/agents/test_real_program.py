"""The whole program over the real codex and claude, against a local model server."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.support.agent_runs import both_versions
from tests.support.model_server import fault, say, shell, write
from tests.support.real_program import Program, block

pytestmark = [pytest.mark.real_agents, pytest.mark.slow]


@pytest.fixture(params=["codex", "claude"])
def program(request, scene, older):
    """Make a program over either agent."""
    path = request.getfixturevalue(f"real_{request.param}")
    made = []

    def make(*script):
        made.append(Program(scene, request.param, path, list(script)))
        return made[-1]

    make.agent = request.param
    yield make
    for one in made:
        one.server.__exit__(None, None, None)


def test_a_plan_is_worked_off_to_proven_completion(scene, program):
    loop = program(
        write(str(scene.workspace / "a.txt"), "a"),
        block("Made a.", next_goal="Make b."),
        block("Claimed too early.", completed=True),
        write(str(scene.workspace / "b.txt"), "b"),
        block("Made b.", completed=True),
    )
    code = loop.run(
        "--max-iterations", "5", config='[verify]\ncommands = ["test -f a.txt -a -f b.txt"]\n'
    )
    assert code == 0, (scene.base / "program.log").read_text()[-4000:]
    assert loop.status()["state"] == "completed"
    records = loop.journal()
    assert [record["verdict"] for record in records] == ["continue", "claim_rejected", "completed"]
    assert records[1]["goal_in"] == "Make b."
    assert records[0]["changed_files"] == ["a.txt"]
    assert [record["usage"]["total_tokens"] for record in records] == [240, 120, 240]
    assert all(record["failure_class"] in ("", None) for record in records)
    asked = json.dumps(loop.server.main_asks[0].body)
    assert "Make two files." in asked
    assert "make b.txt" in asked


@both_versions
def test_a_resumed_thread_is_one_conversation(scene, program):
    loop = program(block("First."), block("Second."))
    config = f"[agents.{program.agent}]\nresume = true\n"
    assert loop.run("--max-iterations", "2", "--no-change-gate", "0", config=config) == 0
    assert "First." in json.dumps(loop.server.main_asks[1].body)
    assert [record["usage"]["total_tokens"] for record in loop.journal()] == [120, 120]
    if program.agent == "claude":
        first, second = (record["cost_usd"] for record in loop.journal())
        assert second == pytest.approx(first)


def test_no_login_asks_for_a_person_and_burns_nothing(scene, program):
    loop = program(fault("unauthorized"))
    assert loop.run("--max-consecutive-errors", "2") == 4
    status = loop.status()
    assert status["state"] == "blocked"
    assert {record["failure_class"] for record in loop.journal()} == {"auth"}


def test_a_stop_in_the_middle_of_a_tool_leaves_nothing(scene, program):
    loop = program(shell("touch started; sleep 300 & sleep 300"), block())
    process = loop.start("--agent-mode", "bypass")
    try:
        loop.until((scene.workspace / "started").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert scene.left() == []


def test_a_limit_is_waited_for(scene, real_codex):
    """Codex alone tells the exact end."""
    loop = Program(scene, "codex", real_codex, [])
    seen, ends = [], []

    def script(_ask):
        seen.append(time.time())
        ends.append(int(seen[0]) + 6)
        if time.time() < ends[0]:
            return fault("usage_limit", resets_at=ends[0])
        return block(completed=True)

    loop.server.script = script
    process = loop.start("--max-iterations", "3")
    try:
        loop.until(lambda: loop.status().get("state") == "limited")
        assert abs(loop.status()["wait"]["length_sec"]) < 120
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
        loop.server.__exit__(None, None, None)
    assert len(seen) == 2  # nothing was started into the known limit
    assert loop.journal()[0]["failure_class"] == "limit"


def test_one_sentence_in_a_terminal_ends_proven(scene, program):
    """As a new user types it: the agent is found on PATH, the gate in the repository; the agent
    writes its plan in the state directory in its safe mode."""
    plan = str(scene.workspace / ".codex-self-iter" / "plan.md")
    made = "- [x] make a.txt\n"
    loop = program(
        write(plan, made),
        block("Made a plan.", next_goal="Make a.", completed=False),
        write(str(scene.workspace / "a.txt"), "a"),
        block("Made a.", completed=True),
    )
    for name in ("plan.md", "TASK.md"):
        (scene.workspace / name).unlink()
    (scene.workspace / "Makefile").write_text("test:\n\ttest -f a.txt\n")
    argv = [sys.executable, "-m", "codex_self_iter", "run", "Make a.txt, please"]
    argv += ["--agent", "claude"] if program.agent == "claude" else []  # codex is found first
    screen, terminal = os.openpty()
    environment = {**loop.scene.environment, "TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen(
        argv, cwd=scene.workspace, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # the other side is closed at the end
            while part := os.read(screen, 65536):
                shown += part
        assert process.wait(120) == 0, shown.decode()[-3000:]
    os.close(screen)
    text = shown.decode().replace("\r\n", "\n")
    asked = json.dumps(loop.server.main_asks[0].body)
    assert "Make a.txt, please" in asked
    assert ".codex-self-iter/plan.md" in asked
    assert pathlib.Path(plan).read_text() == made
    said = [
        f'{program.agent} works on "Make a.txt, please" in safe mode (the agent\'s own sandbox or permission rules hold)',
        "done will be believed when `make test` exits 0",
        "completed: ",
        "  gate      `make test`: passed",
        "  changed   1 file changed, 1 insertion(+)",
    ]
    places = [text.find(line) for line in said]
    assert -1 not in places, (places, text)
    assert places == sorted(places)


@both_versions
def test_a_plan_is_drafted(scene, program):
    plan = "# Plan\n\n- [ ] make a.txt\n  check: test -f a.txt\n"
    loop = program(shell("echo x > planted.txt"), say(f"I have looked.\n\n{plan}"))
    for name in ("plan.md", "TASK.md"):
        (scene.workspace / name).unlink()
    argv = [sys.executable, "-m", "codex_self_iter", "plan", "Make a.txt, please", "--yes"]
    environment = {**scene.environment, "CODEX_SELF_ITER_AGENT": program.agent}
    done = subprocess.run(
        argv, cwd=scene.workspace, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (loop.state / "plan.md").read_text() == plan
    assert "Make a.txt, please" in json.dumps(loop.server.main_asks[0].body)
    if program.agent == "codex":  # claude's sandbox lets commands write in the workspace
        assert not (scene.workspace / "planted.txt").exists()
