"""A plan as it is shown: its items, their ticks, which is next, and since when they are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from codex_self_iter.core.marks import mark
from codex_self_iter.core.plan import Item, Plan
from codex_self_iter.core.text import clean, shorten


class Line(NamedTuple):
    """An item. `level`: how deep it is nested; `since`: the iteration that ticked it, None where it
    is not known."""

    item: Item
    level: int
    next: bool
    since: int | None

    @property
    def title(self) -> str:
        """What is to be done, without its check, on one clean line."""
        return shorten(self.item.title, 500)

    @property
    def checks(self) -> tuple[str, ...]:
        """The commands that must succeed before it counts as done, clean."""
        return tuple(clean(check, 500) for check in self.item.checks)


def lines(plan: Plan, ticked: Mapping[str, int]) -> list[Line]:
    """All items in their order; `ticked`: by mark (`core.marks`), the last iteration that ticked."""
    following, around, found = plan.next_open(), list[int](), list[Line]()
    count: dict[str, int] = {}
    for item in plan.items:
        while around and around[-1] >= item.depth:
            around.pop()
        since = None
        if item.ticked and ticked:
            count[item.text] = count.get(item.text, 0) + 1
            since = ticked.get(mark(f"{item.text} {count[item.text]}"))
        found.append(Line(item, len(around), item is following, since))
        around.append(item.depth)
    return found


def around_next(every: Sequence[Line], most: int) -> tuple[int, Sequence[Line], int]:
    """How many items are left out before, those that are shown, and how many are left out after: at
    most `most`, with the next one among them."""
    following = next((n for n, line in enumerate(every) if line.next), len(every))
    first = max(0, min(following - most // 4, len(every) - most))
    shown = every[first : first + most]
    return first, shown, len(every) - first - len(shown)
