"""When a wait is over, and what a pause does to it."""

from __future__ import annotations

import pytest

from codex_self_iter.core import events as ev
from codex_self_iter.core import waits
from codex_self_iter.core.machine import decide
from codex_self_iter.core.runs import EndCause
from codex_self_iter.core.terms import State
from tests.support.loop_world import (
    Answer,
    claim,
    passing,
    plan,
    policy,
    work,
)
from tests.support.situations import (
    AT,
    GATED,
    ROLES,
    between_roles,
    drive,
    ended,
    kinds,
    later,
    parked,
    running,
    running_planner,
    waiting,
)


@pytest.mark.parametrize("kind", waits.STATES)
def test_a_wait_is_over_when_it_is_over_and_not_before(kind: str) -> None:
    state = waiting(kind)
    assert state.wait is not None
    assert state.state is waits.STATES[kind]
    rules = ROLES if kind in ("planner_stop", "continue_false") else policy()
    early, _ = decide(state, ev.Tick(), rules, later(state.wait.length - 0.5))
    assert early == state
    on, _ = decide(state, ev.Tick(), rules, later(state.wait.length + 0.5))
    assert on.preparing


@pytest.mark.parametrize(
    ("event", "ends"),
    [
        (ev.Edited("plan", 1, 0), {"no_change", "planner_stop", "continue_false"}),
        (ev.Steer(), {"no_change", "planner_stop", "continue_false"}),
        (ev.GoalSet("g"), {"no_change", "planner_stop", "continue_false"}),
        (ev.Steer(now=True), {"no_change", "planner_stop", "continue_false", "error", "auth"}),
        (ev.PolicyChanged(), {"auth"}),
        (ev.Unblock(ev.Hold.DISK), set()),
        (ev.Resume(), set()),
    ],
)
def test_what_ends_which_wait(event: ev.Event, ends: set[str]) -> None:
    assert {kind for kind in waits.STATES if drive(waiting(kind), event)[0].preparing} == ends


@pytest.mark.parametrize("kind", waits.STATES)
def test_a_pause_uses_up_no_wait(kind: str) -> None:
    state = waiting(kind)
    assert state.wait is not None
    length = state.wait.length
    state, _ = decide(state, ev.Pause("p"), policy(), later(1.0))
    assert state.state is State.PAUSED
    assert decide(state, ev.Tick(), policy(), later(9_999.0))[0] == state
    state, _ = decide(state, ev.Resume(), policy(), later(100_000.0))
    if kind == "limit":  # the limit itself does not wait for us
        assert state.preparing
        return
    assert state.wait is not None
    assert waits.rest(state.wait, later(100_000.0)) == pytest.approx(length - 1.0)


def test_a_wait_that_began_in_a_pause_is_not_longer_for_it() -> None:
    state, _ = decide(running(), ev.Pause("p"), policy(), AT)
    state, _ = decide(state, ended(state, Answer("?", changed=False)), policy(), later(7_200.0))
    assert state.wait is not None
    state, _ = decide(state, ev.Resume(), policy(), later(9_000.0))
    assert state.wait is not None
    assert state.wait.up_until == AT.up + 9_000.0 + state.wait.length
    assert decide(state, ev.Tick(), policy(), later(9_000.0 + state.wait.length))[0].preparing


def test_a_pause_outlives_a_restart_with_what_was_left_of_the_wait() -> None:
    state = waiting("error")
    assert state.wait is not None
    state, _ = decide(state, ev.Pause("p"), policy(), later(2.0))
    state, _ = decide(state, ev.Boot(paused=True), policy(), later(50_000.0))
    state, _ = decide(state, ev.Resume(), policy(), later(60_000.0))
    assert state.wait is not None
    assert waits.rest(state.wait, later(60_000.0)) == pytest.approx(state.wait.length - 2.0)


def test_pause_now_ends_the_run_and_the_loop_goes_on_after_it() -> None:
    state, commands = drive(running(), ev.Pause("p", now=True))
    assert kinds(commands) == ["Persist", "Abort"]
    state, _ = drive(state, ended(state, Answer("", EndCause.REQUEST)))
    assert state.state is State.PAUSED
    state, commands = drive(state, ev.Resume())
    assert "Prepare" in kinds(commands)


def test_pause_now_while_inputs_are_read_does_not_stick() -> None:
    state, commands = drive(between_roles(), ev.Pause("p", now=True), rules=ROLES)
    assert "Abort" not in kinds(commands)
    state, _ = drive(state, ev.Prepared(), rules=ROLES)
    assert state.state is State.PAUSED
    state, commands = drive(state, ev.Resume(), ev.Prepared(), rules=ROLES)
    assert "StartRun" in kinds(commands)


def test_pause_now_that_comes_as_the_gates_end_is_not_lost() -> None:
    state = running_planner()
    state, _ = drive(state, ended(state, plan()), ev.Prepared(), rules=ROLES)
    state, _ = drive(
        state, ended(state, claim()), ev.Pause("p", now=True), ev.GatesEnded(passing()), rules=ROLES
    )
    assert state.state is State.PAUSED
    assert not state.preparing


def test_a_pause_lets_the_running_iteration_end() -> None:
    state, commands = drive(running(), ev.Pause("p"))
    assert kinds(commands) == []
    state, commands = drive(state, ended(state, work("x")))
    assert (state.state, state.iteration) == (State.PAUSED, 1)
    assert kinds(commands)[:2] == ["Journal", "Persist"]


def test_parked_gates_run_when_the_pause_ends() -> None:
    _, commands = drive(parked(), ev.Resume(), rules=GATED)
    assert kinds(commands) == ["RunGates"]
    _, commands = drive(parked(), ev.Boot(paused=True), ev.Resume(), rules=GATED)
    assert kinds(commands) == ["RunGates"]
