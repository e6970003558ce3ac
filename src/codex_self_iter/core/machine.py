"""The state machine of one loop: `decide(state, event, policy, at) -> (state, commands)`.

Theory of operation
-------------------
A loop is between iterations (`open is None`) or inside one. An iteration goes through steps:

    RUN      one agent run for each role (goal mode: executor; roles mode: planner, executor,
             reviewer)
    VERIFY   the gates, when there is something to verify
    KEEP     commit and checkpoint
    (end)    the verdict: one journal line, then the next thing

Between two runs the loop asks `_proceed` what comes next. It looks at the conditions in a fixed
order (HOLDS below); the first that holds decides what the loop waits for or how it ends. Only when
none holds are the inputs read (`Prepare`), and because reading takes time the conditions are looked
at again before the run starts.

An end by request (STOP, pause --now, steer --now) first sets `ending`, then ends the run; what
happens next is decided when the run has really ended. Whatever the run said in the meantime is not
believed.

Durability: the intent (`open.run`) is persisted before `StartRun`; a verdict is journalled before
anything that depends on it. Every prefix of a command list leaves a state from which `recovery`
goes on.

`judge` says what a run that has ended means, `verdict` what the whole iteration amounts to; this
file only moves between the rooms."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any

from codex_self_iter.core import account, budget, judge, recovery, verdict, waits
from codex_self_iter.core.commands import (
    Abort,
    Command,
    Exit,
    Keep,
    Log,
    Notify,
    Persist,
    Prepare,
    RunGates,
    StartRun,
    TakeMessages,
)
from codex_self_iter.core.events import (
    Block,
    Boot,
    Edited,
    Event,
    GatesEnded,
    GoalSet,
    Hold,
    Kept,
    LimitSeen,
    Pause,
    PolicyChanged,
    Prepared,
    Resume,
    RunEnded,
    Steer,
    Stop,
    Tick,
    Trace,
    Unblock,
    Unstop,
)
from codex_self_iter.core.policy import AgentPolicy, Policy
from codex_self_iter.core.record import journal_record
from codex_self_iter.core.state import (
    EditNote,
    Ending,
    EndingKind,
    GoalNote,
    Iteration,
    LoopState,
    Note,
    OpenRun,
    Step,
    Wait,
    WaitKind,
)
from codex_self_iter.core.terms import Mode, Moment, Role, State, Verdict

Decision = tuple[LoopState, tuple[Command, ...]]

EVENTS = 50
"""Edits and the like remembered for the next journal line; the newest are kept."""

HOLDS: tuple[tuple[str, str], ...] = (
    ("stop after the iteration", "stopped"),
    ("pause", "paused"),
    ("plan missing, empty or unreadable", "cooldown"),
    ("disk or state directory cannot be written", "blocked"),
    ("a wait is not over", "backoff, cooldown, limited or blocked, by its kind"),
    ("budget spent", "blocked"),
    ("iteration limit reached", "stopped"),
    ("every agent's account is limited", "limited"),
)
"""What can hold a loop between two runs, in the order in which it is looked at, and where to."""


class Phase(enum.Enum):
    """What is on."""

    IDLE = enum.auto()
    """Nothing that will report its own end."""
    PREPARING = enum.auto()
    """The inputs of the next run are being read."""
    RUN = enum.auto()
    VERIFY = enum.auto()
    PARKED = enum.auto()
    """The gates were ended by a pause and wait for its end."""
    KEEP = enum.auto()


EXPECTS: Mapping[type, Phase] = {
    Prepared: Phase.PREPARING,
    RunEnded: Phase.RUN,
    GatesEnded: Phase.VERIFY,
    Kept: Phase.KEEP,
}
"""What must be on for a report to count."""

ABORTABLE = (Phase.RUN, Phase.VERIFY)
"""What can be ended on request. Reading inputs and keeping are short and end by themselves."""


def decide(state: LoopState, event: Event, policy: Policy, at: Moment) -> Decision:
    """Return the next state and what to do, in order. Events of a loop that has ended, and reports
    of what is not on, change nothing."""
    if state.finished and not isinstance(event, Boot):
        return state, ()
    if EXPECTS.get(type(event), phase(state)) is not phase(state):
        return state, _unknown(event) if isinstance(event, RunEnded) else ()
    if isinstance(event, Prepared | RunEnded | GatesEnded | Kept) and event.owed is not None:
        state = dataclasses.replace(state, owed=event.owed)
    handler: Callable[[LoopState, Any, Policy, Moment], Decision] = _HANDLERS[type(event)]
    return handler(state, event, policy, at)


def phase(state: LoopState) -> Phase:
    """Say what is on."""
    opened = state.open
    if state.preparing:
        return Phase.PREPARING
    if opened is None:
        return Phase.IDLE
    if opened.step is Step.KEEP:
        return Phase.KEEP
    if opened.step is Step.VERIFY:
        return Phase.PARKED if state.state is State.PAUSED else Phase.VERIFY
    return Phase.IDLE if opened.run is None else Phase.RUN


# -- small tools -----------------------------------------------------------------------------------


def enter(state: LoopState, kind: State, reason: str, at: Moment) -> LoopState:
    """Move to another state of `status.json`; `since` moves only when the state does."""
    since = state.since if state.state is kind and state.since else at.wall
    return dataclasses.replace(state, state=kind, since=since, reason=reason)


def finish(state: LoopState, kind: State, code: int, reason: str, at: Moment) -> Decision:
    """End the loop. What is not committed by then is said with the reason."""
    reason = "; ".join(filter(None, (reason, state.owed.told())))
    state = dataclasses.replace(
        enter(state, kind, reason, at), exit_code=code, preparing=False, ending=None
    )
    return state, (Persist(), Notify(kind.value, reason), Exit(code, kind, reason))


def next_role(opened: Iteration | None, policy: Policy) -> Role:
    """The role whose run comes next, in an open iteration or at the beginning of one."""
    if policy.mode is Mode.GOAL:
        return Role.EXECUTOR
    if opened is None or opened.planner is None:
        return Role.PLANNER
    return Role.EXECUTOR if opened.block is None else Role.REVIEWER


def _opened(state: LoopState) -> Iteration:
    """The open iteration, where the phase says that there is one."""
    assert state.open is not None
    return state.open


def _within(state: LoopState, opened: Iteration, **changes: Any) -> LoopState:
    """The state with a changed open iteration."""
    return dataclasses.replace(state, open=dataclasses.replace(opened, **changes))


def _noted(state: LoopState, note: Note) -> LoopState:
    return dataclasses.replace(state, events=(*state.events, note)[-EVENTS:])


def _chosen(state: LoopState, role: Role, policy: Policy, at: Moment) -> AgentPolicy | Wait:
    """The first agent whose account may be used now, or the wait for the first to be free."""
    waiting: list[Wait] = []
    for agent in policy.agents[role]:
        wait = state.limits.get(agent.account)
        if wait is None or waits.rest(wait, at) <= 0:
            return agent
        waiting.append(wait)
    return min(waiting, key=lambda wait: waits.rest(wait, at))


# -- what comes next -------------------------------------------------------------------------------


def _held(state: LoopState, policy: Policy, at: Moment) -> Decision | None:
    """Look at HOLDS in order; None when a run may start. Who waits to stop does not wait for
    anything else."""
    ending = state.after_iteration
    held = None if ending is not None and state.open is None else _hold(state, policy, at)
    if ending is not None and (state.open is None or (held is not None and not held[0].finished)):
        return finish(state, State.STOPPED, ending.exit_code, ending.reason, at)
    return held


def _hold(state: LoopState, policy: Policy, at: Moment) -> Decision | None:
    """HOLDS but for the first. A pause lets the other roles' runs of a running iteration come
    first."""
    in_iteration = state.open is not None and state.state in (State.RUNNING, State.VERIFYING)
    if state.paused and not in_iteration:
        reason = state.reason if state.state is State.PAUSED else "paused"
        return enter(state, State.PAUSED, reason, at), ()
    if Hold.PLAN in state.blocked_by:
        return enter(state, State.COOLDOWN, state.blocked_by[Hold.PLAN], at), ()
    if state.blocked_by:
        return enter(state, State.BLOCKED, "; ".join(state.blocked_by.values()), at), ()
    if state.wait is not None and waits.rest(state.wait, at) > 0:
        return enter(state, waits.STATES[state.wait.kind], state.wait.reason, at), ()
    spent = budget.exceeded(state.spent, policy.budget, at.wall)
    if spent:
        return finish(state, State.BLOCKED, 4, spent, at)
    if state.open is None and 0 < policy.max_iterations <= state.run_iterations:
        reason = f"iteration limit reached ({policy.max_iterations})"
        return finish(state, State.STOPPED, 0, reason, at)
    role = next_role(state.open, policy)
    chosen = _chosen(state, role, policy, at)
    if isinstance(chosen, Wait):
        state = enter(state, waits.STATES[chosen.kind], chosen.reason, at)
        return dataclasses.replace(state, wait=chosen), (Persist(),)
    return None


def proceed(state: LoopState, policy: Policy, at: Moment) -> Decision:
    """Decide what comes next when no run, gate or keeping is on."""
    if state.preparing:
        return state, ()
    held = _held(state, policy, at)
    if held is not None:
        return held
    return dataclasses.replace(state, wait=None, preparing=True), (Prepare(),)


def _proceed_if_idle(state: LoopState, policy: Policy, at: Moment, *before: Command) -> Decision:
    on = phase(state)
    if on is not Phase.IDLE and (on is not Phase.PARKED or state.paused):
        return state, before
    state, commands = proceed(state, policy, at)
    return state, (*before, *commands)


def _prepared(state: LoopState, event: Prepared, policy: Policy, at: Moment) -> Decision:
    """Inputs were read: look at the conditions again, then open the iteration and start its run."""
    state = dataclasses.replace(state, preparing=False)
    held = _held(state, policy, at)
    if held is not None:
        return held
    role = next_role(state.open, policy)
    agent = _chosen(state, role, policy, at)
    assert isinstance(agent, AgentPolicy)  # _held has just found one
    opened = state.open or _open(state, event, at)
    known = {message.name for message in opened.messages}
    fresh = tuple(message for message in event.messages if message.name not in known)
    run = _run(state, opened, role, agent, at)
    opened = dataclasses.replace(
        opened, run=run, messages=(*opened.messages, *fresh), events=(*opened.events, *state.events)
    )
    state = dataclasses.replace(
        enter(state, State.RUNNING, f"{role} run of iteration {opened.number}", at),
        open=opened,
        wait=None,
        iteration=opened.number,
        run_iterations=state.run_iterations + (state.open is None),
        carried=(),
        events=(),
        warned=False,
        gate_baseline=_baseline(state, event),
    )
    return state, (
        Persist(),
        TakeMessages(opened.number, tuple(m.name for m in opened.messages)),
        StartRun(run),
    )


def _open(state: LoopState, event: Prepared, at: Moment) -> Iteration:
    return Iteration(
        number=state.iteration + 1,
        goal=state.goal,
        started_at=at.wall,
        messages=state.carried,
        head_before=event.head,
        warned=state.warned,
    )


def _baseline(state: LoopState, event: Prepared) -> dict[str, str]:
    """Gate files as the person left them: a change made while no agent worked is the person's."""
    before = state.gate_seen
    baseline = dict(event.gate_files) if state.gate_baseline is None else dict(state.gate_baseline)
    if before is not None:
        for path in before.keys() | event.gate_files.keys():
            if before.get(path) != event.gate_files.get(path):
                baseline[path] = event.gate_files.get(path, "")
    return baseline


