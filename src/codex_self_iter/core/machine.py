"""The state machine of one loop: `decide(state, event, policy, at) -> (state, commands)`.

Theory of operation
-------------------
A loop is between iterations (`open is None`) or inside one. An iteration goes through steps:

    RUN      one agent run for each role (goal mode: executor; roles mode: planner, executor, reviewer)
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

`iteration.py` judges a finished run; this file only moves between the rooms.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from codex_self_iter.core import budget, iteration, waits
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
    Kept,
    LimitSeen,
    Moment,
    Pause,
    PolicyChanged,
    Prepared,
    Resume,
    RunEnded,
    Steer,
    Stop,
    Tick,
    Unblock,
    Unstop,
)
from codex_self_iter.core.model import Role, State
from codex_self_iter.core.policy import AgentPolicy, Policy
from codex_self_iter.core.state import Ending, Iteration, LoopState, OpenRun, Session, Step, Wait

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
"""What can hold a loop between two runs, in the order in which it is looked at, with the state it
leads to.
"""


def decide(state: LoopState, event: Event, policy: Policy, at: Moment) -> Decision:
    """Return the next state and what to do, in order. Events of a loop that has ended change
    nothing.
    """
    if state.finished and not isinstance(event, Boot):
        return state, ()
    handler: Callable[[LoopState, Any, Policy, Moment], Decision] = _HANDLERS[type(event)]
    return handler(state, event, policy, at)


# -- small tools -----------------------------------------------------------------------------------


def enter(state: LoopState, kind: State, reason: str, at: Moment) -> LoopState:
    """Move to another state of `status.json`; `since` moves only when the state does."""
    since = state.since if state.state is kind and state.since else at.wall
    return dataclasses.replace(state, state=kind, since=since, reason=reason)


def finish(state: LoopState, kind: State, code: int, reason: str, at: Moment) -> Decision:
    """End the loop."""
    state = dataclasses.replace(
        enter(state, kind, reason, at), exit_code=code, preparing=False, ending=None
    )
    return state, (Persist(), Notify(kind.value, reason), Exit(code, kind, reason))


def next_role(open_iteration: Iteration, policy: Policy) -> Role:
    """The role whose run comes next in an open iteration."""
    if policy.mode != "roles" or (
        open_iteration.planner is not None and open_iteration.block is None
    ):
        return Role.EXECUTOR
    return Role.PLANNER if open_iteration.planner is None else Role.REVIEWER


def _chosen(state: LoopState, role: Role, policy: Policy, at: Moment) -> AgentPolicy | Wait:
    """The first agent of the order whose account may be used now, or the wait for the first to be
    free.
    """
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
    anything else.
    """
    ending = state.after_iteration
    held = None if ending is not None and state.open is None else _hold(state, policy, at)
    if ending is not None and (state.open is None or (held is not None and not held[0].finished)):
        return finish(state, State.STOPPED, ending.exit_code, ending.reason, at)
    return held


def _hold(state: LoopState, policy: Policy, at: Moment) -> Decision | None:
    """HOLDS but for the first. A pause lets the other roles' runs of a running iteration come
    first.
    """
    in_iteration = state.open is not None and state.state in (State.RUNNING, State.VERIFYING)
    if state.paused and not in_iteration:
        return enter(
            state, State.PAUSED, state.reason if state.state is State.PAUSED else "paused", at
        ), ()
    if "plan" in state.blocked_by:
        return enter(state, State.COOLDOWN, state.blocked_by["plan"], at), ()
    if state.blocked_by:
        return enter(state, State.BLOCKED, "; ".join(state.blocked_by.values()), at), ()
    if state.wait is not None and waits.rest(state.wait, at) > 0:
        return enter(state, waits.STATES[state.wait.kind], state.wait.reason, at), ()
    spent = budget.exceeded(state.spent, policy.budget, at.wall)
    if spent:
        return finish(state, State.BLOCKED, 4, spent, at)
    if state.open is None and 0 < policy.max_iterations <= state.run_iterations:
        return finish(
            state, State.STOPPED, 0, f"iteration limit reached ({policy.max_iterations})", at
        )
    role = next_role(state.open, policy) if state.open else policy.roles[0]
    chosen = _chosen(state, role, policy, at)
    if isinstance(chosen, Wait):
        state = dataclasses.replace(
            enter(state, waits.STATES[chosen.kind], chosen.reason, at), wait=chosen
        )
        return state, (Persist(),)
    return None


def proceed(state: LoopState, policy: Policy, at: Moment) -> Decision:
    """Decide what comes next when no run, gate or keeping is on."""
    if state.preparing:
        return state, ()
    held = _held(state, policy, at)
    if held is not None:
        return held
    state = dataclasses.replace(state, wait=None, preparing=True)
    role = next_role(state.open, policy) if state.open else policy.roles[0]
    return state, (Prepare(role),)


