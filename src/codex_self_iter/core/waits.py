"""Waits with an end: making one, and what is left of it after anything that clocks do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from codex_self_iter.core import backoff
from codex_self_iter.core.events import Moment
from codex_self_iter.core.model import State
from codex_self_iter.core.state import Wait

STATES: Mapping[str, State] = {
    "error": State.BACKOFF,
    "limit": State.LIMITED,
    "auth": State.BLOCKED,
    "no_change": State.COOLDOWN,
    "planner_stop": State.COOLDOWN,
    "continue_false": State.COOLDOWN,
}
"""The state of `status.json` that goes with each kind of wait."""

COOLDOWNS = frozenset(kind for kind, state in STATES.items() if state is State.COOLDOWN)
"""Waits because there is nothing to do: something new to do ends them."""


def make(kind: str, length: float, reason: str, at: Moment) -> Wait:
    """A wait of `length` seconds from now."""
    return Wait(kind, at.wall + length, length, reason, at.up + length, at.boot_id)


def rest(wait: Wait, at: Moment) -> float:
    """Seconds left: by the boot-time clock within one boot, else by the wall clock; never more than
    the length.
    """
    if wait.boot_id == at.boot_id:
        return backoff.remaining(wait.up_until, at.up, wait.length)
    return backoff.remaining(wait.until, at.wall, wait.length)


def reanchored(wait: Wait, at: Moment) -> Wait:
    """The same wait on the present clocks: what is left, with both ends counted from now."""
    left = rest(wait, at)
    return dataclasses.replace(
        wait, until=at.wall + left, up_until=at.up + left, boot_id=at.boot_id
    )


def frozen(wait: Wait, since_up: float, at: Moment) -> Wait:
    """The same wait as if no time had passed since `since_up` (boot-time clock of the wait's own
    boot).
    """
    left = backoff.remaining(wait.up_until, since_up, wait.length)
    return dataclasses.replace(
        wait, until=at.wall + left, up_until=at.up + left, boot_id=at.boot_id
    )
