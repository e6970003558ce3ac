"""Going on after a stop or a crash: which record counts, and what a new supervisor takes over.

The journal line of an iteration is written before the snapshot that follows from it. So after a
crash there are exactly these cases:

    snapshot   journal's last line            truth
    none       none                           a new loop
    none       line N                         line N's state: the one that it carries (`after`)
    open = N   line N                         line N's state: the snapshot was about to be replaced
    at N       line N or older, N not open    the snapshot
    at N       line M > N                     line M's state: an older copy of the snapshot was read
    open = N   line older than N              the snapshot: iteration N goes on

Beside a snapshot only a line that carries a state of this very loop counts: anybody can append to
the journal."""

from __future__ import annotations

import dataclasses

from codex_self_iter.core import waits
from codex_self_iter.core.state import Best, Counters, LoopState, WaitKind
from codex_self_iter.core.terms import Moment, State
from codex_self_iter.core.totals import DOWN, ENDED, taken_over


class RecoveryError(ValueError):
    """What was kept cannot be read as a state of a loop; the message says what and why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """What a line of the journal tells.

    Attributes:
        number: of the iteration; None: the line is not ours.
        goal: what was to be done next.
        after: the state after the iteration; None: the line is foreign or was shortened.
        flaw: why `after` cannot be read, or ""."""

    number: int | None
    goal: str = ""
    after: LoopState | None = None
    flaw: str = ""


def reconcile(snapshot: LoopState | None, line: Line | None, new_loop_id: str) -> LoopState:
    """Return the state from which the loop goes on. Raises RecoveryError."""
    if snapshot is None:
        return LoopState(new_loop_id) if line is None else _from_line(line, new_loop_id)
    if line is None or line.number is None or line.after is None:
        return snapshot
    if line.after.loop_id != snapshot.loop_id:
        return snapshot
    closed = snapshot.open is not None and snapshot.open.number == line.number
    newer = line.number > snapshot.iteration
    return _from_line(line, snapshot.loop_id) if newer or closed else snapshot


def _from_line(line: Line, loop_id: str) -> LoopState:
    """The state after a journal line; without `after` it still gives number and goal."""
    if line.flaw:
        raise RecoveryError(line.flaw)
    if line.after is not None:
        return dataclasses.replace(line.after, open=None)
    if line.number is None:
        raise RecoveryError("the journal's last line has no iteration number")
    return LoopState(loop_id, iteration=line.number, goal=line.goal)


def forget_circles(state: LoopState) -> LoopState:
    """A person changed what is asked: old goals and counts say nothing about the new."""
    counters = dataclasses.replace(
        state.counters,
        no_change=0,
        aimless=0,
        gate_repeats=0,
        gate_print="",
        cooldowns=0,
        confirmations=0,
        tries={name: n for name, n in state.counters.tries.items() if name != "context"},
    )
    return dataclasses.replace(state, counters=counters, goals=(), warned=False, best=Best())


def after_restart(state: LoopState, at: Moment, heard: float = 0.0) -> LoopState:
    """What a new supervisor takes over: all but what belonged to the old process or to an end that
    was reported. `heard`: the last heartbeat of the old one, in Unix seconds.

    Waits keep what is left of them. After an end that a person has seen (stagnated, blocked,
    completed) the counters start again; after a stop or a crash they do not."""
    seen = state.exit_code is not None and state.state is not State.STOPPED
    gone = ENDED if state.finished else DOWN
    before = ENDED if state.finished else state.kept_as
    state = dataclasses.replace(
        state,
        state=State.STARTING,
        since=at.wall,
        reason="",
        preparing=False,
        stops={},
        ending=None,
        blocked_by={},
        run_iterations=0,
        exit_code=None,
        totals=taken_over(state.totals, before, gone, heard, at),
        wait=None if seen or state.wait is None else waits.reanchored(state.wait, at),
        limits={
            account: waits.reanchored(wait, at)
            for account, wait in state.limits.items()
            if wait.kind is WaitKind.LIMIT or not seen
        },
    )
    if seen:
        state = dataclasses.replace(forget_circles(state), counters=Counters())
    return state