def _parked(state: LoopState) -> bool:
    """True when the gates were ended by a pause and wait for its end."""
    return state.open is not None and state.open.step is Step.VERIFY and state.state is State.PAUSED


def _idle(state: LoopState) -> bool:
    """True when nothing is on that will report its own end."""
    if state.preparing:
        return False
    return (
        state.open is None
        or (state.open.step is Step.RUN and state.open.run is None)
        or _parked(state)
    )


def _proceed_if_idle(state: LoopState, policy: Policy, at: Moment, *before: Command) -> Decision:
    if not _idle(state) or (_parked(state) and state.paused):
        return state, before
    state, commands = proceed(state, policy, at)
    return state, (*before, *commands)


def _prepared(state: LoopState, event: Prepared, policy: Policy, at: Moment) -> Decision:
    """Inputs were read: look at the conditions again, then open the iteration and start its run."""
    if not state.preparing:
        return state, ()
    state = dataclasses.replace(state, preparing=False)
    held = _held(state, policy, at)
    if held is not None:
        return held
    role = next_role(state.open, policy) if state.open else policy.roles[0]
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
    session: Session | None = state.sessions.get(agent.name)
    rules = agent.session
    if session is None or not rules.resume:
        return ""
    too_long = (
        (rules.max_turns and session.turns >= rules.max_turns)
        or (rules.max_tokens and session.tokens >= rules.max_tokens)
        or (rules.max_sec and at.wall - session.started_at >= rules.max_sec)
    )
    return "" if too_long else session.session_id


# -- what was on has ended -------------------------------------------------------------------------


def _run_ended(state: LoopState, event: RunEnded, policy: Policy, at: Moment) -> Decision:
    if state.open is None or state.open.run is None or state.open.run.run_id != event.run_id:
        return state, (Log("run.unknown", {"run_id": event.run_id}),)
    if event.not_started:
        # Whatever was asked for meanwhile counts; nothing was run, so there is nothing to judge.
        state, commands = _after_end(_with_open(state, run=None), policy, at)
        return state, (Persist(), *commands)
    state, extra = iteration.account_run(state, event, policy, at)
    state, judged = iteration.judge_run(state, event, policy)
    opened = state.open
    assert opened is not None
    if judged == "next_run":
        state, commands = proceed(state, policy, at)
        return state, (*extra, Persist(), *commands)
    if judged == "verify":
        state = enter(state, State.VERIFYING, f"gates of iteration {opened.number}", at)
        state = _with_open(state, step=Step.VERIFY)
        return state, (*extra, Persist(), RunGates(opened.number))
    return _keep(state, policy, at, *extra)


def _with_open(state: LoopState, **changes: Any) -> LoopState:
    assert state.open is not None
    return dataclasses.replace(state, open=dataclasses.replace(state.open, **changes))


def _gates_ended(state: LoopState, event: GatesEnded, policy: Policy, at: Moment) -> Decision:
    if state.open is None or state.open.step is not Step.VERIFY or _parked(state):
        return state, ()
    if event.aborted:
        if state.ending is not None and state.ending.kind == "steer":
            return _keep(iteration.called_off(state, state.ending.reason), policy, at)
        # The answer is kept; the gates run again when the loop goes on.
        return _after_end(state, policy, at)
    state = _with_open(state, gates=event.results, gates_ran=True)
    if policy.mode == "roles" and state.open is not None and state.open.reviewer is None:
        # Not `proceed`: the gates may have ended just before somebody asked them to.
        state, commands = _after_end(_with_open(state, step=Step.RUN), policy, at)
        return state, (Persist(), *commands)
    return _keep(state, policy, at)


def _keep(state: LoopState, policy: Policy, at: Moment, *extra: Command) -> Decision:
    """Commit and checkpoint where there is something to keep, then give the verdict."""
    opened = state.open
    assert opened is not None
    commit = policy.commit and opened.failure_verdict != "aborted"
    if opened.changed is False or not (commit or policy.checkpoints):
        state, commands = _verdict(state, policy, at)
        return state, (*extra, *commands)
    state = _with_open(state, step=Step.KEEP)
    return state, (*extra, Persist(), Keep(opened.number, commit, policy.checkpoints))


def _kept(state: LoopState, event: Kept, policy: Policy, at: Moment) -> Decision:
    if state.open is None or state.open.step is not Step.KEEP:
        return state, ()
    state = _with_open(
        state,
        commit=event.commit,
        checkpoint=event.checkpoint,
        keep_error=event.error,
        head_after=event.head or state.open.head_after,
    )
    return _verdict(state, policy, at)