def _run(
    state: LoopState, opened: Iteration, role: Role, agent: AgentPolicy, at: Moment
) -> OpenRun:
    attempt = 1 + sum(ended.role is role for ended in opened.ended)
    label = f"{opened.number:06d}-{role}" + (f"-{attempt}" if attempt > 1 else "")
    return OpenRun(
        run_id=f"{state.loop_id}-{label}",
        role=role,
        agent=agent.name,
        account=agent.account,
        attempt=attempt,
        label=label,
        started_at=at.wall,
        session_id=_session(state, agent, at),
    )


def _session(state: LoopState, agent: AgentPolicy, at: Moment) -> str:
    """The thread to resume, or "" for a fresh one."""
    session, rules = state.sessions.get(agent.name), agent.session
    if session is None or not rules.resume:
        return ""
    too_long = (
        (rules.max_turns and session.turns >= rules.max_turns)
        or (rules.max_tokens and session.tokens >= rules.max_tokens)
        or (rules.max_sec and at.wall - session.started_at >= rules.max_sec)
    )
    return "" if too_long else session.session_id


# -- what was on has ended -------------------------------------------------------------------------


def _unknown(event: RunEnded) -> tuple[Command, ...]:
    return (Log("run.unknown", {"run_id": event.run_id}),)


def _run_ended(state: LoopState, event: RunEnded, policy: Policy, at: Moment) -> Decision:
    opened = _opened(state)
    run = opened.run
    if run is None or run.run_id != event.run_id:
        return state, _unknown(event)
    if event.not_started:
        # Whatever was asked for meanwhile counts; nothing was run, so there is nothing to judge.
        state, commands = _after_end(_within(state, opened, run=None), policy, at)
        return state, (Persist(), *commands)
    spent, notes = account.spend(state, event, policy.budget, at)
    state = dataclasses.replace(
        state,
        spent=spent,
        sessions=account.sessions(state, run, event),
        gate_seen=state.gate_seen if event.gate_files is None else dict(event.gate_files),
    )
    opened, then = judge.judge_run(state, account.closed(opened, run, event), event, policy)
    if then is judge.Next.RUN:
        state, commands = proceed(dataclasses.replace(state, open=opened), policy, at)
        return state, (*notes, Persist(), *commands)
    if then is judge.Next.VERIFY:
        state = enter(state, State.VERIFYING, f"gates of iteration {opened.number}", at)
        state = _within(state, opened, step=Step.VERIFY)
        return state, (*notes, Persist(), RunGates(opened.number))
    state, commands = _keep(state, opened, policy, at)
    return state, (*notes, *commands)


