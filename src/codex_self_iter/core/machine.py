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

An end by request (STOP, pause --now, steer --now where the running turn takes no message) first sets
`ending`, then ends the run; what happens next is decided when the run has really ended. Whatever the
run said in the meantime is not believed; a run that had ended before it was asked to is judged as it
is.

Durability: the intent (`open.run`) is persisted before `StartRun`, and `ending` with `Abort` (which
waits for no disk); a verdict is journalled before anything that depends on it. Every prefix of a
command list leaves a state from which `recovery` goes on.

`judge` says what a run that has ended means, `verdict` what the whole iteration amounts to; this
file only moves between the rooms."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any

from codex_self_iter.core import account, asked, judge, opening, recovery, verdict, waits
from codex_self_iter.core.commands import (
    Abort,
    Command,
    Keep,
    KeepNotes,
    Log,
    Persist,
    Prepare,
    RunGates,
    StartRun,
    SteerRun,
    TakeMessages,
)
from codex_self_iter.core.events import (
    Block,
    Boot,
    Edited,
    Event,
    GateFiles,
    GateFilesTaken,
    GatesEnded,
    GoalSet,
    Kept,
    LimitSeen,
    Pause,
    PolicyChanged,
    Prepared,
    Resume,
    RunEnded,
    Steer,
    Steered,
    Stop,
    Tick,
    Trace,
    Unblock,
    Unstop,
)
from codex_self_iter.core.holds import Decision, chosen, enter, finish, held, next_role
from codex_self_iter.core.policy import AgentPolicy, Policy
from codex_self_iter.core.record import journal_record
from codex_self_iter.core.state import (
    EditNote,
    Ending,
    EndingKind,
    GoalNote,
    Iteration,
    LoopState,
    Message,
    Note,
    Step,
    WaitKind,
)
from codex_self_iter.core.terms import Mode, Moment, State, Verdict
from codex_self_iter.core.totals import with_run

EVENTS = 50
"""Edits and the like remembered for the next journal line; the newest are kept."""


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
    GateFiles: Phase.RUN,
    RunEnded: Phase.RUN,
    Steered: Phase.RUN,
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


def _opened(state: LoopState) -> Iteration:
    """The open iteration, where the phase says that there is one."""
    assert state.open is not None
    return state.open


def _within(state: LoopState, opened: Iteration, **changes: Any) -> LoopState:
    """The state with a changed open iteration."""
    return dataclasses.replace(state, open=dataclasses.replace(opened, **changes))


def _noted(state: LoopState, note: Note) -> LoopState:
    return dataclasses.replace(state, events=(*state.events, note)[-EVENTS:])


# -- what comes next -------------------------------------------------------------------------------


def proceed(state: LoopState, policy: Policy, at: Moment) -> Decision:
    """Decide what comes next when no run, gate or keeping is on."""
    if state.preparing:
        return state, ()
    hold = held(state, policy, at)
    if hold is not None:
        return hold
    return dataclasses.replace(state, wait=None, preparing=True), (Prepare(),)


def _proceed_if_idle(state: LoopState, policy: Policy, at: Moment, *before: Command) -> Decision:
    on = phase(state)
    if on is not Phase.IDLE and (on is not Phase.PARKED or state.paused):
        return state, before
    state, commands = proceed(state, policy, at)
    return state, (*before, *commands)


def _prepared(state: LoopState, event: Prepared, policy: Policy, at: Moment) -> Decision:
    """Inputs were read: look at the conditions again, then open the iteration and start its run."""
    at_start = opening.first_results(state, event)
    state = dataclasses.replace(state, preparing=False, at_start=at_start)
    hold = held(state, policy, at)
    if hold is not None:
        return hold
    role = next_role(state.open, policy)
    agent = chosen(state, role, policy, at)
    assert isinstance(agent, AgentPolicy)  # `held` has just found one
    state, opened, run = opening.begun(state, event, role, agent, at)
    state = enter(state, State.RUNNING, f"{role} run of iteration {opened.number}", at)
    return state, (Persist(), TakeMessages(opened.number, opened.messages), StartRun(run))


def _gate_files(state: LoopState, event: GateFiles, _policy: Policy, _at: Moment) -> Decision:
    return opening.gates_found(state, event.gate_files), (Persist(),)


def _gate_files_taken(
    state: LoopState, event: GateFilesTaken, _policy: Policy, _at: Moment
) -> Decision:
    taken = opening.gates_taken(state, event.gate_files)
    return (state, ()) if taken is None else (taken, (Persist(),))


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
        dropped=event.dropped or state.dropped,
        totals=with_run(state.totals, run.agent, event.outcome, event.report),
    )
    opened, then = judge.judge_run(state, account.closed(opened, run, event), event, policy)
    if then is judge.Next.CLOSE:
        state, commands = _keep(state, opened, policy, at)
        return state, (*notes, *commands)
    if then is judge.Next.RUN:
        state, commands = _after_end(dataclasses.replace(state, open=opened), policy, at)
        return state, (*notes, Persist(), *commands)
    state = _within(state, opened, step=Step.VERIFY)
    if state.ending is not None:  # it came while a run that had ended was being looked at
        state, commands = _gates_called_off(state, policy, at)
        return state, (*notes, *commands)
    state = enter(state, State.VERIFYING, f"gates of iteration {opened.number}", at)
    return state, (*notes, Persist(), RunGates(opened.number))


