"""No event brings the loop into an illegal situation; what holds it, in order; restarts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from codex_self_iter.core import commands as cmd
from codex_self_iter.core import events as ev
from codex_self_iter.core import waits
from codex_self_iter.core.agent_report import FailureClass
from codex_self_iter.core.holds import HOLDS, next_role
from codex_self_iter.core.machine import decide
from codex_self_iter.core.policy import BudgetPolicy, Policy
from codex_self_iter.core.runs import EndCause
from codex_self_iter.core.state import (
    Ending,
    EndingKind,
    LoopState,
    Message,
    Spent,
    Step,
    StopSource,
    WaitKind,
)
from codex_self_iter.core.terms import Role, State
from tests.support.loop_world import (
    Answer,
    block,
    claim,
    fail,
    invariants,
    lawful,
    passing,
    plan,
    policy,
    review,
    work,
)
from tests.support.situations import (
    AT,
    GATED,
    ROLES,
    SITUATIONS,
    between_roles,
    drive,
    ended,
    events_for,
    finished,
    kinds,
    preparing,
    running,
    running_planner,
)

# -- situations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [policy(), GATED, ROLES], ids=["goal", "gated", "roles"])
@pytest.mark.parametrize("name", SITUATIONS)
def test_no_event_in_any_situation_makes_an_illegal_state(name: str, rules: Policy) -> None:
    start = SITUATIONS[name]()
    for first in events_for(start).values():
        state, commands = drive(start, first, rules=rules)
        if start.finished and not isinstance(first, ev.Boot):
            assert (state, commands) == (start, ())
        for second in events_for(state).values():
            last, commands = decide(state, second, rules, AT)
            invariants(last)
            lawful(state, second, commands)


@pytest.mark.parametrize("name", SITUATIONS)
def test_stop_works_in_every_situation(name: str) -> None:
    start = SITUATIONS[name]()
    if start.finished:
        return
    rules = ROLES if "role" in name or "planner" in name else GATED
    state, commands = drive(start, ev.Stop("enough", exit_code=130), rules=rules)
    opened = start.open
    if opened is not None and opened.run is not None:
        assert kinds(commands) == ["Persist", "Abort"]
        state, commands = drive(
            state, ended(state, Answer("", EndCause.REQUEST, changed=False)), rules=rules
        )
    elif name == "verifying":
        assert kinds(commands) == ["Persist", "Abort"]
        state, commands = drive(state, ev.GatesEnded((), aborted=True), rules=rules)
    elif name == "keeping":
        state, commands = drive(state, ev.Kept(), rules=rules)
        assert state.state is State.COMPLETED  # it had been proven already
        return
    assert (state.state, state.exit_code, state.reason) == (State.STOPPED, 130, "enough")
    assert isinstance(commands[-1], cmd.Exit)


@pytest.mark.parametrize("name", SITUATIONS)
def test_stop_after_the_iteration_never_waits_for_anything_but_the_iteration(name: str) -> None:
    start = SITUATIONS[name]()
    if start.finished:
        return
    rules = ROLES if "role" in name or "planner" in name else GATED
    state, _ = drive(start, ev.Stop("enough", after_iteration=True), rules=rules)
    on = start.open is not None and (
        start.open.run is not None
        or (start.open.step is not Step.RUN and name != "parked")
        or (start.preparing and start.open is not None)
    )
    assert state.finished is not on


def test_stop_after_the_iteration_lets_all_its_roles_run() -> None:
    state = between_roles()
    state, _ = drive(state, ev.Stop("enough", after_iteration=True), ev.Prepared(), rules=ROLES)
    for answer in (work("x"), review(True)):
        assert not state.finished
        state, _ = drive(state, ended(state, answer), rules=ROLES)
        if state.preparing:
            state, _ = drive(state, ev.Prepared(), rules=ROLES)
    assert (state.state, state.iteration) == (State.STOPPED, 1)


@pytest.mark.parametrize(
    "hold",
    [ev.Block(ev.Hold.DISK, "full"), ev.Pause("p", now=True), ev.Block(ev.Hold.PLAN, "gone")],
)
def test_stop_after_the_iteration_does_not_wait_for_a_hold(hold: ev.Event) -> None:
    state, _ = drive(
        between_roles(), ev.Stop("enough", after_iteration=True), hold, ev.Prepared(), rules=ROLES
    )
    if isinstance(hold, ev.Block) and hold.name is ev.Hold.PLAN:
        state, _ = drive(state, ev.Tick(), rules=ROLES)
    assert state.state is State.STOPPED


def test_a_stop_taken_back_lets_the_loop_go_on() -> None:
    state, _ = drive(running(), ev.Stop("s", after_iteration=True), ev.Unstop())
    state, _ = drive(state, ended(state, work("x")))
    assert state.preparing


def test_who_takes_a_stop_back_takes_back_only_its_own() -> None:
    signal = ev.Stop("SIGTERM", after_iteration=True, source=StopSource.SIGNAL)
    file = ev.Stop("a STOP file", after_iteration=True)
    for order in ((signal, file), (file, signal)):
        state, _ = drive(running(), *order, ev.Unstop())
        state, _ = drive(state, ended(state, work("x")))
        assert (state.state, state.reason) == (State.STOPPED, "SIGTERM")
    state, _ = drive(running(), ev.Stop("SIGINT", exit_code=130), ev.Stop("a STOP file"))
    state, _ = drive(state, ended(state, Answer("", EndCause.REQUEST)))
    assert (state.reason, state.exit_code) == ("SIGINT", 130)


def test_a_second_look_at_the_inputs_never_runs_beside_the_first() -> None:
    state, commands = drive(preparing(), ev.Block(ev.Hold.PLAN, "gone"), ev.Unblock(ev.Hold.PLAN))
    assert not [command for command in commands if isinstance(command, cmd.Prepare)]
    assert drive(state, ev.Prepared())[0].open is not None


def test_a_stop_that_comes_as_the_gates_end_is_not_lost() -> None:
    state = running_planner()
    state, _ = drive(state, ended(state, plan()), ev.Prepared(), rules=ROLES)
    state, _ = drive(
        state, ended(state, claim()), ev.Stop("enough"), ev.GatesEnded(passing()), rules=ROLES
    )
    assert state.state is State.STOPPED
    assert state.open is not None  # the answer is kept: the reviewer comes next time
    state, commands = drive(state, ev.Boot(), rules=ROLES)
    assert commands == (cmd.Prepare(),)
    assert next_role(state.open, ROLES) is Role.REVIEWER


def test_negative_control_the_checker_sees_an_illegal_state() -> None:
    for bad in (
        dataclasses.replace(running(), preparing=True),
        dataclasses.replace(finished(), ending=Ending(EndingKind.STOP, "s")),
        dataclasses.replace(running(), state=State.COMPLETED),
        dataclasses.replace(preparing(), preparing=False, ending=Ending(EndingKind.STOP, "s")),
    ):
        with pytest.raises(AssertionError):
            invariants(bad)
    _, commands = decide(preparing(), ev.Prepared(), policy(), AT)
    with pytest.raises(AssertionError):
        lawful(preparing(), ev.Prepared(), tuple(reversed(commands)))


# -- what holds the loop, in order -------------------------------------------------------------------


def holding(index: int) -> tuple[LoopState, Policy]:
    """A loop between two iterations for which the conditions from `index` on all hold."""
    wait, limit = (
        waits.make(WaitKind.ERROR, 50.0, "an error", AT),
        waits.make(WaitKind.LIMIT, 90.0, "a limit", AT),
    )
    state = LoopState("loop", run_iterations=1, spent=Spent(tokens=10, day=int(AT.wall // 86_400)))
    layers: list[dict[str, Any]] = [
        {"stops": {"file": Ending(EndingKind.STOP, "after", 0)}},
        {"paused": True, "paused_up": AT.up},
        {},
        {"blocked_by": {"plan": "no plan", "disk": "full"}},
        {"blocked_by": {"disk": "full"}},
        {"wait": wait},
        {},
        {"limits": {"account-one": limit}},
    ]
    for layer in reversed(layers[index:]):
        state = dataclasses.replace(state, **layer)
    rules = policy(
        budget=BudgetPolicy(max_tokens=10 if 2 < index <= 6 else 0),
        max_iterations=1 if index <= 2 else 0,
    )
    return state, rules


EXPECTED = [
    (State.STOPPED, 0), (State.PAUSED, None), (State.STOPPED, 0), (State.COOLDOWN, None),
    (State.BLOCKED, None), (State.BACKOFF, None), (State.BLOCKED, 4), (State.LIMITED, None),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(HOLDS)), ids=[name for name, _ in HOLDS])
def test_the_first_condition_that_holds_decides(index: int) -> None:
    start, rules = holding(index)
    state, _ = drive(start, ev.PolicyChanged(), rules=rules)
    assert (state.state, state.exit_code) == EXPECTED[index]
    assert state.reason
    asked = dataclasses.replace(start, preparing=True)
    state, _ = drive(asked, ev.Prepared(), rules=rules)  # inputs take time: looked at once more
    assert (state.state, state.exit_code) == EXPECTED[index]


def test_nothing_holds_a_loop_for_which_nothing_holds() -> None:
    state, commands = drive(LoopState("loop"), ev.Boot())
    assert commands == (cmd.Prepare(),)
    state, commands = drive(state, ev.Prepared((Message("a.md", "a"),), "head"))
    assert kinds(commands) == ["Persist", "TakeMessages", "StartRun"]
    assert state.state is State.RUNNING


# -- restarts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trace", "expected"),
    [("none", ["Prepare"]), ("adopted", ["TakeMessages"]), ("gone", ["Journal", "Prepare"])],
)
def test_a_restart_finds_the_open_run(trace: str, expected: list[str]) -> None:
    state, commands = drive(running(), ev.Boot(ev.Trace(trace)))
    assert kinds(commands) == expected
    if trace == "none":
        state, commands = drive(state, ev.Prepared())
        assert state.iteration == 1
    if trace == "gone":
        assert state.last is not None
        assert (state.last.verdict, state.wait) == ("interrupted", None)
        assert drive(state, ev.Prepared())[0].iteration == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [("verifying", ["RunGates"]), ("keeping", ["Persist", "Keep"]), ("preparing", ["Prepare"])],
)
def test_a_restart_goes_on_at_the_step(name: str, expected: list[str]) -> None:
    assert kinds(drive(SITUATIONS[name](), ev.Boot(), rules=GATED)[1]) == expected


@pytest.mark.parametrize(
    ("name", "trace", "count"),
    [
        ("running", "adopted", 1),
        ("running", "none", 1),
        ("running", "gone", 0),
        ("verifying", "none", 1),
        ("keeping", "none", 1),
        ("preparing", "none", 0),
    ],
)
def test_an_iteration_that_a_start_goes_on_with_is_one_of_its_own(
    name: str, trace: str, count: int
) -> None:
    begun = SITUATIONS[name]()
    state, commands = drive(begun, ev.Boot(ev.Trace(trace)), rules=policy(max_iterations=1))
    assert state.run_iterations == count
    if trace == "none" and count and "Prepare" in kinds(commands):
        state, _ = drive(state, ev.Prepared(), rules=policy(max_iterations=1))
        assert state.run_iterations == count
    ending = dataclasses.replace(begun, ending=Ending(EndingKind.STOP, "enough"))
    assert drive(ending, ev.Boot(ev.Trace(trace)))[0].run_iterations == 0


@pytest.mark.parametrize(
    ("answer", "forgotten"),
    [(claim(), True), (Answer("?", changed=False), True), (Answer(block("", stop=True)), False)],
)
def test_an_end_that_a_person_has_seen_starts_the_counters_again(
    answer: Answer, forgotten: bool
) -> None:
    rules = policy(max_consecutive_errors=1)
    state = dataclasses.replace(running(), goals=("a",) * 5)
    state, _ = drive(state, ended(state, answer), rules=rules)
    assert state.finished
    state, _ = drive(state, ev.Boot(), rules=rules)
    assert (state.goals == ()) is forgotten
    assert state.counters.agent_errors == 0
    assert state.preparing


def test_a_start_after_a_blocked_login_tries_at_once() -> None:
    state = running()
    state, _ = drive(
        state, ended(state, fail(FailureClass.AUTH)), rules=policy(max_consecutive_errors=1)
    )
    state = dataclasses.replace(
        state, limits={"account-one": waits.make(WaitKind.AUTH, 500.0, "log in", AT)}
    )
    assert drive(state, ev.Boot())[0].preparing