def _gates_ended(state: LoopState, event: GatesEnded, policy: Policy, at: Moment) -> Decision:
    opened, ending = _opened(state), state.ending
    if event.aborted and ending is not None and ending.kind is EndingKind.STEER:
        return _keep(state, judge.called_off(opened, ending.reason), policy, at)
    if event.aborted:
        # The answer is kept; the gates run again when the loop goes on.
        return _after_end(state, policy, at)
    opened = dataclasses.replace(opened, gates=event.results, gates_ran=True)
    if policy.mode is Mode.ROLES and opened.reviewer is None:
        # Not `proceed`: the gates may have ended just before somebody asked them to.
        state, commands = _after_end(_within(state, opened, step=Step.RUN), policy, at)
        return state, (Persist(), *commands)
    return _keep(state, opened, policy, at)


def _keep(state: LoopState, opened: Iteration, policy: Policy, at: Moment) -> Decision:
    """Commit and checkpoint where there is something to keep, then give the verdict."""
    commit = policy.commit and opened.failure_verdict is not Verdict.ABORTED
    checkpoint = policy.checkpoints and opened.changed is not False
    # earlier iterations, gates and hooks may have left something, too
    commit = commit and (opened.changed is not False or state.owed.count > 0)
    if not (commit or checkpoint):
        return _verdict(state, opened, policy, at)
    state = _within(state, opened, step=Step.KEEP)
    return state, (Persist(), Keep(opened.number, commit, checkpoint))


