"""Noticing that a loop goes in circles.

Three measures, each compared with `max_stagnation`:

    goals      how long the loop has been asking for the same thing: the longest suffix of the goal
               history that repeats with period 1 (A A A), 2 (A B A B) or 3 (A B C A B C). It may
               be CHURN times the bound, because content may change all the while
    progress   iterations in a row without a change of content
    gates      identical gate failures in a row

What cannot come of going in circles starts all of them anew (`advanced`): an item of the plan that
was ticked, a gate that turned green, a count in a gate's output that fell. Each counts only beyond
the best that was reached before: who ticks and unticks, breaks and mends, comes nowhere.

Changes for ever other goals may be work, so they end nothing. Where nothing else comes of them (no
tick, no claim, no other result of a gate) a person is told once (`aimless`)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from codex_self_iter.core.evidence import GateResult
from codex_self_iter.core.marks import mark
from codex_self_iter.core.state import Best

CHURN = 3
"""The same goal with changes of content may go on for so many times the bound."""
AIMLESS = 3
"""So many times the bound may changes go on for ever other goals before a person is told."""
HISTORY = 64
"""Goals remembered: also the longest that the same goal may go on."""
DONE = 500
"""Items remembered that were ticked, the last ones: 19 bytes each in every snapshot."""
GREEN, UNCOUNTED = -1, 10**9
"""What is left to do for a gate that passes, and for one that fails without a count."""

_BAD = (
    r"(?:errors?|fail(?:ed|ures?|ing|s)?|warnings?|problems?|issues?|violations?|defects?|offenses"
    r"|mismatch(?:es)?|conflicts?|regressions?|vulnerabilit(?:y|ies)|missing|broken"
    r"|to[- ]?dos?|undefined|unresolved|unformatted|untested|uncovered|diagnostics?)"
)
_UNIT = (
    r"(?!\s*(?:[kmgtp]i?b|b|bytes?|[mun]?s|sec(?:ond)?s?|min(?:ute)?s?|h(?:ours?)?|days?)\b|\s*%)"
)
"""What follows no count: a size or a time falls without any work."""
_COUNT = (
    # "12 errors", "12 type errors", "12 tests failed"
    rf"(?<![\w.:/-])(?P<n>\d{{1,9}})(?![.:]?\d){_UNIT}\s+(?:[a-z]+\s+){{0,2}}?(?P<after>{_BAD}|remaining|left)\b"
    # "errors: 12", "failures=12"
    rf"|\b(?P<before>{_BAD})\s*[:=]\s*(?P<m>\d{{1,9}})(?![\w.:/-]*\d){_UNIT}"
)
"""As text: to compile it takes a thirtieth of a start, and only a gate that has failed needs it."""
_ALONE = re.compile(r"\s*(\d{1,9})\s*")


@dataclasses.dataclass(frozen=True, slots=True)
class Circle:
    """How long the loop has gone in a circle, a phrase that says which, how many times the bound it
    may last, and how long in any case."""

    length: int
    what: str
    times: int = 1
    least: int = 1

    def room(self, bound: int) -> int:
        """Iterations that are left of the bound."""
        longest = min(self.times * bound, max(bound, HISTORY))
        return max(longest, self.least) - self.length


def aimless(count: int, bound: int) -> tuple[str, bool]:
    """What is said of so many iterations of which nothing came ("" for few), and whether it is said
    for the first time. Goals that repeat have ended the loop before."""
    most = AIMLESS * bound
    if not 0 < most < count:
        return "", False
    text = (
        f"no item ticked, no claim and no other result of a gate for more than {most} iterations in a "
        f"row ({AIMLESS} times max_stagnation); the loop goes on"
    )
    return text, count == most + 1


def _suffix(goals: Sequence[str], period: int) -> int:
    """Length of the longest suffix that repeats with `period`."""
    length = min(period, len(goals))
    while length < len(goals) and goals[-1 - length] == goals[-1 - length + period]:
        length += 1
    return length


def circle(
    goals: Sequence[str], without_progress: int, gate_repeats: int = 0, *, bound: int = HISTORY
) -> Circle:
    """Judge marks of goals (oldest first), iterations without progress, and identical gate
    failures in a row: the circle that is nearest to its end."""
    same = _suffix(goals, 1)
    # A goal that was asked for once repeats nothing.
    found = [Circle(same if same > 1 else 0, "the same goal", CHURN)]
    for period in (2, 3):
        length = _suffix(goals, period)
        # Two whole rounds at least: A B A is not yet a circle.
        if length >= 2 * period and length > found[0].length:
            found.insert(0, Circle(length, f"{period} goals in turn", CHURN))
    found.append(Circle(without_progress, "no change of content"))
    if gate_repeats > 1:
        found.append(Circle(gate_repeats, "the same gate failure", least=3))
    going = [one for one in found if one.length]
    return min(going, key=lambda one: one.room(bound), default=found[0])


def left(gate: GateResult) -> int:
    """What is left to do for a gate, as it says it: the last count of each kind of trouble that its
    output names, or the number that is its last line."""
    if gate.ok:
        return GREEN
    counts: dict[str, int] = {}
    for found in re.finditer(_COUNT, gate.output, re.IGNORECASE):
        word = found["after"] or found["before"]
        counts[word.lower().rstrip("s")] = int(found["n"] or found["m"])
    if counts:
        return sum(counts.values())
    last = next((line for line in reversed(gate.output.splitlines()) if line.strip()), "")
    alone = _ALONE.fullmatch(last)
    return int(alone[1]) if alone else UNCOUNTED


def advanced(
    best: Best,
    ticked: int,
    gates: Sequence[GateResult],
    *,
    marks: Sequence[str] = (),
    changed: bool = True,
) -> tuple[Best, bool]:
    """The best that is reached by now, and whether that is better than before. What a gate says for
    the first time is where it starts from; an item that is ticked once more (`marks`: see
    `Iteration.ticked_marks`) is none that was done; a count that falls although no content `changed` is
    none of the agent's doing."""
    ticks, known = best.ticks + ticked, dict(best.gates)
    again = bool(marks) and set(best.done).issuperset(marks)
    forward = ticks > best.peak and not again
    done = tuple(dict.fromkeys((*best.done, *marks)))[-DONE:]
    for gate in gates:
        name, now = mark(gate.command), left(gate)
        forward |= now < known.get(name, now) and (changed or now == GREEN)
        known[name] = min(now, known.get(name, now))
    return Best(ticks, max(ticks, best.peak), known, done), forward
