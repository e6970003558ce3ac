"""What the loop does in every situation, and that no event brings it into an illegal one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from codex_self_iter.core import commands as cmd
from codex_self_iter.core import events as ev
from codex_self_iter.core import waits
from codex_self_iter.core.machine import HOLDS, decide
from codex_self_iter.core.model import (
    AgentReport,
    EndCause,
    FailureClass,
    Role,
    RunOutcome,
    State,
    Usage,
)
from codex_self_iter.core.policy import AgentPolicy, BudgetPolicy, Policy, SessionPolicy
from codex_self_iter.core.state import Ending, LoopState, Message, Spent, Step
from tests.support.loop_world import (
    GOAL,
    Answer,
    Script,
    World,
    block,
    claim,
    fail,
    failing,
    invariants,
    lawful,
    passing,
    plan,
    policy,
    review,
    round_trips,
    work,
)

AT = ev.Moment(1_700_000_000.0, 1_000.0, "boot-1", 0.0)


def later(seconds: float) -> ev.Moment:
    return dataclasses.replace(AT, wall=AT.wall + seconds, up=AT.up + seconds)


def drive(
    state: LoopState, *events: ev.Event, rules: Policy | None = None
) -> tuple[LoopState, tuple[cmd.Command, ...]]:
    """Decide events one after the other; the last one's commands."""
    commands: tuple[cmd.Command, ...] = ()
    for event in events:
        before = state
        state, commands = decide(before, event, rules or policy(), AT)
        invariants(state)
        round_trips(state)
        lawful(before, event, commands)
    return state, commands


def kinds(commands: Iterable[cmd.Command]) -> list[str]:
    return [type(command).__name__ for command in commands if not isinstance(command, cmd.Log)]


def ended(state: LoopState, answer: Answer) -> ev.RunEnded:
    assert state.open is not None
    assert state.open.run is not None
    run_id = state.open.run.run_id
    outcome = RunOutcome(run_id, answer.cause, answer.exit_code, None, AT.wall, answer.seconds)
    report = AgentReport(answer.text, True, usage=answer.usage, failure=answer.failure)
    return ev.RunEnded(
        run_id, outcome, report, changed=answer.changed, gate_files=answer.gate_files
    )


# -- situations ------------------------------------------------------------------------------------

GATED = policy(verify_commands=("true",), checkpoints=True)
ROLES = policy(mode="roles", verify_commands=("true",))


def preparing() -> LoopState:
    return drive(LoopState("loop"), ev.Boot())[0]


def running() -> LoopState:
    return drive(preparing(), ev.Prepared())[0]


def verifying() -> LoopState:
    state = running()
    return drive(state, ended(state, claim()), rules=GATED)[0]


def parked() -> LoopState:
    return drive(
        verifying(), ev.Pause("p", now=True), ev.GatesEnded((), aborted=True), rules=GATED
    )[0]


def keeping() -> LoopState:
    return drive(verifying(), ev.GatesEnded(passing()), rules=GATED)[0]


def stopping() -> LoopState:
    return drive(running(), ev.Stop("s"))[0]


def between_roles() -> LoopState:
    state = running_planner()
    return drive(state, ended(state, plan()), rules=ROLES)[0]


def running_planner() -> LoopState:
    return drive(LoopState("loop"), ev.Boot(), ev.Prepared(), rules=ROLES)[0]


def after(answer: Answer, rules: Policy | None = None) -> LoopState:
    state = running()
    return drive(state, ended(state, answer), rules=rules)[0]


def waiting(kind: str) -> LoopState:
    answers = {
        "error": Answer("nothing"),
        "limit": fail(FailureClass.LIMIT),
        "auth": fail(FailureClass.AUTH),
        "no_change": work("x", changed=False),
    }
    if kind in answers:
        return after(answers[kind])
    state = running_planner()
    if kind == "planner_stop":
        return drive(state, ended(state, plan(stop=True)), rules=ROLES)[0]
    rules = policy(mode="roles")
    for answer in (plan(), work("x"), review(False)):
        state, _ = drive(state, ended(state, answer), rules=rules)
        if state.preparing:
            state, _ = drive(state, ev.Prepared(), rules=rules)
    return state


def paused() -> LoopState:
    return drive(LoopState("loop"), ev.Boot(paused=True))[0]


def blocked(name: str) -> LoopState:
    return drive(preparing(), ev.Block(name, f"{name} is not right"), ev.Prepared())[0]


def finished() -> LoopState:
    return after(claim())