def _kept(state: LoopState, event: Kept, policy: Policy, at: Moment) -> Decision:
    opened = _opened(state)
    opened = dataclasses.replace(
        opened,
        commit=event.commit,
        checkpoint=event.checkpoint,
        keep_error=event.error,
        head_after=event.head or opened.head_after,
    )
    return _verdict(state, opened, policy, at)


def _verdict(state: LoopState, opened: Iteration, policy: Policy, at: Moment) -> Decision:
    """Close the iteration: journal line first, then what follows from it."""
    closed = verdict.close(state, opened, policy, at)
    if closed.finish is not None:
        end = closed.finish
        after, commands = finish(closed.state, end.state, end.exit_code, end.reason, at)
    else:
        after, commands = _after_end(closed.state, policy, at)
    durable = () if any(isinstance(c, Persist | Prepare) for c in commands) else (Persist(),)
    return after, (journal_record(opened, after, at), *closed.notes, *durable, *commands)


def _after_end(state: LoopState, policy: Policy, at: Moment) -> Decision:
    """A run, gate or iteration has ended: do what an `ending` asked for, else go on."""
    ending, opened = state.ending, state.open
    if ending is not None:
        state = dataclasses.replace(state, ending=None)
    if ending is not None and ending.kind is EndingKind.STOP:
        return finish(state, State.STOPPED, ending.exit_code, ending.reason, at)
    pausing = ending is not None and ending.kind is EndingKind.PAUSE
    if ending is not None and pausing and state.paused and opened is not None:
        state = enter(state, State.PAUSED, ending.reason, at)
    if opened is not None and opened.step is Step.VERIFY:
        state, commands = _verify(state, opened, at)
        return state, (Persist(), *commands)
    return proceed(state, policy, at)


