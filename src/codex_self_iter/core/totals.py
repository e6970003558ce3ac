"""What a loop has done in all: figures that only grow, for series and digests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from codex_self_iter.core.agent_report import AgentReport, FailureClass
from codex_self_iter.core.evidence import GateResult
from codex_self_iter.core.runs import EndCause, RunOutcome
from codex_self_iter.core.terms import Moment, State

DOWN, ENDED, OUTAGE = "down", "ended", "outage"
"""What time is counted as beside the states: no supervisor had the loop, it had ended, it waited for
a network or a model's server."""
NOBODYS = (DOWN, ENDED, OUTAGE, State.LIMITED.value, State.PAUSED.value, State.BLOCKED.value)
"""Time in which the best supervisor could have done nothing either (docs/simulation.md)."""
MOST_AGENTS = 20
"""Agents that are told apart; a series for each of any number of names would grow for ever."""
OTHERS = "other"
_CUT_SHORT = (None, FailureClass.LIMIT, FailureClass.OVERLOAD, FailureClass.NETWORK)
"""How a run has failed whose work counts all the same: something from outside has cut it short."""


@dataclasses.dataclass(frozen=True, slots=True)
class Totals:
    """What was done since the loop began.

    Attributes:
        iterations: how many have ended, by verdict.
        gates: how often one was run, by result: passed, failed, timed_out, flawed.
        runs: agent runs of these iterations, by what ended them (`EndCause`).
        tokens, cost_usd: by agent; cost where it is known.
        seconds: by state of `status.json`, and `DOWN`, `ENDED`, `OUTAGE`; suspend counts. What
            goes on is not in it yet: see `until`.
        productive_sec: of agent runs whose work counts, as docs/simulation.md has it;
            unproductive_sec: of all others.
        up, wall, boot_id: the moment up to which `seconds` are counted."""

    iterations: dict[str, int] = dataclasses.field(default_factory=dict)
    gates: dict[str, int] = dataclasses.field(default_factory=dict)
    runs: dict[str, int] = dataclasses.field(default_factory=dict)
    tokens: dict[str, int] = dataclasses.field(default_factory=dict)
    cost_usd: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    productive_sec: float = 0.0
    unproductive_sec: float = 0.0
    up: float = 0.0
    wall: float = 0.0
    boot_id: str = ""

    @property
    def lost_sec(self) -> dict[str, float]:
        """Seconds in which no agent did work that counts, by cause: a state, or runs that came to
        nothing. A run counts when it has ended, so that nothing is ever taken back."""
        lost = {name: sec for name, sec in self.seconds.items() if name != State.RUNNING.value}
        return lost | {"unproductive": self.unproductive_sec}

    @property
    def goodput(self) -> float | None:
        """Productive time by the best possible, 0 to 1; None before there was any."""
        ours = sum(sec for name, sec in self.lost_sec.items() if name not in NOBODYS)
        best = self.productive_sec + ours
        return self.productive_sec / best if best > 0 else None


NO_TOTALS = Totals()
"""Of a loop that has not begun."""


def until(totals: Totals, state: str, at: Moment) -> Totals:
    """The same at this moment: what has passed since was spent in `state`."""
    return _passed(totals, {state: _gap(totals, at)}, at)


def taken_over(totals: Totals, state: str, gone: str, heard: float, at: Moment) -> Totals:
    """The same for the next supervisor: the last one was in `state` up to its last heartbeat, at
    `heard` (Unix seconds; 0.0: not known), and `gone` since. So nothing that it has published is
    taken back."""
    gap = _gap(totals, at)
    alive = min(gap, max(0.0, heard - totals.wall + _SLACK_SEC)) if heard else 0.0
    return _passed(totals, {state: alive, gone: gap - alive}, at)


_SLACK_SEC = 0.01
"""A heartbeat is written down by the millisecond."""


def _gap(totals: Totals, at: Moment) -> float:
    """Seconds that have passed; 0.0 for a loop that begins."""
    passed = at.up - totals.up if totals.boot_id == at.boot_id else at.wall - totals.wall
    return max(0.0, passed) if totals.boot_id else 0.0


def _passed(totals: Totals, parts: Mapping[str, float], at: Moment) -> Totals:
    seconds = dict(totals.seconds)
    for state, sec in parts.items():
        if sec > 0:
            seconds[state] = round(seconds.get(state, 0.0) + sec, 3)
    return dataclasses.replace(totals, seconds=seconds, up=at.up, wall=at.wall, boot_id=at.boot_id)


def with_run(totals: Totals, agent: str, outcome: RunOutcome, report: AgentReport) -> Totals:
    """The same after an agent run."""
    failure = report.failure.kind if report.failure else None
    productive = outcome.cause is EndCause.EXIT and failure in _CUT_SHORT
    name = agent if agent in totals.tokens or len(totals.tokens) < MOST_AGENTS else OTHERS
    usage, tokens, cost = report.usage, totals.tokens, totals.cost_usd
    if usage:  # nothing is made up
        tokens = {**tokens, name: tokens.get(name, 0) + usage.total_tokens}
    if usage and usage.cost_usd is not None:
        cost = {**cost, name: cost.get(name, 0.0) + usage.cost_usd}
    good, bad = totals.productive_sec, totals.unproductive_sec
    lasted = outcome.duration_sec
    return dataclasses.replace(
        totals,
        tokens=tokens,
        cost_usd=cost,
        productive_sec=round(good + lasted, 3) if productive else good,
        unproductive_sec=bad if productive else round(bad + lasted, 3),
    )


def with_iteration(
    totals: Totals, verdict: str, runs: Iterable[EndCause], gates: Iterable[GateResult]
) -> Totals:
    """The same after an iteration whose runs have ended so."""
    return dataclasses.replace(
        totals,
        runs=_counted(totals.runs, (cause.value for cause in runs)),
        iterations=_counted(totals.iterations, [verdict]),
        gates=_counted(totals.gates, map(_result, gates)),
    )


def _result(gate: GateResult) -> str:
    if gate.ok:
        return "passed"
    return "flawed" if gate.flaw else "timed_out" if gate.timed_out else "failed"


def _counted(before: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
    found = dict(before)
    for name in names:
        found[name] = found.get(name, 0) + 1
    return found
