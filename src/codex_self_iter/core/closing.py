"""An iteration that is being closed: what the verdict on it leaves behind."""

from __future__ import annotations

import dataclasses
from typing import Any

from codex_self_iter.core import backoff, bounds, stagnation, waits
from codex_self_iter.core.commands import Command, Log, Notify
from codex_self_iter.core.marks import mark
from codex_self_iter.core.policy import Policy
from codex_self_iter.core.state import Iteration, Last, LoopState, WaitKind
from codex_self_iter.core.terms import Moment, State, Verdict
from codex_self_iter.core.text import counted


@dataclasses.dataclass(frozen=True, slots=True)
class Finish:
    """The loop ends with this verdict. `told`: the person knows the reason already."""

    state: State
    exit_code: int
    reason: str
    told: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Closed:
    """What the verdict leads to: the state after it, an end if there is one, and what to tell."""

    state: LoopState
    finish: Finish | None = None
    notes: tuple[Command, ...] = ()


class Closing:
    """An iteration that is being closed, for as long as `close` works on it.

    What it leaves behind is collected in `changes` and `counters` and becomes the next state once,
    at the end: a state is large, and copies of it for every step were most of a verdict's cost."""

    def __init__(self, state: LoopState, opened: Iteration, policy: Policy, at: Moment) -> None:
        self.state, self.opened, self.policy, self.at = state, opened, policy, at
        self.counters = state.counters
        self.changes: dict[str, Any] = {}
        self.notes: tuple[Command, ...] = ()

    def leave(self, **changes: Any) -> None:
        """Leave these fields of the state behind."""
        self.changes.update(changes)

    def count(self, **changes: Any) -> None:
        """Leave these counters behind."""
        self.counters = dataclasses.replace(self.counters, **changes)

    def judge(self, verdict: Verdict, summary: str, unproven: str = "") -> None:
        """Leave this verdict behind, and what stood against a claim."""
        opened, at, usage = self.opened, self.at, self.opened.usage
        self.changes["last"] = Last(
            iteration=opened.number,
            verdict=verdict,
            summary=summary,
            duration_sec=opened.lasted(at),
            ended_at=at.wall,
            tokens=usage.total_tokens if usage else None,
            cost_usd=usage.cost_usd if usage else None,
            failure_class=opened.failure.kind.value if opened.failure else "",
            unproven=unproven,
        )

    def cool_down(self, kind: WaitKind, base: float, reason: str) -> None:
        """Wait because a role sees nothing to do: the longer, the more often the same role said so
        in a row. An executor that only changes content meanwhile does not shorten it."""
        last = self.state.last.verdict.value if self.state.last else ""
        other = last in waits.COOLDOWNS and last != kind.value
        count = 1 if other else self.counters.cooldowns + 1
        ceiling = max(base * bounds.COOLDOWN_GROWTH, self.policy.backoff_max_sec)
        length = backoff.exponential(count, base, ceiling, self.at.u)
        if count >= bounds.TOLD_AT:
            ends = "an edit of plan or task, a message or a goal ends the wait"
            reason = f"nothing to do, {count} times in a row: {reason} ({ends})"
        if count == bounds.TOLD_AT:
            self.notes = (*self.notes, Notify("cooldown", reason))
        self.leave(wait=waits.make(kind, length, reason, self.at))
        self.count(cooldowns=count)

    def advance(self) -> bool:
        """Take note of what was ticked and mended; true when that is progress beyond all before."""
        opened = self.opened
        changed = opened.changed is not False
        refused = len(opened.ticked_marks) - len(opened.done_marks)
        best, forward = stagnation.advanced(
            self.state.best,
            opened.ticked - refused,
            opened.gates,
            marks=opened.done_marks,
            changed=changed,
        )
        self.leave(best=best)
        if forward:
            self.count(gate_repeats=0, gate_print="", cooldowns=0, aimless=0)
        return forward

    def remember_ticks(self) -> None:
        """What a run has ticked that failed is checked when completion is claimed."""
        best = self.state.best
        done = tuple(dict.fromkeys((*best.done, *self.opened.ticked_marks)))[-stagnation.DONE :]
        self.leave(best=dataclasses.replace(best, done=done))

    def ask(self, goal: str, *, forward: bool) -> None:
        """Ask for this goal next; `forward`: what was asked for before does not count."""
        before = () if forward else self.state.goals
        self.leave(goal=goal, goals=(*before, mark(goal))[-stagnation.HISTORY :])
        changed = self.opened.changed or forward
        if changed or self.opened.changed is not None:
            self.count(no_change=0 if changed else self.counters.no_change + 1)

    def wander(self, *, forward: bool) -> None:
        """Count an iteration of which nothing came that can be told; tell a person once."""
        counters, bound = self.counters, self.policy.max_stagnation
        came = forward or self.opened.claim
        came = came or counters.gate_print != self.state.counters.gate_print
        self.count(aimless=0 if came else counters.aimless + 1)
        text, first = stagnation.aimless(self.counters.aimless, bound)
        if first:
            self.notes = (*self.notes, Notify("cooldown", text))

    def circles(self) -> Finish | None:
        """Warn a loop that goes in circles once, then give up."""
        counters, bound = self.counters, self.policy.max_stagnation
        if bound < 1:
            self.leave(warned=False)
            return None
        goals: tuple[str, ...] = self.changes["goals"]
        found = stagnation.circle(goals, counters.no_change, counters.gate_repeats, bound=bound)
        room = found.room(bound)
        if room <= 0 and self.opened.warned:
            what = (
                f"{found.what} for {counted(found.length, 'iteration')} (max_stagnation = {bound})"
            )
            goal = f"; the goal: {self.changes['goal']}" if self.changes["goal"] else ""
            return Finish(State.STAGNATED, 3, f"going in circles: {what}{goal}")
        warned = found.length > 0 and room <= 1
        self.leave(warned=warned)
        if warned:
            note = Log("loop.circling", {"what": found.what, "length": found.length})
            self.notes = (*self.notes, note)
        return None