def _verify(state: LoopState, opened: Iteration, at: Moment) -> Decision:
    """Run the gates of the open iteration (again), or park them while the loop is paused."""
    ending = state.after_iteration
    if state.paused and ending is not None:
        return finish(state, State.STOPPED, ending.exit_code, ending.reason, at)
    if state.paused:
        return enter(state, State.PAUSED, "paused", at), ()
    state = enter(state, State.VERIFYING, f"gates of iteration {opened.number}", at)
    return state, (RunGates(opened.number),)


# -- control ---------------------------------------------------------------------------------------


def _boot(state: LoopState, event: Boot, policy: Policy, at: Moment) -> Decision:
    """Forget what belonged to the last supervisor, re-anchor waits, go on where the loop was."""
    state = recovery.after_restart(_unfrozen(state, at), at)
    state = dataclasses.replace(state, paused=event.paused, paused_up=at.up)
    opened = state.open
    if opened is None:
        return proceed(state, policy, at)
    if opened.step is Step.VERIFY:
        return _verify(state, opened, at)
    if opened.step is Step.KEEP:
        return _keep(state, opened, policy, at)
    run, number = opened.run, opened.number
    if run is not None and event.trace is Trace.ADOPTED:
        state = enter(state, State.RUNNING, f"adopted the {run.role} run of iteration {number}", at)
        # Its messages may still lie in the inbox: we may have died between sending and putting them
        # aside.
        names = tuple(message.name for message in opened.messages)
        note = Log("run.adopted", {"run_id": run.run_id, "iteration": number})
        return state, (TakeMessages(number, names), note)
    if run is not None and event.trace is Trace.GONE:
        # Nobody looked at the gate files when it ended: what differs from now on is taken as the
        # agent's doing.
        state = dataclasses.replace(state, gate_seen=None)
        return _keep(state, judge.interrupted(account.vanished(opened, run)), policy, at)
    # It never started: the same number, the same messages, once more.
    return proceed(_within(state, opened, run=None), policy, at)


