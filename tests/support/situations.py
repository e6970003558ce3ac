"""Loops in every situation, the events that can meet them, and whole stories told to a world."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from codex_self_iter.core import commands as cmd
from codex_self_iter.core import events as ev
from codex_self_iter.core import waits
from codex_self_iter.core.agent_report import AgentReport, FailureClass
from codex_self_iter.core.machine import decide
from codex_self_iter.core.policy import Policy
from codex_self_iter.core.runs import EndCause, RunOutcome
from codex_self_iter.core.state import (
    LoopState,
    Message,
    WaitKind,
)
from codex_self_iter.core.terms import Moment
from tests.support.loop_world import (
    GOAL,
    Answer,
    Script,
    World,
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

AT = Moment(1_700_000_000.0, 1_000.0, "boot-1", 0.0)


def later(seconds: float) -> Moment:
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
    report = AgentReport(answer.text, usage=answer.usage, failure=answer.failure)
    return ev.RunEnded(
        run_id, outcome, report, changed=answer.changed, gate_files=answer.gate_files
    )


# -- situations --------------------------------------------------------------------------------------

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
        "error": Answer("nothing", changed=False),
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
    return drive(preparing(), ev.Block(ev.Hold(name), f"{name} is not right"), ev.Prepared())[0]


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
    wait = waits.make(WaitKind.LIMIT, 60.0, "limited", AT)
    outcome = RunOutcome("other", EndCause.EXIT, 0, None, AT.wall, 1.0)
    found: dict[str, ev.Event] = {
        "boot none": ev.Boot(),
        "boot adopted": ev.Boot(ev.Trace.ADOPTED),
        "boot gone": ev.Boot(ev.Trace.GONE),
        "boot paused": ev.Boot(paused=True),
        "tick": ev.Tick(),
        "prepared": ev.Prepared((Message("a.md", "a"),), "head"),
        "gate files": ev.GateFiles({"test.py": "1"}),
        "gate files taken": ev.GateFilesTaken({"test.py": "2"}),
        "foreign run ended": ev.RunEnded("other", outcome, AgentReport("")),
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
        "steer refused": ev.Steer(now=True, names=("a.md",), refused=True),
        "another run steered": ev.Steered("other", (Message("a.md", "a"),)),
        "goal": ev.GoalSet("mine", (GOAL,)),
        "edited": ev.Edited("plan", 1, 0),
        "ticked in the run": ev.Edited("plan", 1, 1, ticks_only=True, in_run=True),
        "block plan": ev.Block(ev.Hold.PLAN, "missing"),
        "block disk": ev.Block(ev.Hold.DISK, "full"),
        "unblock": ev.Unblock(ev.Hold.DISK),
        "limit seen": ev.LimitSeen("account-one", wait),
        "policy": ev.PolicyChanged(),
    }
    if state.open is not None and state.open.run is not None:
        for name, answer in (
            ("works", work("x")),
            ("claims", claim()),
            ("fails", Answer("?", changed=False)),
            ("plans", plan()),
        ):
            found[f"run {name}"] = ended(state, answer)
        found["never started"] = ev.RunEnded(
            state.open.run.run_id,
            RunOutcome(state.open.run.run_id, EndCause.REQUEST, None, None, AT.wall, 0.0),
            AgentReport(""),
            changed=False,
        )
    return found


# -- whole stories -----------------------------------------------------------------------------------


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