SITUATIONS: dict[str, Callable[[], LoopState]] = {
    "new": lambda: LoopState("loop"),
    "preparing": preparing,
    "running": running,
    "running planner": running_planner,
    "between roles": between_roles,
    "verifying": verifying,
    "parked": parked,
    "keeping": keeping,
    "stopping": stopping,
    "pausing": lambda: drive(running(), ev.Pause("p", now=True))[0],
    "steering": lambda: drive(running(), ev.Steer(now=True))[0],
    "stop after iteration": lambda: drive(running(), ev.Stop("s", after_iteration=True))[0],
    **{f"wait: {kind}": (lambda kind=kind: waiting(kind)) for kind in waits.STATES},
    "paused": paused,
    "blocked: plan": lambda: blocked("plan"),
    "blocked: disk": lambda: blocked("disk"),
    "finished": finished,
}


def events_for(state: LoopState) -> dict[str, ev.Event]:
    """Every kind of event, with the variants that matter."""
    wait = waits.make("limit", 60.0, "limited", AT)
    outcome = RunOutcome("other", EndCause.EXIT, 0, None, AT.wall, 1.0)
    found: dict[str, ev.Event] = {
        "boot none": ev.Boot(),
        "boot adopted": ev.Boot("adopted"),
        "boot gone": ev.Boot("gone"),
        "boot paused": ev.Boot(paused=True),
        "tick": ev.Tick(),
        "prepared": ev.Prepared((Message("a.md", "a"),), "head"),
        "foreign run ended": ev.RunEnded("other", outcome, AgentReport("", False)),
        "gates passed": ev.GatesEnded(passing()),
        "gates failed": ev.GatesEnded(failing()),
        "gates aborted": ev.GatesEnded((), aborted=True),
        "kept": ev.Kept("c", "k", "h"),
        "stop": ev.Stop("s"),
        "stop after": ev.Stop("s", after_iteration=True),
        "unstop": ev.Unstop(),
        "pause": ev.Pause("p"),
        "pause now": ev.Pause("p", now=True),
        "resume": ev.Resume(),
        "steer": ev.Steer(),
        "steer now": ev.Steer(now=True),
        "goal": ev.GoalSet("mine", (GOAL,)),
        "edited": ev.Edited("plan", 1, 0),
        "ticked in the run": ev.Edited("plan", 1, 1, ticks_only=True, in_run=True),
        "block plan": ev.Block("plan", "missing"),
        "block disk": ev.Block("disk", "full"),
        "unblock": ev.Unblock("disk"),
        "limit seen": ev.LimitSeen("account-one", wait),
        "policy": ev.PolicyChanged(("x",)),
    }
    if state.open is not None and state.open.run is not None:
        for name, answer in (
            ("works", work("x")),
            ("claims", claim()),
            ("fails", Answer("?")),
            ("plans", plan()),
        ):
            found[f"run {name}"] = ended(state, answer)
        found["never started"] = ev.RunEnded(
            state.open.run.run_id,
            RunOutcome(state.open.run.run_id, EndCause.REQUEST, None, None, AT.wall, 0.0),
            AgentReport("", False),
            changed=False,
        )
    return found


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
        assert kinds(commands) == ["Abort"]
        state, commands = drive(
            state, ended(state, Answer("", EndCause.REQUEST, changed=False)), rules=rules
        )
    elif name == "verifying":
        assert kinds(commands) == ["Abort"]
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
    "hold", [ev.Block("disk", "full"), ev.Pause("p", now=True), ev.Block("plan", "gone")]
)
def test_stop_after_the_iteration_does_not_wait_for_a_hold(hold: ev.Event) -> None:
    state, _ = drive(
        between_roles(), ev.Stop("enough", after_iteration=True), hold, ev.Prepared(), rules=ROLES
    )
    if isinstance(hold, ev.Block) and hold.name == "plan":
        state, _ = drive(state, ev.Tick(), rules=ROLES)
    assert state.state is State.STOPPED


def test_a_stop_taken_back_lets_the_loop_go_on() -> None:
    state, _ = drive(running(), ev.Stop("s", after_iteration=True), ev.Unstop())
    state, _ = drive(state, ended(state, work("x")))
    assert state.preparing


def test_a_stop_that_comes_as_the_gates_end_is_not_lost() -> None:
    state = running_planner()
    state, _ = drive(state, ended(state, plan()), ev.Prepared(), rules=ROLES)
    state, _ = drive(
        state, ended(state, claim()), ev.Stop("enough"), ev.GatesEnded(passing()), rules=ROLES
    )
    assert state.state is State.STOPPED
    assert state.open is not None  # the answer is kept: the reviewer comes next time
    state, commands = drive(state, ev.Boot(), rules=ROLES)
    assert commands == (cmd.Prepare(Role.REVIEWER),)


# -- what holds the loop, in order -----------------------------------------------------------------


