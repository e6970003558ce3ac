"""Results and requests survive each other: what an agent has done counts, what a person asks is
heard, and failing for ever has an end."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.support.control_steps import WORK, long_run, wait_log
from tests.support.harness import Workspace, wait_until

SLOW_LOOK = "[git]\ncommit = 'supervisor'\n"


def slow_git(ws: Workspace) -> None:
    """`git status` of the supervisor waits, once the agent has ended, until `look` is there."""
    tool = ws.control / "bin" / "git"
    tool.parent.mkdir()
    real = next(path for path in ("/usr/bin/git", "/usr/local/bin/git") if os.path.exists(path))
    tool.write_text(
        f"#!/bin/sh\nif [ -e '{ws.control}/ended' ] && [ ! -e '{ws.control}/look' ]; then\n"
        f"case \"$*\" in *status*) touch '{ws.control}/looking'\n"
        f"n=0; until [ -e '{ws.control}/look' ] || [ $n -gt 600 ]; do sleep 0.05; n=$((n+1)); done\n"
        f';; esac; fi\nexec {real} "$@"\n'
    )
    tool.chmod(0o755)
    ws.environment["PATH"] = f"{tool.parent}:{ws.environment['PATH']}"


@pytest.mark.parametrize("how", ["stop", "SIGTERM", "steer", "pause"])
def test_a_run_that_has_ended_is_judged_whatever_is_asked_meanwhile(
    ws: Workspace, how: str
) -> None:
    slow_git(ws)
    ws.config(SLOW_LOOK)
    done = {**WORK, "run": f"touch '{ws.control}/ended'", "block": {"completed": True}}
    ws.script(done)
    process = ws.start()
    wait_until((ws.control / "looking").exists, "the look at what the run changed")
    if how == "SIGTERM":
        process.send_signal(signal.SIGTERM)
        wait_log(ws, "stop.signal")
    else:
        flags = {"stop": ["stop"], "steer": ["steer", "--now", "hm"], "pause": ["pause", "--now"]}
        ws.cli(*flags[how])
        wait_until(
            lambda: (
                ws.status().get("state") == "stopping" or ws.runtime().get("ending")
                if how == "stop"
                else True
            ),
            "the request",
        )
    (ws.control / "look").touch()
    assert ws.ended(process) == 0
    (line,) = ws.journal()
    assert (line["verdict"], line["has_new_changes"]) == ("completed", True)
    assert line["runs"][0]["cause"] == "exit"
    assert line["commit"]
    assert ws.status()["state"] == "completed"


@pytest.mark.parametrize("target", ["parent", "parent -9", "launcher"])
def test_an_agent_that_ends_its_parents_backs_off_and_ends(ws: Workspace, target: str) -> None:
    ws.config(max_consecutive_errors=3)
    kill = {
        "parent": "kill -TERM $P",
        "parent -9": "kill -KILL $P",
        "launcher": "kill -TERM $(ps -o ppid= -p $P)",
    }[target]
    agent = "P=$(ps -o ppid= -p $PPID)"
    ws.script({**WORK, "run": f"{agent}; {kill}; sleep 1", "number": True})
    if target == "launcher":
        process = ws.start()
        ws.wait_runs(3)  # it is a mere nuisance: each next run gets another launcher
        process.send_signal(signal.SIGTERM)
        assert ws.ended(process) == 0
        assert "continue" in ws.verdicts()
        return
    assert ws.run() == 4
    assert len(ws.journal()) == ws.started() == 3
    assert "max_consecutive_errors" in ws.status()["reason"]


def test_a_message_is_carried_until_an_answered_run_had_it(ws: Workspace) -> None:
    ws.script(long_run(), {"exit": 3}, long_run(), {**WORK, "block": {"completed": True}})
    ws.cli("steer", "remember the milk")
    process = ws.start()
    ws.wait_runs(1)
    process.send_signal(signal.SIGTERM)  # a service that is restarted
    assert ws.ended(process) == 0
    process = ws.start()
    ws.wait_runs(3)
    ws.cli("steer", "--now", "and the bread")
    assert ws.ended(process) == 0
    for number in (1, 2, 3, 4):
        assert "remember the milk" in ws.prompt(number)
    assert "and the bread" in ws.prompt(4)
    assert not ws.runtime()["carried"]


def test_a_second_file_of_a_name_is_read_and_what_is_no_file_holds_nothing_back(
    ws: Workspace,
) -> None:
    inbox = ws.state / "inbox"
    inbox.mkdir(parents=True)
    (inbox / "0-directory.md").mkdir()
    os.mkfifo(inbox / "1-fifo.md")
    (inbox / "note.md").write_text("the first\n")
    claim: dict[str, Any] = {"block": {"completed": True}}
    ws.script(long_run("go", exit=3), long_run("go on", **claim))
    process = ws.start()
    ws.wait_runs(1)
    assert "the first" in ws.prompt(1)
    (inbox / "note.md").write_text("the second\n")
    (ws.control / "go").touch()
    ws.wait_runs(2)
    assert "the first" in ws.prompt(2)
    assert "the second" in ws.prompt(2)
    (ws.control / "go on").touch()
    assert ws.ended(process) == 0
    said = " ".join(ws.status()["warnings"])
    assert "0-directory.md was set aside" in said
    assert "1-fifo.md was set aside" in said
    assert len(list((inbox / "done").iterdir())) == 2


def test_notes_of_the_agent_in_its_plan_are_no_new_start(ws: Workspace) -> None:
    note = {"append": {"plan.md": "- progress note\n"}, "block": {"next_goal": "the same"}}
    ws.config(max_stagnation=2)
    ws.script(note)
    assert ws.run() == 3
    assert len(ws.journal()) == 6  # three times the bound, because content changes


def test_an_agent_that_notes_its_progress_can_complete(ws: Workspace) -> None:
    ws.config("[verify]\nconfirmations = 1\ncommands = ['echo checked >> plan.md']\n")
    ws.script({"append": {"plan.md": "- progress note\n"}, "block": {"completed": True}})
    assert ws.run("--max-iterations", "6") == 0
    assert ws.verdicts() == ["awaiting_confirmation", "completed"]


@pytest.mark.slow
def test_a_second_signal_cuts_a_slow_hook_short(ws: Workspace) -> None:
    hook = ws.path / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch '{ws.control}/hook'\nsleep 600\n")
    hook.chmod(0o755)
    ws.config("[git]\ncommit = 'supervisor'\ntimeout_sec = 500\n")
    ws.script(WORK)
    process = ws.start()
    wait_until((ws.control / "hook").exists, "the hook")
    process.send_signal(signal.SIGINT)
    wait_log(ws, "stop.signal")
    process.send_signal(signal.SIGINT)
    assert ws.ended(process, 30) == 130
    assert ws.verdicts() == ["continue"]
    assert "cut short" in str(ws.journal()[0])


@pytest.mark.slow
def test_a_second_signal_does_not_lose_whose_the_work_was(ws: Workspace) -> None:
    slow_git(ws)
    ws.config(SLOW_LOOK)
    ws.script({**WORK, "run": f"touch '{ws.control}/ended'"}, {"block": {"summary": "the next"}})
    process = ws.start()
    wait_until((ws.control / "looking").exists, "the look at what the run changed")
    process.send_signal(signal.SIGINT)
    wait_log(ws, "stop.signal")
    process.send_signal(signal.SIGINT)
    assert ws.ended(process, 30) == 130
    assert "not looked at" in ws.status()["reason"]
    (ws.control / "look").touch()
    assert ws.run("--max-iterations", "1") == 0
    assert ws.status()["owed"] is None
    assert "Codex-Self-Iter-Iteration: 2" in ws.git("log", "-1", "--format=%B", "--", ".")


def test_a_stop_file_that_goes_takes_nothing_back_from_sigterm(ws: Workspace) -> None:
    ws.config("[service]\non_stop = 'finish'\nfinish_timeout_sec = 500\n")
    ws.script(long_run("go"), long_run())
    process = ws.start()
    ws.wait_runs(1)
    ws.cli("stop", "--after-iteration")
    wait_log(ws, "stop.after_iteration")
    process.send_signal(signal.SIGTERM)
    wait_log(ws, "stop.signal")
    (ws.state / "STOP").unlink()
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert len(ws.journal()) == 1
    assert "SIGTERM" in ws.status()["reason"] or "STOP" in ws.status()["reason"]


SECRETS = """#!/bin/sh
yes 'postgres://me:hunter2@db' | head -c 64000000
echo '{"summary": "s", "next_goal": "n", "stop": false, "completed": true}'
"""


def test_who_is_in_a_hurry_does_not_wait_for_the_redaction(ws: Workspace) -> None:
    agent = ws.root / "agent.sh"
    agent.write_text(SECRETS)
    agent.chmod(0o755)
    ws.config(agent_command_template=f"'{agent}' {{prompt_file}}")
    process = ws.start()
    (output := ws.state / "logs" / "runs" / "000001-executor" / "stdout.log")
    temporary = output.with_name("stdout.log.redacting")
    wait_until(temporary.exists, "the redaction to be on")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    assert ws.ended(process) == 0
    with output.open("rb") as file:
        said, rest = file.readline(), file.read()
    assert said.startswith(b"[its first ")
    assert (b"hunter2" in rest, b'"completed": true' in rest) == (False, True)
    assert "there was no time to take secrets out of them" in str(ws.status()["warnings"])
    assert not temporary.exists()


def in_little_time(ws: Workspace, last: float, more: str = "") -> None:
    """The bounds of an end, shortened; `more` is run in the supervisor as well."""
    place = ws.root / "site"
    place.mkdir()
    (place / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'codex_self_iter' in sys.orig_argv:\n"
        "    from codex_self_iter.supervisor import supervisor\n"
        f"    supervisor.HURRY_SEC, supervisor.LAST_SEC = 0.5, {last}\n" + more
    )
    ws.environment["PYTHONPATH"] = str(place)


def test_one_signal_cuts_what_takes_long_before_the_units_time_is_over(ws: Workspace) -> None:
    in_little_time(ws, 60.0)
    hook = ws.path / ".git" / "hooks" / "pre-commit"
    hook.write_text(f"#!/bin/sh\ntouch '{ws.control}/hook'\nexec sleep 600\n")
    hook.chmod(0o755)
    ws.config("[git]\ncommit = 'supervisor'\ntimeout_sec = 900\n")
    ws.script({**WORK, "block": {"completed": True}})
    process = ws.start()
    wait_until((ws.control / "hook").exists, "the hook")
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0
    assert "cut short" in ws.journal()[-1]["keep_error"]
    assert "stop.forced" not in ws.log()


HANGS = """
    import pathlib, threading
    from codex_self_iter.world.state.store import StateDirectory
    def append(self, record):
        pathlib.Path({there!r}).touch()
        threading.Event().wait()
    StateDirectory.append_journal = append
"""


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_a_call_that_never_comes_back_does_not_hold_up_the_end(
    ws: Workspace, numbers: list[signal.Signals]
) -> None:
    there = ws.control / "hangs"
    in_little_time(ws, 1.0, HANGS.format(there=str(there)))
    ws.script({**WORK, "block": {"completed": True}})
    process = ws.start()
    wait_until(there.exists, "the call that hangs")
    for number in numbers:
        process.send_signal(number)
        wait_until(lambda: "stop." in ws.log(), "the signal to be heard")
    assert ws.ended(process) == (130 if signal.SIGINT in numbers else 0)
    assert "stop.forced" in ws.log()
    ws.environment.pop("PYTHONPATH")
    assert ws.run() == 0  # it goes on from what was written
    assert ws.verdicts()[-1] == "completed"