def _gates_called_off(state: LoopState, policy: Policy, at: Moment) -> Decision:
    """The answer is kept; the gates run again when the loop goes on, or never for a message that
    has to be heard at once."""
    opened, ending = _opened(state), state.ending
    if ending is not None and ending.kind is EndingKind.STEER:
        return _keep(state, judge.called_off(opened, ending), policy, at)
    return _after_end(state, policy, at)


def _gates_ended(state: LoopState, event: GatesEnded, policy: Policy, at: Moment) -> Decision:
    opened = _opened(state)
    if event.aborted:
        return _gates_called_off(state, policy, at)
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
    commit = commit and (opened.changed is not False or bool(state.owed))
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
    notes = opened.block.notes if opened.block else ()
    state = dataclasses.replace(state, noted=state.noted + len(notes))
    closed = verdict.close(state, opened, policy, at)
    end, ending = closed.finish, state.ending
    stopping = ending is not None and ending.kind is EndingKind.STOP
    if end is not None and not (stopping and end.state is not State.COMPLETED):
        after, commands = finish(
            closed.state, end.state, end.exit_code, end.reason, at, told=end.told
        )
    else:
        after, commands = _after_end(closed.state, policy, at)
    durable = () if any(isinstance(c, Persist | Prepare) for c in commands) else (Persist(),)
    kept = (KeepNotes(notes),) if notes else ()
    return after, (journal_record(opened, after, at), *kept, *closed.notes, *durable, *commands)


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
    """Keep what may be in the journal alone, then go on."""
    kept = (KeepNotes(state.unkept),) if state.unkept else ()
    state, commands = _booted(dataclasses.replace(state, unkept=()), event, policy, at)
    return state, (*kept, *commands)


def _booted(state: LoopState, event: Boot, policy: Policy, at: Moment) -> Decision:
    """Forget what belonged to the last supervisor, re-anchor waits, go on where the loop was."""
    ending = state.ending
    state = recovery.after_restart(waits.unfrozen(state, at), at, event.heard)
    gates = policy.verify_commands
    opened = state.open
    lost = opened is not None and opened.run is not None and event.trace is Trace.GONE
    state = dataclasses.replace(
        state,
        paused=event.paused,
        paused_up=at.up,
        gates=gates,
        run_iterations=int(opened is not None and not lost and ending is None),
    )
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
        note = Log("run.adopted", {"run_id": run.run_id, "iteration": number})
        taken = TakeMessages(number, opened.messages)
        if ending is None:
            return state, (taken, note)
        # The last supervisor was killed while it ended this run. What became of a STOP since then
        # is told by an event; like a pause that is over it lets the loop go on.
        kind = EndingKind.PAUSE if ending.kind is EndingKind.STOP else ending.kind
        state = dataclasses.replace(state, ending=dataclasses.replace(ending, kind=kind))
        return state, (taken, note, Abort(ending.reason))
    if run is not None and event.trace is Trace.GONE:
        # Nobody looked at the gate files when it ended: what differs from now on is taken as the
        # agent's doing.
        dropped = event.dropped or state.dropped
        state = dataclasses.replace(state, gate_seen=None, dropped=dropped)
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
        stops = {**state.stops, event.source.value: ending}
        return dataclasses.replace(state, stops=stops), (Persist(), note)
    earlier = state.ending
    if earlier is not None and earlier.kind is EndingKind.STOP and earlier.exit_code:
        ending = earlier  # a STOP file takes nothing back from a signal
    state = dataclasses.replace(enter(state, State.STOPPING, ending.reason, at), ending=ending)
    # Keeping is short and ends by itself.
    return state, () if on is Phase.KEEP else (Persist(), Abort(event.reason))


def _unstop(state: LoopState, event: Unstop, policy: Policy, at: Moment) -> Decision:
    stops = {source: ending for source, ending in state.stops.items() if source != event.source}
    return dataclasses.replace(state, stops=stops), ()


def _pause(state: LoopState, event: Pause, policy: Policy, at: Moment) -> Decision:
    on = phase(state)
    if not state.paused:
        state = dataclasses.replace(state, paused=True, paused_up=at.up)
    if on in (Phase.IDLE, Phase.PARKED):
        return enter(state, State.PAUSED, event.reason, at), (Persist(),)
    if event.now and state.ending is None and on in ABORTABLE:
        ending = Ending(EndingKind.PAUSE, event.reason)
        return dataclasses.replace(state, ending=ending), (Persist(), Abort(event.reason))
    if event.now and on is Phase.PREPARING:
        # The run that is being prepared will not start.
        return enter(state, State.PAUSED, event.reason, at), ()
    return state, ()


