"""Waits with an end: making one, and what is left of it after anything that clocks do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from codex_self_iter.core import backoff
from codex_self_iter.core.state import LoopState, Wait, WaitKind
from codex_self_iter.core.terms import Moment, State

STATES: Mapping[WaitKind, State] = {
    WaitKind.ERROR: State.BACKOFF,
    WaitKind.LIMIT: State.LIMITED,
    WaitKind.AUTH: State.BLOCKED,
    WaitKind.NO_CHANGE: State.COOLDOWN,
    WaitKind.PLANNER_STOP: State.COOLDOWN,
    WaitKind.CONTINUE_FALSE: State.COOLDOWN,
}
"""The state of `status.json` that goes with each kind of wait."""

COOLDOWNS = frozenset(kind for kind, state in STATES.items() if state is State.COOLDOWN)
"""Waits because there is nothing to do: something new to do ends them."""


def make(kind: WaitKind, length: float, reason: str, at: Moment) -> Wait:
    """A wait of `length` seconds from now."""
    return Wait(kind, at.wall + length, length, reason, at.up + length, at.boot_id)


def rest(wait: Wait, at: Moment) -> float:
    """Seconds left, never more than the length: by the boot-time clock within one boot, else by
    the wall clock."""
    if wait.boot_id == at.boot_id:
        return backoff.remaining(wait.up_until, at.up, wait.length)
    return backoff.remaining(wait.until, at.wall, wait.length)


def reanchored(wait: Wait, at: Moment) -> Wait:
    """The same wait on the present clocks: what is left, with both ends counted from now."""
    return _with_rest(wait, rest(wait, at), at)


def frozen(wait: Wait, since_up: float, at: Moment) -> Wait:
    """The same wait as if no time had passed since `since_up` (boot-time clock of its own boot)."""
    return _with_rest(wait, backoff.remaining(wait.up_until, since_up, wait.length), at)


def unfrozen(state: LoopState, at: Moment) -> LoopState:
    """The state after a pause, which used nothing of the wait: what was left when it began is left now.

    A limit's end is a fact of the outside world and stays where it is."""
    wait = state.wait
    if not state.paused or wait is None or wait.kind is WaitKind.LIMIT:
        return state
    return dataclasses.replace(state, wait=frozen(wait, state.paused_up, at))


def _with_rest(wait: Wait, left: float, at: Moment) -> Wait:
    return dataclasses.replace(
        wait, until=at.wall + left, up_until=at.up + left, boot_id=at.boot_id
    )
