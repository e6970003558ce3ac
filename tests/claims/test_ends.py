"""When a loop ends and when it only waits: the rows of docs/contract.md and the README's promises
that no other test from outside tries."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Workspace, wait_until
from tests.support.program import PROGRAM


def told(ws: Workspace) -> str:
    """The table of a notify command that writes one line for each event."""
    command = json.dumps(
        [
            "sh",
            "-c",
            f"cat >> {shlex.quote(str(ws.root / 'told'))}; echo >> {shlex.quote(str(ws.root / 'told'))}",
        ]
    )
    return f"[notify]\ncommand = {command}\n"


def events(ws: Workspace) -> list[dict[str, Any]]:
    path = ws.root / "told"
    return (
        [json.loads(line) for line in path.read_text().splitlines() if line]
        if path.exists()
        else []
    )


def test_the_agents_stop_is_an_end_that_is_told(ws: Workspace) -> None:
    ws.config(told(ws))
    ws.script({"block": {"stop": True, "reason": "which of the two databases?"}})
    assert ws.run() == 0
    assert ws.status()["state"] == "stopped"
    assert "which of the two databases?" in ws.status()["reason"]
    (event,) = events(ws)
    assert event["event"] == "agent_stopped"
    assert "which of the two databases?" in event["text"]


@pytest.mark.slow
def test_a_wait_doubles_after_each_failure(ws: Workspace) -> None:
    ws.config(backoff_base_sec=0.1, backoff_max_sec=60, max_consecutive_errors=5)
    ws.script({"exit": 3}, {"raw": "nonsense"}, {"signal": 9}, {"exit": 3})
    assert ws.run() == 4
    waits = [line["wait"]["length"] for line in ws.journal()[:4]]
    for number, length in enumerate(waits):
        assert 0.1 * 2**number * 0.89 <= length <= 0.1 * 2**number * 1.11, waits


@pytest.mark.slow
def test_an_error_that_changed_something_is_not_counted(ws: Workspace) -> None:
    ws.config(max_consecutive_errors=2)
    failed = {"exit": 3}
    ws.script(failed, {**failed, "append": {"w": "1"}}, failed, failed)
    assert ws.run() == 4
    assert len(ws.journal()) == 4


def test_circles_are_warned_of_once_and_then_end(ws: Workspace) -> None:
    ws.config(max_stagnation=2, no_change_gate=False)
    ws.script({"block": {"next_goal": "the same"}})
    assert ws.run() == 3
    assert ws.status()["state"] == "stagnated"
    prompts = [ws.prompt(number + 1) for number in range(len(ws.journal()))]
    assert sum("circle" in prompt for prompt in prompts) == 1
    assert [line["warned"] for line in ws.journal()].count(True) >= 1


@pytest.mark.slow
def test_the_same_goal_with_changes_takes_three_times_as_long(ws: Workspace) -> None:
    ws.config(max_stagnation=2, no_change_gate=False)
    ws.script({"append": {"w": "x"}, "block": {"next_goal": "the same"}})
    assert ws.run() == 3
    changed = len(ws.journal())
    other = Workspace(ws.root, "other")
    try:
        other.config(max_stagnation=2, no_change_gate=False)
        other.script({"number": True})
        assert other.run() == 3
        assert changed == 3 * 2 + (len(other.journal()) - 2)
    finally:
        other.close()


@pytest.mark.slow
def test_after_its_end_it_goes_on_with_the_last_goal_and_completed_too(ws: Workspace) -> None:
    done = {"append": {"w": "1"}, "block": {"completed": True, "next_goal": "polish it"}}
    ws.script(done)
    assert ws.run() == 0
    assert ws.run() == 0
    assert [line["iteration"] for line in ws.journal()] == [1, 2]
    assert ws.journal()[1]["goal_in"] == "polish it"


@pytest.mark.slow
def test_a_terminal_that_closes_ends_nothing_and_stop_does(ws: Workspace) -> None:
    ws.script({"sleep": 60, "until": "go", "append": {"w": "1"}})
    pid, leader = pty.fork()
    if pid == 0:
        os.execve(PROGRAM[0], [*PROGRAM, "--workspace", str(ws.path)], ws.environment)
    try:
        seen = b""
        while ws.started() < 1:
            seen += os.read(leader, 65536)
            assert len(seen) < 10**6
        os.close(leader)  # the kernel sends SIGHUP to whoever leads the session
        (ws.control / "go").touch()
        ws.wait_runs(3)
        assert ws.cli("stop", "--wait").returncode == 0
    finally:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert ws.status()["state"] == "stopped"


@pytest.mark.slow
def test_a_wait_of_more_than_six_hours_is_told_at_once(ws: Workspace) -> None:
    """A limit that codex names, in the account's own words."""
    binary = ws.root / "bin" / "codex"
    binary.parent.mkdir()
    later = time.time() + 8 * 3600
    event = {"type": "error", "message": "You've hit your usage limit."}
    failed = {"type": "turn.failed", "error": {"message": json.dumps(
        {"error": {"type": "usage_limit_reached", "resets_at": int(later)}})}}  # fmt: skip
    lines = "\n".join(
        json.dumps(one) for one in ({"type": "thread.started", "thread_id": "t"}, event, failed)
    )
    version = '[ "$1" = --version ] && { echo codex-cli 0.171.0; exit 0; }'
    script = f"#!/bin/sh\n{version}\ncat > /dev/null\ncat <<'END'\n{lines}\nEND\nexit 1\n"
    binary.write_text(script)
    binary.chmod(0o755)
    ws.config(
        told(ws) + f"[agents.codex]\nbinary = {json.dumps(str(binary))}\n",
        agent="codex",
        agent_command_template="",
    )
    ws.start()
    status = ws.wait_state("limited")
    assert status["until"]
    assert status["reason"]
    wait_until(lambda: events(ws), "the notification")
    assert events(ws)[0]["event"] == "outage"