def _verdict(state: LoopState, policy: Policy, at: Moment) -> Decision:
    """Close the iteration: journal line first, then what follows from it."""
    closed, ending, notes = iteration.close(state, policy, at)
    if ending is not None:
        after, commands = finish(closed, ending.state, ending.exit_code, ending.reason, at)
    else:
        after, commands = _after_end(closed, policy, at)
    record = iteration.journal_record(state, after, at)
    durable = () if any(isinstance(c, Persist | Prepare) for c in commands) else (Persist(),)
    return after, (record, *notes, *durable, *commands)


def _after_end(state: LoopState, policy: Policy, at: Moment) -> Decision:
    """A run, gate or iteration has ended: do what an `ending` asked for, else go on."""
    ending = state.ending
    state = dataclasses.replace(state, ending=None)
    if ending is not None and ending.kind == "stop":
        return finish(state, State.STOPPED, ending.exit_code, ending.reason, at)
    if ending is not None and ending.kind == "pause" and state.paused and state.open is not None:
        state = enter(state, State.PAUSED, ending.reason, at)
    if state.open is not None and state.open.step is Step.VERIFY:
        state, commands = _verify(state, at)
        return state, (Persist(), *commands)
    return proceed(state, policy, at)


def _verify(state: LoopState, at: Moment) -> Decision:
    """Run the gates of the open iteration (again), or park them while the loop is paused."""
    opened = state.open
    assert opened is not None
    if state.paused and state.after_iteration is not None:
        ending = state.after_iteration
        return finish(state, State.STOPPED, ending.exit_code, ending.reason, at)
    if state.paused:
        return enter(state, State.PAUSED, "paused", at), ()
    return enter(state, State.VERIFYING, f"gates of iteration {opened.number}", at), (
        RunGates(opened.number),
    )


# -- control ---------------------------------------------------------------------------------------


def _boot(state: LoopState, event: Boot, policy: Policy, at: Moment) -> Decision:
    """Start: forget what belonged to the last supervisor, re-anchor waits, go on where the loop
    was.
    """
    state = iteration.after_restart(_unfrozen(state, at), at)
    state = dataclasses.replace(state, paused=event.paused, paused_up=at.up)
    opened = state.open
    if opened is None:
        return proceed(state, policy, at)
    if opened.step is Step.VERIFY:
        return _verify(state, at)
    if opened.step is Step.KEEP:
        return _keep(state, policy, at)
    if opened.run is not None and event.trace == "adopted":
        state = enter(
            state,
            State.RUNNING,
            f"adopted the {opened.run.role} run of iteration {opened.number}",
            at,
        )
        # Its messages may still lie in the inbox: we may have died between sending and putting them
        # aside.
        names = tuple(message.name for message in opened.messages)
        return state, (
            TakeMessages(opened.number, names),
            Log("run.adopted", {"run_id": opened.run.run_id, "iteration": opened.number}),
        )
    if opened.run is not None and event.trace == "gone":
        state = iteration.interrupted(state)
        return _keep(state, policy, at)
    # It never started: the same number, the same messages, once more.
    state = _with_open(state, run=None)
    return proceed(state, policy, at)


def _stop(state: LoopState, event: Stop, policy: Policy, at: Moment) -> Decision:
    ending = Ending("stop", event.reason, event.exit_code)
    if _idle(state) or (state.preparing and not (event.after_iteration and state.open is not None)):
        return finish(state, State.STOPPED, event.exit_code, event.reason, at)
    if event.after_iteration:
        note = Log("stop.after_iteration", {"reason": event.reason})
        return dataclasses.replace(state, after_iteration=ending), (Persist(), note)
    assert state.open is not None
    step = state.open.step
    state = dataclasses.replace(enter(state, State.STOPPING, event.reason, at), ending=ending)
    # Keeping is short and ends by itself.
    return state, () if step is Step.KEEP else (Abort(event.reason),)


def _unstop(state: LoopState, event: Unstop, policy: Policy, at: Moment) -> Decision:
    return dataclasses.replace(state, after_iteration=None), ()


def _pause(state: LoopState, event: Pause, policy: Policy, at: Moment) -> Decision:
    if not state.paused:
        state = dataclasses.replace(state, paused=True, paused_up=at.up)
    if _idle(state):
        return enter(state, State.PAUSED, event.reason, at), (Persist(),)
    if event.now and state.ending is None and _can_be_ended(state):
        state = dataclasses.replace(state, ending=Ending("pause", event.reason))
        return state, (Abort(event.reason),)
    if event.now and state.preparing:
        return enter(
            state, State.PAUSED, event.reason, at
        ), ()  # the run that is being prepared will not start
    return state, ()


