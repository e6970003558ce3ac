"""Noticing that a loop goes in circles.

Two measures, each compared with `max_stagnation`:

    goals      how long the loop has been asking for the same thing: the longest suffix of the goal
               history that repeats with period 1 (A A A), 2 (A B A B) or 3 (A B C A B C)
    progress   iterations in a row without a change of content"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import unicodedata
from collections.abc import Sequence

HISTORY = 64
"""Goals remembered; more than any sensible `max_stagnation`."""

_NOT_WORD = re.compile(r"[\W_]+")


def normalise(goal: str) -> str:
    """Fold case, white space and punctuation, so that "Fix  tests!" equals "fix tests"."""
    folded = unicodedata.normalize("NFKC", goal).casefold()
    return _NOT_WORD.sub(" ", folded).strip()


def mark(goal: str) -> str:
    """Tells goals apart that are not the same after `normalise`, and says nothing of them: a secret
    in one would be no longer known for one, once it is folded."""
    return hashlib.sha256(normalise(goal).encode("utf-8", "replace")).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, slots=True)
class Circle:
    """How long the loop has gone in a circle, and a phrase that says which."""

    length: int
    what: str


def _suffix(goals: Sequence[str], period: int) -> int:
    """Length of the longest suffix that repeats with `period`."""
    length = min(period, len(goals))
    while length < len(goals) and goals[-1 - length] == goals[-1 - length + period]:
        length += 1
    return length


def circle(goals: Sequence[str], without_progress: int, gate_repeats: int = 0) -> Circle:
    """Judge marks of goals (oldest first), iterations without progress, and identical gate
    failures in a row."""
    same = _suffix(goals, 1)
    # A goal that was asked for once repeats nothing.
    best = Circle(same if same > 1 else 0, "the same goal")
    for period in (2, 3):
        length = _suffix(goals, period)
        # Two whole rounds at least: A B A is not yet a circle.
        if length >= 2 * period and length > best.length:
            best = Circle(length, f"{period} goals in turn")
    if without_progress > best.length:
        best = Circle(without_progress, "no change of content")
    if gate_repeats >= 3 and gate_repeats > best.length:
        best = Circle(gate_repeats, "the same gate failure")
    return best
