"""Steering: messages and goals reach the next prompt, once, in order, and are kept."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.support.control_steps import CLAIM, WORK, agents_alive, long_run, reach, wait_log
from tests.support.harness import Workspace, overlaps, wait_until


def test_messages_come_once_in_order_and_are_kept(ws: Workspace) -> None:
    ws.script(long_run(until="go"), WORK, CLAIM)
    note = ws.root / "a note.md"
    note.write_text("second: from a file, {braces} and $HOME stay\n")
    process = ws.start()
    ws.wait_runs(1)
    assert "next prompt" in ws.cli("steer", "first: text").stdout
    ws.cli("steer", "-f", str(note))
    (ws.state / "inbox" / "zz dropped.txt").write_text("third: dropped by hand")
    (ws.state / "inbox" / ".hidden.md").write_text("never: an editor's own file")
    (ws.state / "inbox" / "not ready.md").touch()
    time.sleep(0.6)
    (ws.state / "inbox" / os.fsdecode(b"\xff name.md")).write_bytes(b"fourth: \xff bytes\n")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    first, second, third = (ws.prompt(number) for number in (1, 2, 3))
    words = (
        "first: text",
        "second: from a file, {braces} and $HOME stay",
        "third: dropped",
        "fourth: ",
    )
    places = [second.index(word) for word in words]
    assert places == sorted(places)
    assert all(word not in first and word not in third for word in words)
    assert "never:" not in second
    texts = [message["text"].strip() for message in ws.journal()[1]["messages"]]
    assert [text.partition(":")[0] for text in texts] == ["first", "second", "third", "fourth"]
    assert ws.journal()[0]["messages"] == ws.journal()[2]["messages"] == []
    done = sorted(path.name for path in (ws.state / "inbox" / "done").iterdir())
    assert len(done) == 4
    assert all(name.startswith("000002-") for name in done)
    assert (ws.state / "inbox" / "not ready.md").exists()


def test_a_message_that_is_still_being_written_is_not_read_in_half(ws: Workspace) -> None:
    process = reach(ws, "cooldown", CLAIM)
    words, longest = [f"word {number}" for number in range(20)], 0.0
    with (ws.state / "inbox" / "slow.md").open("w") as file:
        for word in words:  # in all longer than a message must stand still, but no break is
            begun = time.monotonic()
            file.write(f"{word}, ")
            file.flush()
            time.sleep(0.05)
            longest = max(longest, time.monotonic() - begun)
    assert ws.ended(process) == 0
    whole = ", ".join(words) in ws.prompt(2)
    assert whole or longest > 0.4  # a machine that stood still for so long made the break


def test_a_message_ends_a_cooldown_but_not_a_backoff_or_a_limit(ws: Workspace) -> None:
    process = reach(ws, "backoff", long_run())
    ws.cli("steer", "patience")
    wait_log(ws, "inbox.message")
    time.sleep(0.5)
    assert ws.status()["state"] == "backoff"
    assert ws.started() == 1
    ws.cli("steer", "--now", "no patience")
    ws.wait_runs(2)
    assert "patience" in ws.prompt(2)
    assert ws.prompt(2).index("1. patience") < ws.prompt(2).index("2. no patience")
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0


def test_even_an_urgent_message_does_not_end_a_limit(ws: Workspace) -> None:
    process = reach(ws, "limited")
    until, runs = ws.status()["until"], ws.started()
    ws.cli("steer", "--now", "hurry")
    wait_log(ws, "inbox.message")
    time.sleep(0.5)
    assert (ws.status()["state"], ws.status()["until"]) == ("limited", until)
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0
    assert ws.started() == runs


def test_an_urgent_message_ends_the_run_and_the_next_one_has_it(ws: Workspace) -> None:
    ws.script(long_run(), CLAIM)
    process = ws.start()
    ws.wait_runs(1)
    ws.wait_state("running")
    assert "ends the running agent" in ws.cli("steer", "--now", "drop that, do this").stdout
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["aborted", "completed"]
    assert "drop that, do this" in ws.prompt(2)
    assert ws.journal()[1]["messages"][0]["text"].strip() == "drop that, do this"


def test_an_urgent_message_ends_slow_gates_too(ws: Workspace) -> None:
    process = reach(ws, "verifying", long_run())
    ws.cli("steer", "--now", "not done at all")
    ws.wait_runs(2)
    assert "not done at all" in ws.prompt(2)
    assert ws.verdicts() == ["aborted"]
    process.send_signal(signal.SIGTERM)
    assert ws.ended(process) == 0


def test_a_goal_replaces_the_current_one_idle_and_running(ws: Workspace) -> None:
    process = reach(
        ws, "cooldown", long_run(until="go", block={"next_goal": "the agent's own idea"}), CLAIM
    )
    assert ws.cli("goal", "paint it green").returncode == 0
    ws.wait_runs(2)
    assert "# Current goal\n\npaint it green" in ws.prompt(2)
    assert "takes it for the next iteration" in ws.cli("goal", "paint it red").stdout
    wait_until(lambda: not (ws.state / "inbox" / "goal").exists(), "the goal to be taken")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert "# Current goal\n\npaint it red" in ws.prompt(3)
    assert [line["goal_in"] for line in ws.journal()] == ["", "paint it green", "paint it red"]
    events = [event for line in ws.journal() for event in line["events"]]
    assert [event["goal"] for event in events if event["kind"] == "goal.set"] == [
        "paint it green",
        "paint it red",
    ]
    assert len(list((ws.state / "inbox" / "done").glob("*goal"))) == 2


@pytest.mark.slow
def test_messages_left_without_a_supervisor_come_with_the_next_start(ws: Workspace) -> None:
    ws.script(CLAIM)
    assert "after the next start" in ws.cli("steer", "--now", "left at night").stdout
    ws.cli("goal", "the goal of the night")
    assert ws.run() == 0
    assert "left at night" in ws.prompt(1)
    assert "the goal of the night" in ws.prompt(1)
    assert ws.verdicts() == ["completed"]  # the run that has it is not ended for it
    assert ws.run() == 0
    assert "left at night" not in ws.prompt(2)


@pytest.mark.slow
def test_a_killed_supervisor_sends_a_message_neither_twice_nor_never(ws: Workspace) -> None:
    ws.script(long_run(until="go"), CLAIM)
    ws.cli("steer", "just once")
    process = ws.start()
    ws.wait_runs(1)
    process.kill()
    process.wait()
    # As if it had died between sending the message and putting it aside.
    (done,) = (ws.state / "inbox" / "done").iterdir()
    done.rename(ws.state / "inbox" / done.name.partition("-")[2])
    again = ws.start()
    wait_log(ws, "run.adopted")
    (ws.control / "go").touch()
    assert ws.ended(again) == 0
    assert "just once" in ws.prompt(1)
    assert "just once" not in ws.prompt(2)
    assert [len(line["messages"]) for line in ws.journal()] == [1, 0]


def test_an_urgent_message_ends_a_run_that_was_adopted(ws: Workspace) -> None:
    process = reach(ws, "running", CLAIM)
    process.kill()
    process.wait()
    ws.cli("steer", "--now", "while nobody watched")
    again = ws.start()
    assert ws.ended(again) == 0
    assert ws.verdicts() == ["aborted", "completed"]
    assert "while nobody watched" in ws.prompt(2)
    assert overlaps(ws.runs()) <= 2  # the first could not note its own end
    assert not agents_alive(ws)


def test_a_message_that_came_too_late_for_every_run_is_said(ws: Workspace) -> None:
    process = reach(ws, "verifying")
    ws.cli("steer", "one more thing")
    wait_log(ws, "inbox.message")
    (ws.control / "gate").touch()
    assert ws.ended(process) == 0
    said = "no agent has read what is in inbox/"
    assert ws.verdicts() == ["completed"]
    assert any(said in text for text in ws.status()["warnings"])
    assert said in (ws.state / "report.md").read_text()
    ws.script(CLAIM)
    assert ws.run() == 0
    assert "one more thing" in ws.prompt(2)
    assert not ws.status()["warnings"]


def test_a_goal_and_items_that_came_too_late_for_every_run_are_said(ws: Workspace) -> None:
    ws.script(long_run(until="go", block={"completed": True}), CLAIM)
    process = ws.start()
    ws.wait_runs(1)
    ws.cli("goal", "translate the docs")
    (ws.path / "plan.md").write_text("- [ ] of a person\n- [ ] first\n- [ ] second\n")
    wait_log(ws, "plan.changed")
    wait_until(lambda: not (ws.state / "inbox" / "goal").exists(), "the goal to be taken")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["completed"]
    for said in ("worked on the goal that was set last: translate the docs", "run: of a person"):
        assert any(said in text for text in ws.status()["warnings"])
        assert said in (ws.state / "report.md").read_text()
    assert ws.run() == 0
    assert "translate the docs" in ws.prompt(2)
    assert not ws.status()["warnings"]


GATE = "touch '{c}/gate'; until [ -e '{c}/go' ]; do sleep 0.05; done"


@pytest.mark.parametrize("edited", [False, pytest.param(True, id="edited", marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", ["SIGKILL in the run", "SIGKILL", "SIGTERM", "stop"])
def test_after_a_restart_only_items_that_came_in_are_said_to_have_come(
    ws: Workspace, how: str, edited: bool
) -> None:
    signs = ws.control
    if how == "SIGKILL in the run":
        ws.script(long_run(until="go", block={"completed": True}))
    else:
        ws.config(f"[verify]\ncommands = [{json.dumps(GATE.format(c=signs))}]\n")
        ws.script(CLAIM)
    process = ws.start()
    ws.wait_runs(1)
    if how == "stop":
        wait_until((signs / "gate").exists, "the gate")
        assert ws.cli("stop").returncode == 0
    elif how == "SIGKILL in the run":
        process.kill()
    else:
        wait_until((signs / "gate").exists, "the gate")
        process.send_signal(getattr(signal, how))
    ws.ended(process)
    if edited:
        with open(ws.path / "plan.md", "a") as plan:
            plan.write("- [ ] of a person\n")
    (signs / "go").touch()
    assert ws.run("--clear-stop") == 0, ws.log()
    assert ws.started() == 1
    assert ws.verdicts() == ["completed"]
    said = [text for text in ws.status()["warnings"] if "came in during the last run" in text]
    assert [text.rpartition(": ")[2] for text in said] == (["of a person"] if edited else [])
