"""What can hold a loop between two runs, in the order in which it is looked at, and how it ends."""

from __future__ import annotations

import dataclasses

from codex_self_iter.core import bounds, budget, waits
from codex_self_iter.core.commands import Command, Exit, Notify, Persist
from codex_self_iter.core.events import Hold
from codex_self_iter.core.policy import AgentPolicy, Policy
from codex_self_iter.core.state import Iteration, LoopState, Wait, WaitKind
from codex_self_iter.core.terms import Mode, Moment, Role, State

Decision = tuple[LoopState, tuple[Command, ...]]

HOLDS: tuple[tuple[str, str], ...] = (
    ("stop after the iteration", "stopped"),
    ("pause", "paused"),
    ("iteration limit reached", "stopped; blocked when only a person can mend the last failure"),
    ("plan missing, empty or unreadable", "cooldown"),
    ("disk or state directory cannot be written, or a hook fails", "blocked"),
    ("a wait is not over", "backoff, cooldown, limited or blocked, by its kind"),
    ("budget spent", "blocked"),
    ("every agent's account is limited", "limited"),
)
"""What can hold a loop between two runs, in the order in which it is looked at, and where to."""


def enter(state: LoopState, kind: State, reason: str, at: Moment) -> LoopState:
    """Move to another state of `status.json`; `since` moves only when the state does."""
    since = state.since if state.state is kind and state.since else at.wall
    totals = state.totals_at(at)
    return dataclasses.replace(state, state=kind, since=since, reason=reason, totals=totals)


def finish(
    state: LoopState, kind: State, code: int, reason: str, at: Moment, *, told: bool = False
) -> Decision:
    """End the loop. What is not committed by then is said with the reason. `told`: the person has
    been told why."""
    reason = "; ".join(filter(None, (reason, state.owed.told())))
    state = dataclasses.replace(
        enter(state, kind, reason, at), exit_code=code, preparing=False, ending=None
    )
    told_now = () if told else (Notify(kind.value, reason),)
    return state, (Persist(), *told_now, Exit(code, kind, reason))


def next_role(opened: Iteration | None, policy: Policy) -> Role:
    """The role whose run comes next, in an open iteration or at the beginning of one."""
    if policy.mode is Mode.GOAL:
        return Role.EXECUTOR
    if opened is None or opened.planner is None:
        return Role.PLANNER
    return Role.EXECUTOR if opened.block is None else Role.REVIEWER


def chosen(state: LoopState, role: Role, policy: Policy, at: Moment) -> AgentPolicy | Wait:
    """The first agent whose account may be used now, or the wait for the first to be free."""
    waiting: list[Wait] = []
    for agent in policy.agents[role]:
        wait = state.limits.get(agent.account)
        if wait is None or waits.rest(wait, at) <= 0:
            return agent
        waiting.append(wait)
    return min(waiting, key=lambda wait: waits.rest(wait, at))


def held(state: LoopState, policy: Policy, at: Moment) -> Decision | None:
    """Look at HOLDS in order; None when a run may start. Who waits to stop does not wait for
    anything else."""
    ending = state.after_iteration
    found = None if ending is not None and state.open is None else _hold(state, policy, at)
    if ending is not None and (state.open is None or (found is not None and not found[0].finished)):
        return finish(state, State.STOPPED, ending.exit_code, ending.reason, at)
    return found


def _hold(state: LoopState, policy: Policy, at: Moment) -> Decision | None:
    """HOLDS but for the first. A pause lets the other roles' runs of a running iteration come
    first."""
    in_iteration = state.open is not None and state.state in (State.RUNNING, State.VERIFYING)
    if state.paused and not in_iteration:
        reason = state.reason if state.state is State.PAUSED else "paused"
        return enter(state, State.PAUSED, reason, at), ()
    spent = budget.exceeded(state.spent, policy.budget, at.wall)
    if all_run(state, policy):
        return finish(state, State.BLOCKED, 4, spent, at) if spent else _all_run(state, policy, at)
    if Hold.PLAN in state.blocked_by:
        return enter(state, State.COOLDOWN, state.blocked_by[Hold.PLAN], at), ()
    if state.blocked_by:
        return enter(state, State.BLOCKED, "; ".join(state.blocked_by.values()), at), ()
    if state.wait is not None and waits.rest(state.wait, at) > 0:
        return enter(state, waits.STATES[state.wait.kind], state.wait.reason, at), ()
    if spent:
        return finish(state, State.BLOCKED, 4, spent, at)
    wait = chosen(state, next_role(state.open, policy), policy, at)
    if isinstance(wait, Wait):
        state = enter(state, waits.STATES[wait.kind], wait.reason, at)
        return dataclasses.replace(state, wait=wait), (Persist(),)
    return None


def all_run(state: LoopState, policy: Policy) -> bool:
    """Whether this start has had all the iterations that it may have."""
    return state.open is None and 0 < policy.max_iterations <= state.run_iterations


def _all_run(state: LoopState, policy: Policy, at: Moment) -> Decision:
    """The iteration limit is reached: nothing is waited for any more."""
    reason, last = f"iteration limit reached ({policy.max_iterations})", state.last
    if last is None or last.failure_class not in bounds.PERSON:
        return finish(state, State.STOPPED, 0, reason, at)
    # The wait says what to do; the summary alone only what failed.
    why = state.wait.reason if state.wait is not None else last.summary
    told = any(wait.kind is WaitKind.AUTH for wait in state.limits.values())
    reason += f"; a person must act ({last.failure_class}): {why}"
    return finish(state, State.BLOCKED, 4, reason, at, told=told)