def test_a_defect_has_one_reason_everywhere(ws: Workspace) -> None:
    """A defect is provoked by a module of the person's that breaks ours while an agent works."""
    ws.config(told(ws))
    ws.script({"sleep": 60})
    place, flag = ws.root / "site", ws.root / "flag"
    place.mkdir()
    (place / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'codex_self_iter' in ' '.join(sys.orig_argv) and '-m' in sys.orig_argv:\n"
        "    import os\n"
        "    from codex_self_iter.supervisor import senses\n"
        "    before = senses.Senses.look\n"
        "    def look(*args, **more):\n"
        f"        if os.path.exists({str(flag)!r}): raise RuntimeError('the moon is full')\n"
        "        return before(*args, **more)\n"
        "    senses.Senses.look = look\n"
    )
    process = ws.start(environment={"PYTHONPATH": str(place)})
    ws.wait_runs(1)
    flag.touch()
    assert ws.ended(process) == 1
    reason = "RuntimeError: the moon is full"
    end = ws.status()["exit"]
    assert (end["code"], end["state"]) == (1, "crashed")
    assert reason in end["reason"]
    assert reason in (ws.state / "report.md").read_text()
    (event,) = [one for one in events(ws) if one["event"] == "crashed"]
    assert reason in event["text"]
    assert f"internal error: {reason}" in ws.log()
    crash = ws.home / "state" / "codex-self-iter" / "crash.log"
    assert str(crash) in ws.log()
    assert "Traceback" in crash.read_text()
    assert "the moon is full" in ws.cli("status").stdout
    assert not ws.leftovers()


@pytest.mark.slow
def test_without_a_state_home_the_traceback_is_below_the_home(ws: Workspace) -> None:
    place = ws.root / "site"
    place.mkdir()
    (place / "sitecustomize.py").write_text(
        "import codex_self_iter.cli.status as s\n"
        "def run(args): raise RuntimeError('a defect')\n"
        "s.run = run\n"
    )
    environment = {k: v for k, v in ws.environment.items() if k != "XDG_STATE_HOME"}
    done = subprocess.run(
        [*PROGRAM, "status"], env={**environment, "PYTHONPATH": str(place)}, cwd=ws.path,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    crash = Path(ws.home) / ".local" / "state" / "codex-self-iter" / "crash.log"
    assert str(crash) in done.stderr
    assert crash.exists()


@pytest.mark.parametrize(
    "kind",
    ["setsid", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("double", "holder"))],
)
def test_nothing_of_a_run_is_alive_when_the_next_one_begins(ws: Workspace, kind: str) -> None:
    """Each run looks for what the one before it has left; the first one sees its own."""

    def look(number: int) -> str:
        mine, found = shlex.quote(f"HOME={ws.home}"), shlex.quote(f"{ws.control}/found-{number}")
        is_mine = f"tr '\\0' '\\n' < /proc/$pid/environ | grep -qxF {mine}"
        search = "pgrep -f 'time.sleep[(]600[)]'"
        return f": > {found}; for pid in $({search}); do {is_mine} && echo $pid >> {found}; done"

    work = {"append": {"w": "1"}}
    ws.script(
        {**work, "run": look(1), "spawn": [kind], "block": {"next_goal": "a"}},
        {**work, "run": look(2), "block": {"completed": True}},
    )
    assert ws.run() == 0
    assert (ws.control / "found-1").read_text() != ""
    assert (ws.control / "found-2").read_text() == ""