def _can_be_ended(state: LoopState) -> bool:
    """True while a run or the gates are on. Reading inputs and keeping are short and end by
    themselves.
    """
    opened = state.open
    return opened is not None and (opened.run is not None or opened.step is Step.VERIFY)


def _unfrozen(state: LoopState, at: Moment) -> LoopState:
    """A pause used nothing of the wait: what was left when it began is left now.

    A limit's end is a fact of the outside world and stays where it is.
    """
    wait = state.wait
    if not state.paused or wait is None or wait.kind == "limit":
        return state
    return dataclasses.replace(state, wait=waits.frozen(wait, state.paused_up, at))


def _resume(state: LoopState, event: Resume, policy: Policy, at: Moment) -> Decision:
    if not state.paused:
        return state, ()
    parked = _parked(state)
    state = dataclasses.replace(_unfrozen(state, at), paused=False)
    if parked:
        return _verify(state, at)
    state, commands = _proceed_if_idle(state, policy, at)
    return state, (Persist(), *commands)


def _steer(state: LoopState, event: Steer, policy: Policy, at: Moment) -> Decision:
    given = {message.name for message in state.open.messages} if state.open else set()
    if event.now and event.names and given.issuperset(event.names):
        return state, ()
    if event.now and state.ending is None and _can_be_ended(state) and not _parked(state):
        reason = "steer --now: the next iteration starts with the message"
        return dataclasses.replace(state, ending=Ending("steer", reason)), (Abort(reason),)
    return _wake(state, policy, at, also_backoff=event.now)


def _wake(state: LoopState, policy: Policy, at: Moment, *, also_backoff: bool = False) -> Decision:
    """Something new to do: a cooldown is over; an error backoff only when a person insists; a limit
    never.
    """
    if state.wait is not None and (
        state.wait.kind in waits.COOLDOWNS or (also_backoff and state.wait.kind != "limit")
    ):
        state = dataclasses.replace(state, wait=None)
    if also_backoff:
        state = _forget_auth(state)
    return _proceed_if_idle(state, policy, at)


def _forget_auth(state: LoopState) -> LoopState:
    """A person acted: agents that were not logged in or wrongly configured may be tried again."""
    limits = {account: wait for account, wait in state.limits.items() if wait.kind != "auth"}
    wait = None if state.wait is not None and state.wait.kind == "auth" else state.wait
    return dataclasses.replace(state, limits=limits, wait=wait)


def _goal_set(state: LoopState, event: GoalSet, policy: Policy, at: Moment) -> Decision:
    state = iteration.forget_circles(state)
    running = state.open is not None
    # the file may be seen again before it is taken
    if event.goal != (state.goal_set or state.goal):
        note = {"kind": "goal.set", "at": at.wall, "goal": event.goal[:500]}
        state = dataclasses.replace(
            state,
            goal=state.goal if running else event.goal,
            goal_set=event.goal if running else "",
            events=(*state.events, note)[-EVENTS:],
        )
    state, commands = _wake(state, policy, at)
    return state, (Persist(), TakeMessages(state.iteration, event.names), *commands)


def _edited(state: LoopState, event: Edited, policy: Policy, at: Moment) -> Decision:
    note = {
        "kind": f"{event.what}.changed",
        "at": at.wall,
        "added": event.added,
        "removed": event.removed,
    }
    if event.ticks_only and event.in_run:
        return state, ()  # the agent ticking its items is ordinary work
    state = dataclasses.replace(
        iteration.forget_circles(state), events=(*state.events, note)[-EVENTS:]
    )
    state, commands = _wake(state, policy, at)
    log = Log(f"{event.what}.changed", {"added": event.added, "removed": event.removed})
    return state, (Persist(), log, *commands)


def _block(state: LoopState, event: Block, policy: Policy, at: Moment) -> Decision:
    if state.blocked_by.get(event.name) == event.reason:
        return state, ()
    state = dataclasses.replace(state, blocked_by={**state.blocked_by, event.name: event.reason})
    if event.name == "plan":
        state = dataclasses.replace(state, preparing=False)
    note = Log("loop.held", {"by": event.name, "reason": event.reason})
    return _proceed_if_idle(state, policy, at, note)


def _unblock(state: LoopState, event: Unblock, policy: Policy, at: Moment) -> Decision:
    if event.name not in state.blocked_by:
        return state, ()
    left = {name: reason for name, reason in state.blocked_by.items() if name != event.name}
    state = dataclasses.replace(state, blocked_by=left)
    return _proceed_if_idle(state, policy, at, Log("loop.released", {"by": event.name}))


def _tick(state: LoopState, event: Tick, policy: Policy, at: Moment) -> Decision:
    if state.paused or not _idle(state):
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
    if state.wait is not None and state.wait.kind == "limit":
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
