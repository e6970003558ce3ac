"""Making the snapshot and the journal agree after a crash.

The journal line of an iteration is written before the snapshot that follows from it. So after a
crash there are exactly these cases:

    snapshot   journal's last line            truth
    none       none                           a new loop
    none       line N                         the state that line N carries (`after`)
    open = N   line N                         the state that line N carries: the snapshot was about to be replaced
    at N       line N or older, N not open    the snapshot
    at N       line M > N                     the state that line M carries: an older copy of the snapshot was read
    open = N   line older than N              the snapshot: iteration N goes on
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from codex_self_iter.core.state import LoopState, from_json


class RecoveryError(ValueError):
    """What was kept cannot be read as a state of a loop; the message says what and why."""


def _state(data: Mapping[str, Any], what: str) -> LoopState:
    try:
        return from_json(LoopState, data)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise RecoveryError(f"{what} is not the state of a loop: {error}") from error


def _from_line(line: Mapping[str, Any], loop_id: str) -> LoopState:
    """The state after a journal line. A line without `after` (foreign or shortened) still gives
    number and goal.
    """
    after = line.get("after")
    if isinstance(after, Mapping):
        return dataclasses.replace(_state(after, "the journal's last line"), open=None)
    number = line.get("iteration")
    if not isinstance(number, int):
        raise RecoveryError("the journal's last line has no iteration number")
    return LoopState(loop_id, iteration=number, goal=str(line.get("next_goal") or ""))


def reconcile(
    snapshot: Mapping[str, Any] | None, line: Mapping[str, Any] | None, new_loop_id: str
) -> LoopState:
    """Return the state from which the loop goes on. Raises RecoveryError."""
    if snapshot is None:
        return LoopState(new_loop_id) if line is None else _from_line(line, new_loop_id)
    state = _state(snapshot, "runtime.json")
    if line is None or not isinstance(line.get("iteration"), int):
        return state
    number = line["iteration"]
    closed = state.open is not None and state.open.number == number
    return _from_line(line, state.loop_id) if number > state.iteration or closed else state