def _stop(state: LoopState, event: Stop, policy: Policy, at: Moment) -> Decision:
    on, ending = phase(state), Ending(EndingKind.STOP, event.reason, event.exit_code)
    within = event.after_iteration and state.open is not None
    if on in (Phase.IDLE, Phase.PARKED) or (on is Phase.PREPARING and not within):
        return finish(state, State.STOPPED, event.exit_code, event.reason, at)
    if event.after_iteration:
        note = Log("stop.after_iteration", {"reason": event.reason})
        return dataclasses.replace(state, after_iteration=ending), (Persist(), note)
    state = dataclasses.replace(enter(state, State.STOPPING, event.reason, at), ending=ending)
    # Keeping is short and ends by itself.
    return state, () if on is Phase.KEEP else (Abort(event.reason),)


def _unstop(state: LoopState, event: Unstop, policy: Policy, at: Moment) -> Decision:
    return dataclasses.replace(state, after_iteration=None), ()


def _pause(state: LoopState, event: Pause, policy: Policy, at: Moment) -> Decision:
    on = phase(state)
    if not state.paused:
        state = dataclasses.replace(state, paused=True, paused_up=at.up)
    if on in (Phase.IDLE, Phase.PARKED):
        return enter(state, State.PAUSED, event.reason, at), (Persist(),)
    if event.now and state.ending is None and on in ABORTABLE:
        ending = Ending(EndingKind.PAUSE, event.reason)
        return dataclasses.replace(state, ending=ending), (Abort(event.reason),)
    if event.now and on is Phase.PREPARING:
        # The run that is being prepared will not start.
        return enter(state, State.PAUSED, event.reason, at), ()
    return state, ()


def _unfrozen(state: LoopState, at: Moment) -> LoopState:
    """A pause used nothing of the wait: what was left when it began is left now.

    A limit's end is a fact of the outside world and stays where it is."""
    wait = state.wait
    if not state.paused or wait is None or wait.kind is WaitKind.LIMIT:
        return state
    return dataclasses.replace(state, wait=waits.frozen(wait, state.paused_up, at))


def _resume(state: LoopState, event: Resume, policy: Policy, at: Moment) -> Decision:
    if not state.paused:
        return state, ()
    parked = phase(state) is Phase.PARKED
    state = dataclasses.replace(_unfrozen(state, at), paused=False)
    if parked:
        return _verify(state, _opened(state), at)
    state, commands = _proceed_if_idle(state, policy, at)
    return state, (Persist(), *commands)


def _steer(state: LoopState, event: Steer, policy: Policy, at: Moment) -> Decision:
    given = {message.name for message in state.open.messages} if state.open else set()
    if event.now and event.names and given.issuperset(event.names):
        return state, ()
    if event.now and state.ending is None and phase(state) in ABORTABLE:
        ending = Ending(EndingKind.STEER, "steer --now: the next iteration starts with the message")
        return dataclasses.replace(state, ending=ending), (Abort(ending.reason),)
    return _wake(state, policy, at, also_backoff=event.now)


def _wake(state: LoopState, policy: Policy, at: Moment, *, also_backoff: bool = False) -> Decision:
    """Something new to do ends a cooldown; a backoff only when a person insists; a limit never."""
    kind = state.wait.kind if state.wait else WaitKind.LIMIT
    if kind in waits.COOLDOWNS or (also_backoff and kind is not WaitKind.LIMIT):
        state = dataclasses.replace(state, wait=None)
    if also_backoff:
        state = _forget_auth(state)
    return _proceed_if_idle(state, policy, at)


def _forget_auth(state: LoopState) -> LoopState:
    """A person acted: agents that were not logged in or wrongly configured may be tried again."""
    limits = {name: wait for name, wait in state.limits.items() if wait.kind is not WaitKind.AUTH}
    wait = None if state.wait is not None and state.wait.kind is WaitKind.AUTH else state.wait
    return dataclasses.replace(state, limits=limits, wait=wait)


