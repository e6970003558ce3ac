"""Pause and resume: what goes on, what stands still, and what still works meanwhile."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.control_steps import CLAIM, FAILS, PLANNED, WORK, agents_alive, long_run, reach
from tests.support.harness import Workspace, wait_until


def test_a_running_iteration_ends_normally_then_the_loop_stands_still(ws: Workspace) -> None:
    ws.script(long_run(until="go"), CLAIM)
    process = ws.start()
    ws.wait_runs(1)
    assert "pauses when this iteration ends" in ws.cli("pause").stdout
    wait_until(lambda: "pauses after it" in ws.status()["reason"], "status to say so")
    (ws.control / "go").touch()
    status = ws.wait_state("paused")
    assert ws.verdicts() == ["continue"]
    assert status["reason"].startswith("PAUSE is there")
    assert status["pause_file"] == str(ws.state / "PAUSE")
    assert status["run"] is None
    time.sleep(1)
    assert ws.started() == 1
    assert "codex-self-iter resume" in ws.cli("status").stdout
    assert ws.cli("resume").returncode == 0
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["continue", "completed"]


def test_pause_now_ends_the_run(ws: Workspace) -> None:
    process = reach(ws, "running", CLAIM)
    ws.cli("pause", "--now")
    ws.wait_state("paused")
    assert not agents_alive(ws)
    assert ws.verdicts() == ["aborted"]
    (ws.state / "PAUSE").unlink()
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["aborted", "completed"]


def test_pause_now_ends_slow_gates_and_they_run_again(ws: Workspace) -> None:
    process = reach(ws, "verifying")
    ws.cli("pause", "--now")
    ws.wait_state("paused")
    assert not agents_alive(ws)
    (ws.control / "gate").touch()
    ws.cli("resume")
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["completed"]
    assert ws.started() == 1


def test_stop_works_while_the_gates_are_parked(ws: Workspace) -> None:
    process = reach(ws, "verifying")
    ws.cli("pause", "--now")
    ws.wait_state("paused")
    ws.cli("stop", "--after-iteration")
    assert ws.ended(process) == 0
    assert ws.status()["state"] == "stopped"


@pytest.mark.slow
def test_a_pause_uses_nothing_of_a_backoff(ws: Workspace) -> None:
    ws.config(backoff_base_sec=4, backoff_max_sec=4)
    ws.script(FAILS, CLAIM)
    process = ws.start()
    ws.wait_state("backoff")
    ws.cli("pause")
    ws.wait_state("paused")
    time.sleep(5)  # longer than the wait
    began = time.monotonic()
    ws.cli("resume")
    assert ws.ended(process) == 0
    (_, (_, _, second)) = (row for row in ws.runs() if row[0] == "start")
    assert second - began > 1


@pytest.mark.slow
def test_a_wait_that_began_in_a_pause_is_not_made_longer_by_it(ws: Workspace) -> None:
    ws.config(backoff_base_sec=1.5, backoff_max_sec=1.5)
    ws.script(long_run(until="go", exit=3), CLAIM)
    process = ws.start()
    ws.wait_runs(1)
    ws.cli("pause")
    wait_until(lambda: "pauses after it" in ws.status()["reason"], "status to say so")
    time.sleep(10)
    (ws.control / "go").touch()
    ws.wait_state("paused")
    ws.cli("resume")
    began = time.monotonic()
    ws.wait_runs(2)
    assert time.monotonic() - began < 8
    assert ws.ended(process) == 0


@pytest.mark.slow
def test_the_end_of_a_limit_stays_where_it_is(ws: Workspace) -> None:
    process = reach(ws, "limited", WORK)
    until = ws.status()["until"]
    ws.cli("pause")
    ws.wait_state("paused")
    time.sleep(2)
    ws.cli("resume")
    assert ws.wait_state("limited")["until"] == until
    (ws.state / "STOP").touch()
    assert ws.ended(process) == 0


@pytest.mark.parametrize("phase", ["backoff", "cooldown"])
def test_pause_and_resume_during_a_wait(ws: Workspace, phase: str) -> None:
    process = reach(ws, phase)
    ws.cli("pause", "--now")
    ws.wait_state("paused")
    ws.cli("resume")
    ws.wait_state(phase)
    ws.cli("stop")
    assert ws.ended(process) == 0
    assert ws.started() == 1


def test_a_pause_outlives_a_restart(ws: Workspace) -> None:
    process = reach(ws, "paused")
    process.terminate()
    assert ws.ended(process) == 0
    again = ws.start()
    wait_until(
        lambda: ws.status().get("pid") == again.pid and ws.status()["state"] == "paused",
        "paused again",
    )
    assert ws.started() == 0
    ws.cli("resume")
    ws.wait_runs(1)


def test_what_is_asked_for_in_a_pause_waits_for_its_end_even_across_a_kill(ws: Workspace) -> None:
    process = reach(ws, "paused", WORK)
    ws.script(CLAIM)
    ws.cli("steer", "--now", "a message in the pause")
    ws.cli("goal", "a goal in the pause")
    ws.plan("# Plan\n\n- [ ] a plan of the pause\n")
    wait_until(lambda: ws.status()["goal"] == "a goal in the pause", "the goal")
    wait_until(lambda: not (ws.state / "inbox" / "goal").exists(), "the goal to be put aside")
    wait_until(lambda: ws.status()["plan"]["total"] == 1, "the plan")
    assert ws.status()["state"] == "paused"
    process.kill()
    process.wait()
    again = ws.start()
    wait_until(
        lambda: ws.status().get("pid") == again.pid and ws.status()["state"] == "paused",
        "paused again",
    )
    assert ws.started() == 0
    ws.cli("resume")
    assert ws.ended(again) == 0
    for text in ("a message in the pause", "a goal in the pause", "a plan of the pause"):
        assert text in ws.prompt(1)
    assert ws.verdicts() == ["completed"]


@pytest.mark.parametrize("phase", ["backoff", "paused"])
def test_stop_after_the_iteration_ends_a_loop_that_has_none(ws: Workspace, phase: str) -> None:
    process = reach(ws, phase)
    ws.cli("stop", "--after-iteration")
    assert ws.ended(process) == 0
    assert ws.status()["state"] == "stopped"


@pytest.mark.parametrize("command", [("pause",), ("stop", "--after-iteration")])
def test_an_iteration_of_three_roles_ends_as_a_whole(
    ws: Workspace, command: tuple[str, ...]
) -> None:
    reviewer = {"continue": True, "confidence": 1, "next_focus": "f", "reason": "r"}
    ws.config(mode="roles")
    ws.script(
        long_run(until="go", raw=json.dumps(PLANNED)),
        WORK,
        {"raw": json.dumps(reviewer)},
        long_run(),
    )
    process = ws.start()
    ws.wait_runs(1)
    ws.cli(*command)
    wait_until(lambda: "after" in ws.status()["reason"], "status to say so")
    (ws.control / "go").touch()
    ws.wait_state("paused", "stopped")
    assert ws.started() == 3
    assert ws.verdicts() == ["continue"]
    (ws.state / "STOP").touch()
    assert ws.ended(process) == 0