def _resume(state: LoopState, event: Resume, policy: Policy, at: Moment) -> Decision:
    if not state.paused:
        return state, ()
    parked = phase(state) is Phase.PARKED
    state = dataclasses.replace(waits.unfrozen(state, at), paused=False)
    if parked:
        return _verify(state, _opened(state), at)
    state, commands = _proceed_if_idle(state, policy, at)
    return state, (Persist(), *commands)


def _steer(state: LoopState, event: Steer, policy: Policy, at: Moment) -> Decision:
    given = {message.name for message in state.open.messages} if state.open else set()
    if event.now and event.names and given.issuperset(event.names):
        return state, ()
    if event.now and state.ending is None and phase(state) in ABORTABLE:
        if run := asked.steerable(state, event, policy):
            return state, (SteerRun(run.run_id, event.names),)
        ending = Ending(EndingKind.STEER, "steer --now: the next iteration starts with the message")
        state = dataclasses.replace(_forget_aside(state), ending=ending)
        return state, (Persist(), Abort(ending.reason))
    return _wake(state, policy, at, also_backoff=event.now)


def _steered(state: LoopState, event: Steered, _policy: Policy, _at: Moment) -> Decision:
    opened = _opened(state)
    if opened.run is None or opened.run.run_id != event.run_id:
        return state, ()  # they are in the inbox still, for the next prompt
    opened = opening.given(opened, event.messages)
    note = Log("run.steered", {"names": [message.name for message in event.messages]})
    taken = TakeMessages(opened.number, opened.messages)
    return dataclasses.replace(state, open=opened), (Persist(), taken, note)


def _wake(state: LoopState, policy: Policy, at: Moment, *, also_backoff: bool = False) -> Decision:
    """Something new to do ends a cooldown; a backoff only when a person insists; a limit never."""
    kind = state.wait.kind if state.wait else WaitKind.LIMIT
    if kind in waits.COOLDOWNS or (also_backoff and kind is not WaitKind.LIMIT):
        state = dataclasses.replace(state, wait=None)
    if also_backoff:
        state = _forget_aside(state)
    return _proceed_if_idle(state, policy, at)


def _forget_aside(state: LoopState) -> LoopState:
    """A person acted: agents that were set aside because they failed may be tried again."""
    limits = {name: wait for name, wait in state.limits.items() if wait.kind is WaitKind.LIMIT}
    wait = None if state.wait is not None and state.wait.kind is WaitKind.AUTH else state.wait
    return dataclasses.replace(state, limits=limits, wait=wait)


def _goal_set(state: LoopState, event: GoalSet, policy: Policy, at: Moment) -> Decision:
    state = recovery.forget_circles(state)
    # the file may be seen again before it is taken
    if event.goal != (state.goal_set or state.goal):
        state = _noted(state, GoalNote("goal.set", at.wall, event.goal))
        if state.open is not None:
            state = dataclasses.replace(state, goal_set=event.goal)
        else:
            state = dataclasses.replace(state, goal=event.goal, goal_set="")
    state, commands = _wake(state, policy, at)
    taken = TakeMessages(state.iteration, tuple(Message(name, "") for name in event.names))
    return state, (Persist(), taken, *commands)


def _edited(state: LoopState, event: Edited, policy: Policy, at: Moment) -> Decision:
    if event.ticks_only and event.in_run:
        return state, ()  # the agent ticking its items is ordinary work
    kind = f"{event.what}.changed"
    note = EditNote(kind, at.wall, event.added, event.removed)
    if not event.in_run:  # else it is the agent's: what it writes into its plan proves nothing
        state = recovery.forget_circles(state)
    state, commands = _wake(_noted(state, note), policy, at)
    log = Log(kind, {"added": event.added, "removed": event.removed})
    return state, (Persist(), log, *commands)


def _block(state: LoopState, event: Block, policy: Policy, at: Moment) -> Decision:
    if state.blocked_by.get(event.name) == event.reason:
        return state, ()
    blocked_by = {**state.blocked_by, event.name.value: event.reason}
    state = dataclasses.replace(state, blocked_by=blocked_by)
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
    state = dataclasses.replace(_forget_aside(state), gates=policy.verify_commands)
    if state.wait is not None and state.wait.kind is WaitKind.LIMIT:
        # `limits` still knows who is limited; the new configuration may name somebody who is not.
        state = dataclasses.replace(state, wait=None)
    return _proceed_if_idle(state, policy, at)


_HANDLERS: dict[type, Callable[[LoopState, Any, Policy, Moment], Decision]] = {
    Boot: _boot,
    Tick: _tick,
    Prepared: _prepared,
    GateFiles: _gate_files,
    GateFilesTaken: _gate_files_taken,
    RunEnded: _run_ended,
    GatesEnded: _gates_ended,
    Kept: _kept,
    Stop: _stop,
    Unstop: _unstop,
    Pause: _pause,
    Resume: _resume,
    Steer: _steer,
    Steered: _steered,
    GoalSet: _goal_set,
    Edited: _edited,
    Block: _block,
    Unblock: _unblock,
    LimitSeen: _limit_seen,
    PolicyChanged: _policy_changed,
}