def holding(index: int) -> tuple[LoopState, Policy]:
    """A loop between two iterations for which the conditions from `index` on all hold."""
    wait, limit = (
        waits.make("error", 50.0, "an error", AT),
        waits.make("limit", 90.0, "a limit", AT),
    )
    state = LoopState("loop", run_iterations=1, spent=Spent(tokens=10, day=int(AT.wall // 86_400)))
    layers: list[dict[str, Any]] = [
        {"after_iteration": Ending("stop", "after", 0)},
        {"paused": True, "paused_up": AT.up},
        {"blocked_by": {"plan": "no plan", "disk": "full"}},
        {"blocked_by": {"disk": "full"}},
        {"wait": wait},
        {},
        {},
        {"limits": {"account-one": limit}},
    ]
    for layer in reversed(layers[index:]):
        state = dataclasses.replace(state, **layer)
    rules = policy(
        budget=BudgetPolicy(max_tokens=10 if index <= 5 else 0),
        max_iterations=1 if index <= 6 else 0,
    )
    return state, rules


EXPECTED = [
    (State.STOPPED, 0), (State.PAUSED, None), (State.COOLDOWN, None), (State.BLOCKED, None),
    (State.BACKOFF, None), (State.BLOCKED, 4), (State.STOPPED, 0), (State.LIMITED, None),
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
    assert commands == (cmd.Prepare(Role.EXECUTOR),)
    state, commands = drive(state, ev.Prepared((Message("a.md", "a"),), "head"))
    assert kinds(commands) == ["Persist", "TakeMessages", "StartRun"]
    assert state.state is State.RUNNING


# -- whole stories ---------------------------------------------------------------------------------


def play(
    script: Script, rules: Policy, at: dict[tuple[str, int], Callable[[World], None]] | None = None
) -> World:
    world = World(script, rules, at=at)
    world.boot()
    world.run()
    return world


def end(world: World) -> tuple[str, int]:
    assert world.exit is not None
    return world.exit.state.value, world.exit.code


def test_an_honest_agent_completes() -> None:
    world = play(Script([work("b"), claim()]), policy(verify_commands=("true",)))
    assert end(world) == ("completed", 0)
    assert world.verdicts == ["continue", "completed"]
    assert [line["next_goal"] for line in world.disk.journal] == ["b", "b"]


def test_the_promise_word_is_a_claim() -> None:
    text = block("more", summary="PLAN_COMPLETE, all is done")
    assert end(play(Script([Answer(text)]), policy())) == ("completed", 0)
    world = play(Script([Answer(text)]), policy(completion_promise="", max_iterations=2))
    assert end(world) == ("stopped", 0)


def test_a_word_dropper_is_not_believed() -> None:
    text = block(
        "PLAN_COMPLETE", reason="I shall write PLAN_COMPLETE later", evidence=["PLAN_COMPLETE"]
    )
    world = play(Script([Answer("not yet PLAN_COMPLETE\n" + text)]), policy(max_iterations=2))
    assert world.verdicts == ["continue", "continue"]


@pytest.mark.parametrize("bound", [2, 3, 6])
def test_a_liar_stagnates_and_is_shown_what_failed(bound: int) -> None:
    world = play(
        Script([claim()], gates=[failing("2 failed in 0.31s")]),
        policy(verify_commands=("true",), max_stagnation=bound),
    )
    assert end(world) == ("stagnated", 3)
    assert len(world.disk.journal) == max(3, bound)
    assert set(world.verdicts) == {"claim_rejected"}
    assert "2 failed in 0.31s" in world.state.feedback
    assert "same failure for the" in world.state.feedback


def test_identical_failures_are_recognised_although_their_times_differ() -> None:
    gates = [failing(f"1 failed in {n}.{n} s") for n in range(9)]
    world = play(
        Script([work(f"goal {n}") for n in range(9)], gates=gates),
        policy(verify_commands=("true",), verify_every_iteration=True, max_stagnation=4),
    )
    assert end(world) == ("stagnated", 3)
    assert len(world.disk.journal) == 4
    assert "the same gate failure" in world.state.reason


def test_an_idler_stagnates_in_exactly_so_many_iterations() -> None:
    for bound in (2, 3, 6):
        script = Script([work(f"goal {n}", changed=False) for n in range(20)])
        world = play(script, policy(max_stagnation=bound, no_change_gate=0))
        assert end(world) == ("stagnated", 3)
        assert len(world.disk.journal) == bound
        assert [line["warned"] for line in world.disk.journal] == [False] * (bound - 1) + [True]


def test_the_same_goal_stagnates_although_content_changes() -> None:
    for bound in (3, 6):
        world = play(
            Script([work("Fix  the tests!"), work("fix the TESTS")] * 9),
            policy(max_stagnation=bound),
        )
        assert end(world) == ("stagnated", 3)
        assert len(world.disk.journal) == bound
        assert world.disk.journal[-1]["warned"]
        assert not any(line["warned"] for line in world.disk.journal[:-1])


def test_ping_pong_stagnates_and_progress_does_not() -> None:
    world = play(Script([work("a"), work("b")] * 9), policy(max_stagnation=6))
    assert (end(world), len(world.disk.journal)) == (("stagnated", 3), 6)
    assert "2 goals in turn" in world.state.reason
    world = play(
        Script([work(f"goal {n}") for n in range(40)]), policy(max_stagnation=1, max_iterations=30)
    )
    assert end(world) == ("stopped", 0)
    assert not any(line["warned"] for line in world.disk.journal)


def test_a_warned_loop_that_finds_another_way_goes_on() -> None:
    answers = [work("same")] * 3 + [work(f"new {n}") for n in range(9)]
    world = play(Script(answers), policy(max_stagnation=4, max_iterations=9))
    assert end(world) == ("stopped", 0)
    assert [line["warned"] for line in world.disk.journal].count(True) == 1


def test_stagnation_can_be_switched_off() -> None:
    world = play(Script([work("same", changed=False)]), policy(max_stagnation=0, max_iterations=30))
    assert end(world) == ("stopped", 0)


def test_an_edit_gives_a_stagnating_loop_a_new_start() -> None:
    def edit(world: World) -> None:
        world.handle(ev.Edited("plan", 5, 2))

    world = play(Script([work("same")]), policy(max_stagnation=4), {("executor", 3): edit})
    assert (end(world), len(world.disk.journal)) == (("stagnated", 3), 6)
    assert [event["kind"] for line in world.disk.journal for event in line["events"]] == [
        "plan.changed"
    ]


@pytest.mark.parametrize("confirmations", [0, 1, 3])
def test_so_many_iterations_must_agree(confirmations: int) -> None:
    world = play(Script([claim()]), policy(confirmations=confirmations, verify_commands=("true",)))
    assert world.verdicts == ["awaiting_confirmation"] * confirmations + ["completed"]


def test_one_disagreement_starts_the_confirmations_again() -> None:
    script = Script([claim(), work("more"), claim(), claim()])
    world = play(script, policy(confirmations=1))
    assert world.verdicts == [
        "awaiting_confirmation",
        "continue",
        "awaiting_confirmation",
        "completed",
    ]


def test_an_agent_that_edits_the_gates_proves_nothing() -> None:
    def meddler(world: World) -> None:
        return

    clean, edited = {"test.py": "1"}, {"test.py": "2"}
    rules = policy(verify_commands=("true",), max_iterations=3)
    world = World(Script([Answer(claim().text, gate_files=edited)]), rules)
    world._prepared = lambda: ev.Prepared((), "h", clean if not world.log else edited)  # type: ignore[method-assign]
    world.boot()
    world.run()
    assert set(world.verdicts) == {"claim_rejected"}
    assert "gate files were changed by the agent: test.py" in world.disk.journal[-1]["gate_flaw"]


@pytest.mark.parametrize("between", ["never started", "killed", "crashed"])
def test_a_run_that_nobody_looked_after_does_not_launder_the_gates(between: str) -> None:
    rules = policy(verify_commands=("true",))
    clean, edited = {"test.py": "1"}, {"test.py": "2"}
    state, _ = drive(preparing(), ev.Prepared(gate_files=clean), rules=rules)
    state, _ = drive(
        state, ended(state, Answer(block("x"), gate_files=edited)), ev.Prepared(gate_files=edited)
    )
    assert state.open is not None
    assert state.open.run is not None
    if between == "crashed":
        state, _ = drive(state, ev.Boot("gone"), rules=rules)
    else:
        run_id = state.open.run.run_id
        seen = None if between == "never started" else edited
        outcome = RunOutcome(run_id, EndCause.REQUEST, None, None, AT.wall, 0.0)
        event = ev.RunEnded(run_id, outcome, AgentReport("", False), changed=False, gate_files=seen)
        state, _ = drive(state, event, rules=rules)
    state, _ = drive(state, ev.Prepared(gate_files=edited), rules=rules)
    state, _ = drive(state, ended(state, Answer(claim().text, gate_files=edited)), rules=rules)
    assert state.open is not None
    assert "test.py" in state.open.gate_flaw


def test_a_person_may_change_the_gates_between_two_runs() -> None:
    rules = policy(verify_commands=("true",))
    clean, mine = {"test.py": "1"}, {"test.py": "2", "new.py": "1"}
    state, _ = drive(preparing(), ev.Prepared(gate_files=clean), rules=rules)
    state, _ = drive(
        state, ended(state, Answer(block("x"), gate_files=clean)), ev.Prepared(gate_files=mine)
    )
    state, _ = drive(state, ended(state, Answer(claim().text, gate_files=mine)), rules=rules)
    assert state.open is not None
    assert state.open.gate_flaw == ""


def test_open_plan_items_void_a_claim_when_asked_for() -> None:
    answer = Answer(claim().text, plan_open=2)
    assert end(play(Script([answer]), policy())) == ("completed", 0)
    world = play(Script([answer, claim()]), policy(require_plan_done=True))
    assert world.verdicts == ["claim_rejected", "completed"]


@pytest.mark.parametrize(
    ("gates", "expected"), [(passing(), ("stopped", 0)), (failing(), ("blocked", 4))]
)
def test_stop_ends_the_loop_and_unmet_gates_need_a_person(
    gates: Any, expected: tuple[str, int]
) -> None:
    script = Script([Answer(block("", stop=True, reason="a person must choose"))], gates=[gates])
    world = play(script, policy(verify_commands=("true",)))
    assert end(world) == expected
    assert world.exit is not None
    assert "a person must choose" in world.exit.reason


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "wait", "agent_errors", "auth_errors", "told", "carried"),
    [
        (FailureClass.AGENT, "error", 1, 0, True, False),
        (FailureClass.LIMIT, "limit", 0, 0, False, True),
        (FailureClass.OVERLOAD, "error", 0, 0, False, True),
        (FailureClass.NETWORK, "error", 0, 0, False, True),
        (FailureClass.AUTH, "auth", 0, 1, False, True),
        (FailureClass.CONFIG, "auth", 0, 1, False, True),
        (FailureClass.SANDBOX, "auth", 0, 1, True, False),
        (FailureClass.CONTEXT, None, 0, 0, False, True),
        (FailureClass.MEMORY, "error", 0, 0, True, False),
        (FailureClass.KILLED, "error", 0, 0, False, False),
    ],
)
def test_each_failure_class_has_its_policy(
    kind: FailureClass,
    wait: str | None,
    agent_errors: int,
    auth_errors: int,
    told: bool,
    carried: bool,
) -> None:
    state, _ = drive(preparing(), ev.Prepared((Message("a.md", "a"),)))
    state, commands = drive(state, ended(state, fail(kind, "the reason")))
    assert (state.wait.kind if state.wait else None) == wait
    assert state.counters.agent_errors == agent_errors
    assert state.counters.auth_errors == auth_errors
    assert ("the reason" in state.feedback) is told
    assert bool(state.carried) is carried
    assert kinds(commands)[0] == "Journal"
    assert state.preparing is (wait is None)
    assert ("Notify" in kinds(commands)) is (wait == "auth")
    if wait is not None:
        assert state.state is waits.STATES[wait]


@pytest.mark.parametrize(
    ("cause", "verdict"),
    [(EndCause.WALL_TIMEOUT, "timed_out"), (EndCause.IDLE_TIMEOUT, "timed_out"),
     (EndCause.MEMORY, "error"),
     (EndCause.SPAWN_FAILED, "error"), (EndCause.LOST, "interrupted"),
     (EndCause.REQUEST, "aborted")],
)  # fmt: skip
def test_what_the_host_saw_counts_more_than_the_answer(cause: EndCause, verdict: str) -> None:
    world = play(Script([Answer(claim().text, cause), claim()]), policy())
    assert world.verdicts == [verdict, "completed"]


def test_messages_of_a_run_that_never_started_go_into_the_next_prompt() -> None:
    state, _ = drive(preparing(), ev.Prepared((Message("a.md", "a"),)))
    never = events_for(state)["never started"]
    state, _ = drive(state, ev.Steer(now=True), never, ev.Prepared((Message("b.md", "b"),)))
    assert state.open is not None
    assert [message.name for message in state.open.messages] == ["a.md", "b.md"]


def test_messages_that_an_agent_worked_with_are_not_repeated() -> None:
    state, _ = drive(preparing(), ev.Prepared((Message("a.md", "a"),)))
    state, _ = drive(
        state, ev.Steer(now=True), ended(state, Answer("", EndCause.REQUEST)), ev.Prepared()
    )
    assert state.open is not None
    assert state.open.messages == ()


def test_too_many_agent_errors_need_a_person() -> None:
    world = play(Script([Answer("no block")]), policy(max_consecutive_errors=4))
    assert (end(world), len(world.disk.journal)) == (("blocked", 4), 4)
    assert world.slept == [pytest.approx(length, rel=0.11) for length in (5.0, 10.0, 20.0)]


def test_other_classes_never_use_up_the_errors() -> None:
    kinds = [
        FailureClass.NETWORK,
        FailureClass.OVERLOAD,
        FailureClass.LIMIT,
        FailureClass.MEMORY,
        FailureClass.KILLED,
    ]
    world = play(
        Script([fail(kind) for kind in kinds] * 4 + [claim()]), policy(max_consecutive_errors=2)
    )
    assert end(world) == ("completed", 0)
    assert max(world.slept) <= 900 * 1.1


def test_faults_of_login_have_a_bound_of_their_own() -> None:
    world = play(
        Script([fail(FailureClass.AUTH, "log in first")]), policy(max_consecutive_errors=3)
    )
    assert (end(world), len(world.disk.journal)) == (("blocked", 4), 3)
    assert "log in first" in world.state.reason
    assert "blocked" in world.notified


def test_a_success_starts_the_backoff_again() -> None:
    world = play(Script([Answer("?"), Answer("?"), work("x"), Answer("?"), claim()]), policy())
    assert world.slept == [pytest.approx(length, rel=0.11) for length in (5.0, 10.0, 5.0)]


def test_an_agent_that_others_kill_is_not_started_again_at_once() -> None:
    world = play(Script([fail(FailureClass.KILLED, "signal 9")] * 4 + [claim()]), policy())
    assert world.slept == [pytest.approx(length, rel=0.11) for length in (5.0, 10.0, 20.0, 40.0)]


def test_a_limit_is_waited_for_and_shared() -> None:
    reset = 1_700_003_600.0
    world = play(Script([fail(FailureClass.LIMIT, "limit", reset), claim()]), policy())
    assert world.slept == [pytest.approx(3_560, abs=60)]
    assert [share.account for share in world.shared] == ["account-one"]
    assert reset < world.disk.journal[1]["after"]["last"]["ended_at"]


def test_a_reset_that_has_passed_is_not_believed_again_and_again() -> None:
    world = play(Script([fail(FailureClass.LIMIT, "limit", 1_000.0)] * 4 + [claim()]), policy())
    assert world.slept == [pytest.approx(length, rel=0.11) for length in (5.0, 10.0, 20.0, 40.0)]


def test_the_second_agent_takes_over_and_the_first_is_taken_back() -> None:
    script = Script(
        [
            fail(FailureClass.LIMIT, "limit", 1_700_000_200.0),
            *(work(f"g{n}") for n in range(6)),
            claim(),
        ]
    )
    world = play(script, policy("one", "two"))
    assert [line["agent"] for line in world.disk.journal] == [
        "one",
        "two",
        "two",
        "two",
        *["one"] * 4,
    ]
    assert world.slept == []


def test_the_loop_waits_for_the_first_account_when_all_are_limited() -> None:
    script = Script(
        [
            fail(FailureClass.LIMIT, "a", 1_700_009_000.0),
            fail(FailureClass.LIMIT, "b", 1_700_005_000.0),
            claim(),
        ]
    )
    world = play(script, policy("one", "two"))
    assert [line["agent"] for line in world.disk.journal] == ["one", "two", "two"]
    assert world.slept == [pytest.approx(5_000, abs=200)]


def test_an_agent_that_cannot_log_in_is_replaced_until_a_person_acts() -> None:
    state, _ = drive(preparing(), ev.Prepared(), rules=policy("one", "two"))
    state, _ = drive(
        state, ended(state, fail(FailureClass.AUTH)), ev.Prepared(), rules=policy("one", "two")
    )
    assert state.open is not None
    assert state.open.run is not None
    assert state.open.run.agent == "two"
    state, _ = drive(
        state,
        ev.PolicyChanged(),
        ended(state, work("x")),
        ev.Prepared(),
        rules=policy("one", "two"),
    )
    assert state.open is not None
    assert state.open.run is not None
    assert state.open.run.agent == "one"


def test_a_reload_or_steer_now_forgets_logins_but_no_limits() -> None:
    limit = waits.make("limit", 500.0, "limit", AT)
    for event in (ev.PolicyChanged(), ev.Steer(now=True)):
        state = dataclasses.replace(
            waiting("auth"), limits={**waiting("auth").limits, "account-two": limit}
        )
        state, _ = drive(state, event)
        assert state.preparing
        assert state.limits == {"account-two": limit}
        state, _ = drive(waiting("limit"), event)
        assert state.state is State.LIMITED


def test_no_run_is_started_into_a_limit_that_another_loop_found() -> None:
    wait = waits.make("limit", 500.0, "limit of another loop", AT)
    state, commands = drive(preparing(), ev.LimitSeen("account-one", wait), ev.Prepared())
    assert state.state is State.LIMITED
    assert "StartRun" not in kinds(commands)
    state, _ = drive(running(), ev.LimitSeen("account-one", wait))
    state, _ = drive(state, ended(state, work("x")))
    assert (state.state, state.wait) == (State.LIMITED, wait)
    state, _ = decide(state, ev.Tick(), policy(), later(501.0))
    assert state.preparing


def test_a_context_that_is_too_long_gets_a_fresh_session_at_once() -> None:
    agents = (AgentPolicy("one", "a", SessionPolicy(resume=True)),)
    rules = dataclasses.replace(policy(), agents=dict.fromkeys(Role, agents))
    state, _ = drive(preparing(), ev.Prepared(), rules=rules)
    report = AgentReport(block("x"), True, session_id="thread-1")
    assert state.open is not None
    assert state.open.run is not None
    event = ended(state, work("x"))
    state, _ = drive(state, dataclasses.replace(event, report=report), ev.Prepared(), rules=rules)
    assert state.open is not None
    assert state.open.run is not None
    assert state.open.run.session_id == "thread-1"
    state, _ = drive(state, ended(state, fail(FailureClass.CONTEXT)), ev.Prepared(), rules=rules)
    assert state.open is not None
    assert state.open.run is not None
    assert state.open.run.session_id == ""


@pytest.mark.parametrize(
    ("field", "value"), [("max_turns", 1), ("max_tokens", 5), ("max_sec", 10.0)]
)
def test_a_thread_is_resumed_only_within_its_bounds(field: str, value: float) -> None:
    for bounds, resumed in (
        (SessionPolicy(True), "thread-1"),
        (SessionPolicy(True, **{field: value}), ""),
    ):  # type: ignore[arg-type]
        agents = (AgentPolicy("one", "a", bounds),)
        rules = dataclasses.replace(policy(), agents=dict.fromkeys(Role, agents))
        state = running()
        report = AgentReport(block("x"), True, Usage(4, 0, 4), session_id="thread-1")
        event = dataclasses.replace(ended(state, work("x")), report=report)
        state, _ = decide(state, event, rules, later(60))
        state, _ = decide(state, ev.Prepared(), rules, later(60))
        assert state.open is not None
        assert state.open.run is not None
        assert state.open.run.session_id == resumed


# -- budget and bounds -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "runs"),
    [
        (BudgetPolicy(max_tokens=250), 3),
        (BudgetPolicy(max_cost_usd=1.0), 2),
        (BudgetPolicy(max_hours=1.5), 2),
        (BudgetPolicy(max_tokens_per_day=100), 1),
    ],
)
def test_a_spent_budget_ends_the_loop(budget: BudgetPolicy, runs: int) -> None:
    spender = [work(f"g{n}", usage=Usage(60, 0, 40, 0.5), seconds=3_600.0) for n in range(9)]
    world = play(Script(spender), policy(budget=budget))
    assert (end(world), len(world.disk.journal)) == (("blocked", 4), runs)
    assert world.notified[-1] == "blocked"
    assert ("budget" in world.notified) is True


@pytest.mark.parametrize("bound", [1, 3])
def test_the_iteration_limit_counts_this_run(bound: int) -> None:
    world = play(Script([work(f"g{n}") for n in range(9)]), policy(max_iterations=bound))
    assert (end(world), len(world.disk.journal)) == (("stopped", 0), bound)
    world.exit = None
    world.boot()
    world.run()
    assert len(world.disk.journal) == 2 * bound


# -- waits and pauses ------------------------------------------------------------------------------


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
        (ev.Unblock("disk"), set()),
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
    state, _ = decide(state, ended(state, Answer("?")), policy(), later(7_200.0))
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
    assert kinds(commands) == ["Abort"]
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


# -- steering --------------------------------------------------------------------------------------


def test_steer_now_ends_the_run_and_the_next_has_the_message() -> None:
    def now(world: World) -> None:
        world.say("x.now.md", now=True)

    world = play(Script([work("b"), claim()]), policy(), {("executor", 1): now})
    assert world.verdicts[0] == "aborted"
    assert [m["name"] for m in world.disk.journal[1]["messages"]] == ["x.now.md"]
    assert world.disk.inbox == {}


def test_messages_come_once_in_order_and_stand_in_the_journal() -> None:
    def two(world: World) -> None:
        world.say("b.md", "second")
        world.say("a.md", "first")

    world = play(Script([work("b"), work("c"), claim()]), policy(), {("executor", 1): two})
    assert [[m["text"] for m in line["messages"]] for line in world.disk.journal] == [
        [],
        ["first", "second"],
        [],
    ]
    assert {name: len(runs) for name, runs in world.agents.readers.items()} == {
        "a.md": 1,
        "b.md": 1,
    }


def test_a_goal_of_a_person_wins_over_the_agents() -> None:
    world = play(
        Script([work("b"), claim()]),
        policy(),
        {("executor", 1): lambda world: world.set_goal("mine")},
    )
    assert [line["goal_in"] for line in world.disk.journal] == ["", "mine"]
    assert world.disk.inbox == {}
    state, commands = drive(waiting("no_change"), ev.GoalSet("mine", (GOAL,)))
    assert kinds(commands) == ["Persist", "TakeMessages", "Prepare"]
    again, _ = drive(state, ev.GoalSet("mine", (GOAL,)))
    assert (again.goal, len(again.events)) == ("mine", 1)


def test_edits_between_two_roles_reach_the_journal() -> None:
    def edit(world: World) -> None:
        world.handle(ev.Edited("task", 2, 1))

    world = play(
        Script([claim()], reviewer=[review(False)]), policy(mode="roles"), {("planner", 1): edit}
    )
    assert [event["kind"] for event in world.disk.journal[0]["events"]] == ["task.changed"]


def test_ticks_of_the_agent_are_no_edit() -> None:
    state = dataclasses.replace(running(), goals=("a", "a"))
    assert drive(state, ev.Edited("plan", 1, 1, ticks_only=True, in_run=True))[0] == state
    assert drive(state, ev.Edited("plan", 1, 1, ticks_only=True))[0].goals == ()


# -- roles -----------------------------------------------------------------------------------------


def test_an_iteration_of_roles_has_three_runs() -> None:
    rules = policy(mode="roles", verify_commands=("true",))
    world = play(
        Script([work("b"), claim()], reviewer=[review(True, "focus"), review(False)]), rules
    )
    assert end(world) == ("completed", 0)
    assert [run["role"] for run in world.disk.journal[0]["runs"]] == [
        "planner",
        "executor",
        "reviewer",
    ]
    assert world.disk.journal[0]["next_goal"] == "focus"
    assert world.log == [
        f"loop-00000{n}-{role}" for n in (1, 2) for role in ("planner", "executor", "reviewer")
    ]


def test_the_reviewer_must_agree_to_a_completion() -> None:
    world = play(
        Script([claim()], reviewer=[review(True, "the edge cases"), review(False)]),
        policy(mode="roles"),
    )
    assert world.verdicts == ["claim_rejected", "completed"]
    assert world.disk.journal[1]["goal_in"] == "the edge cases"


def test_the_planner_and_the_reviewer_can_start_cooldowns() -> None:
    script = Script(
        [work("x"), claim()], planner=[plan(stop=True), plan()], reviewer=[review(False)]
    )
    world = play(script, policy(mode="roles"))
    assert world.verdicts == ["planner_stop", "continue_false", "completed"]
    assert world.slept == [pytest.approx(600, rel=0.11), pytest.approx(300, rel=0.11)]


def test_the_same_focus_again_and_again_stagnates() -> None:
    answers = [work(f"g{n}") for n in range(9)]
    world = play(
        Script(answers, reviewer=[review(True, "The Tests")]),
        policy(mode="roles", max_stagnation=3),
    )
    assert (end(world), len(world.disk.journal)) == (("stagnated", 3), 3)


@pytest.mark.parametrize("role", ["planner", "reviewer"])
@pytest.mark.parametrize(
    "text", ["prose", '{"objective": "o", "continue": "perhaps", "stop": "perhaps"}', "{}"]
)
def test_a_role_that_does_not_answer_is_an_error(role: str, text: str) -> None:
    script = Script([claim()], reviewer=[review(False)])
    setattr(script, role, [Answer(text), *getattr(script, role)])
    world = play(script, policy(mode="roles"))
    assert world.verdicts == ["error", "completed"]
    assert world.disk.journal[0]["error"]


def test_a_crash_between_roles_goes_on_at_the_role() -> None:
    for trace in ("none", "gone"):
        state, commands = drive(between_roles(), ev.Boot(trace), rules=ROLES)
        assert commands == (cmd.Prepare(Role.EXECUTOR),)
        assert state.iteration == 1


# -- restarts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trace", "expected"),
    [("none", ["Prepare"]), ("adopted", ["TakeMessages"]), ("gone", ["Journal", "Prepare"])],
)
def test_a_restart_finds_the_open_run(trace: str, expected: list[str]) -> None:
    state, commands = drive(running(), ev.Boot(trace))
    assert kinds(commands) == expected
    if trace == "none":
        state, commands = drive(state, ev.Prepared())
        assert state.iteration == 1
    if trace == "gone":
        assert state.last is not None
        assert (state.last["verdict"], state.wait) == ("interrupted", None)
        assert drive(state, ev.Prepared())[0].iteration == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [("verifying", ["RunGates"]), ("keeping", ["Persist", "Keep"]), ("preparing", ["Prepare"])],
)
def test_a_restart_goes_on_at_the_step(name: str, expected: list[str]) -> None:
    assert kinds(drive(SITUATIONS[name](), ev.Boot(), rules=GATED)[1]) == expected


@pytest.mark.parametrize(
    ("answer", "forgotten"),
    [(claim(), True), (Answer("?"), True), (Answer(block("", stop=True)), False)],
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
        state, limits={"account-one": waits.make("auth", 500.0, "log in", AT)}
    )
    assert drive(state, ev.Boot())[0].preparing


def test_negative_control_the_checker_sees_an_illegal_state() -> None:
    for bad in (
        dataclasses.replace(running(), preparing=True),
        dataclasses.replace(finished(), ending=Ending("stop", "s")),
        dataclasses.replace(running(), state=State.COMPLETED),
        dataclasses.replace(preparing(), preparing=False, ending=Ending("stop", "s")),
    ):
        with pytest.raises(AssertionError):
            invariants(bad)
    _, commands = decide(preparing(), ev.Prepared(), policy(), AT)
    with pytest.raises(AssertionError):
        lawful(preparing(), ev.Prepared(), tuple(reversed(commands)))