def _goal_set(state: LoopState, event: GoalSet, policy: Policy, at: Moment) -> Decision:
    state = recovery.forget_circles(state)
    # the file may be seen again before it is taken
    if event.goal != (state.goal_set or state.goal):
        state = _noted(state, GoalNote("goal.set", at.wall, event.goal[:500]))
        if state.open is not None:
            state = dataclasses.replace(state, goal_set=event.goal)
        else:
            state = dataclasses.replace(state, goal=event.goal, goal_set="")
    state, commands = _wake(state, policy, at)
    return state, (Persist(), TakeMessages(state.iteration, event.names), *commands)


def _edited(state: LoopState, event: Edited, policy: Policy, at: Moment) -> Decision:
    if event.ticks_only and event.in_run:
        return state, ()  # the agent ticking its items is ordinary work
    kind = f"{event.what}.changed"
    note = EditNote(kind, at.wall, event.added, event.removed)
    state, commands = _wake(_noted(recovery.forget_circles(state), note), policy, at)
    log = Log(kind, {"added": event.added, "removed": event.removed})
    return state, (Persist(), log, *commands)


def _block(state: LoopState, event: Block, policy: Policy, at: Moment) -> Decision:
    if state.blocked_by.get(event.name) == event.reason:
        return state, ()
    held = {**state.blocked_by, event.name.value: event.reason}
    state = dataclasses.replace(state, blocked_by=held)
    if event.name is Hold.PLAN:
        state = dataclasses.replace(state, preparing=False)
    note = Log("loop.held", {"by": event.name.value, "reason": event.reason})
    return _proceed_if_idle(state, policy, at, note)


def _unblock(state: LoopState, event: Unblock, policy: Policy, at: Moment) -> Decision:
    if event.name not in state.blocked_by:
        return state, ()
    left = {name: reason for name, reason in state.blocked_by.items() if name != event.name}
    state = dataclasses.replace(state, blocked_by=left)
    return _proceed_if_idle(state, policy, at, Log("loop.released", {"by": event.name.value}))


def _tick(state: LoopState, event: Tick, policy: Policy, at: Moment) -> Decision:
    if state.paused or phase(state) not in (Phase.IDLE, Phase.PARKED):
        return state, ()
    if state.wait is not None and waits.rest(state.wait, at) > 0:
        return state, ()
    return proceed(state, policy, at)


def _limit_seen(state: LoopState, event: LimitSeen, policy: Policy, at: Moment) -> Decision:
    known = state.limits.get(event.account)
    if known is not None and waits.rest(known, at) >= waits.rest(event.wait, at):
        return state, ()
    return dataclasses.replace(state, limits={**state.limits, event.account: event.wait}), ()


def _policy_changed(state: LoopState, event: PolicyChanged, policy: Policy, at: Moment) -> Decision:
    state = _forget_auth(state)
    if state.wait is not None and state.wait.kind is WaitKind.LIMIT:
        # `limits` still knows who is limited; the new configuration may name somebody who is not.
        state = dataclasses.replace(state, wait=None)
    return _proceed_if_idle(state, policy, at)


_HANDLERS: dict[type, Callable[[LoopState, Any, Policy, Moment], Decision]] = {
    Boot: _boot,
    Tick: _tick,
    Prepared: _prepared,
    RunEnded: _run_ended,
    GatesEnded: _gates_ended,
    Kept: _kept,
    Stop: _stop,
    Unstop: _unstop,
    Pause: _pause,
    Resume: _resume,
    Steer: _steer,
    GoalSet: _goal_set,
    Edited: _edited,
    Block: _block,
    Unblock: _unblock,
    LimitSeen: _limit_seen,
    PolicyChanged: _policy_changed,
}
