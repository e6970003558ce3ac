"""Numbers for plots: iterations by verdict, tokens and money by day, seconds by state, gates.

Plain numbers with labels, so that bars in a terminal, pictures on a page and metrics draw the same."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from codex_self_iter.core.text import END_SEC, FIRST_SEC
from codex_self_iter.views.timeline import Iteration

WAITS = {"limit": "limited", "error": "backoff", "auth": "blocked"}
"""Kind of a wait -> the state that it is waited in; every other kind is a cooldown."""


class Bar(NamedTuple):
    """One bar; `colour` as in `Iteration`, "" for none in particular."""

    label: str
    value: float
    colour: str = ""


class Stack(NamedTuple):
    """Bars upon each other, for one stretch of time that begins at `at` (Unix seconds)."""

    label: str
    at: float
    parts: tuple[Bar, ...]

    @property
    def total(self) -> float:
        """All of them."""
        return sum(bar.value for bar in self.parts)


class GateTimes(NamedTuple):
    """How long one gate took: (iteration, seconds, whether it passed), in order."""

    command: str
    runs: tuple[tuple[int, float, bool], ...]


def verdicts(done: Sequence[Iteration], most: int = 40) -> list[Stack]:
    """Iterations by verdict over time, in at most `most` stretches of equal, round length."""
    dated = [one for one in done if _sane(one.ended)]
    if not dated:
        return []
    first, last = min(_at(one) for one in dated), max(_at(one) for one in dated)
    width = _round_width((last - first) / max(1, most - 1))
    begin = math.floor(first / width) * width
    count = int((last - begin) // width) + 1
    found: list[dict[str, int]] = [{} for _ in range(count)]
    colours: dict[str, str] = {}
    for one in dated:
        by = found[int((_at(one) - begin) // width)]
        by[one.verdict] = by.get(one.verdict, 0) + 1
        colours[one.verdict] = one.colour
    names = sorted(
        colours, key=lambda name: (("green", "yellow", "red").index(colours[name]), name)
    )
    return [
        Stack(
            _when(begin + number * width, width),
            begin + number * width,
            tuple(Bar(name, by[name], colours[name]) for name in names if name in by),
        )
        for number, by in enumerate(found)
    ]


def by_verdict(done: Iterable[Iteration]) -> list[Bar]:
    """How many iterations came to each verdict, the most frequent first."""
    count: dict[tuple[str, str], int] = {}
    for one in done:
        count[one.verdict, one.colour] = count.get((one.verdict, one.colour), 0) + 1
    bars = [Bar(verdict, value, tint) for (verdict, tint), value in count.items()]
    return sorted(bars, key=lambda bar: (-bar.value, bar.label))


def tokens_by_day(done: Iterable[Iteration]) -> list[Bar]:
    """Tokens, so far as they are known, by the local day on which the iteration ended."""
    return _by_day((one, one.tokens) for one in done)


def money_by_day(done: Iterable[Iteration]) -> list[Bar]:
    """US dollars, so far as they are known, by the local day on which the iteration ended."""
    return _by_day((one, one.cost_usd) for one in done)


def seconds_by_state(done: Sequence[Iteration]) -> list[Bar]:
    """How long was worked, proven and waited between the first of them and the last, in seconds.

    What lies between two iterations is the state of the wait that followed the first of the two, and
    "between" where it ended without one: a pause, a supervisor that was not there."""
    found = dict.fromkeys(("running", "verifying"), 0.0)
    for one in done:
        proved = min(one.took_sec, sum(gate.took_sec for gate in one.gates))
        found["verifying"] += proved
        found["running"] += one.took_sec - proved
    for one, following in itertools.pairwise(done):
        if one.ended is None or following.began is None or following.began <= one.ended:
            continue
        kind = one.waited.partition(":")[0]
        state = WAITS.get(kind, "cooldown") if kind else "between"
        found[state] = found.get(state, 0.0) + following.began - one.ended
    tints = {"running": "green", "verifying": "green", "blocked": "red", "between": ""}
    return [
        Bar(state, seconds, tints.get(state, "yellow"))
        for state, seconds in found.items()
        if seconds
    ]


def gate_times(done: Iterable[Iteration]) -> list[GateTimes]:
    """How long each gate took over the iterations, those that ran most often first."""
    found: dict[str, list[tuple[int, float, bool]]] = {}
    for one in done:
        for gate in one.gates:
            found.setdefault(gate.command, []).append((one.number, gate.took_sec, gate.ok))
    every = [GateTimes(command, tuple(runs)) for command, runs in found.items()]
    return sorted(every, key=lambda gate: -len(gate.runs))


def _by_day(pairs: Iterable[tuple[Iteration, float | None]]) -> list[Bar]:
    found: dict[str, float] = {}
    for one, value in pairs:
        if value is not None and _sane(one.ended):
            day = datetime.fromtimestamp(_at(one), UTC).astimezone().strftime("%Y-%m-%d")
            found[day] = found.get(day, 0.0) + value
    return [Bar(day, found[day]) for day in sorted(found)]


_WIDTHS = (60, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 7 * 86400, 28 * 86400)
"""Lengths of a stretch, in seconds, that people can read on an axis."""


def _round_width(least: float) -> float:
    known = next((width for width in _WIDTHS if width >= least), 0)
    return known or math.ceil(least / _WIDTHS[-1]) * _WIDTHS[-1]


def _sane(at: float | None) -> bool:
    return at is not None and FIRST_SEC + 86400 <= at < END_SEC - 86400


def _at(one: Iteration) -> float:
    return one.ended or 0.0


def _when(at: float, width: float) -> str:
    local = datetime.fromtimestamp(at, UTC).astimezone()
    return local.strftime("%Y-%m-%d" if width >= 86400 else "%m-%d %H:%M")
