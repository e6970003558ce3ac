"""Checks of plan items as further gates of an iteration: which are due.

An item that this iteration's runs have ticked is due whether it is still ticked or not: a
supervisor that was killed after it had taken the tick back comes here once more. With a claim every
open item is due, too, and those that earlier runs have ticked. What a person has ticked is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

from codex_self_iter.core.marks import mark
from codex_self_iter.core.plan import Item, parse_plan
from codex_self_iter.core.state import Iteration


class Due(NamedTuple):
    """An item whose checks are to be run. `fresh`: this iteration ticked it."""

    item: Item
    mark: str
    fresh: bool


def due(text: str, opened: Iteration, done: Collection[str]) -> Iterator[Due]:
    """The items of a plan's text whose checks are due. `done`: marks of what runs have ticked."""
    count: Counter[str] = Counter()
    known, new = frozenset(done), frozenset(opened.ticked_marks)
    # as `plan.newly_ticked` counts
    for item in sorted(parse_plan(text).items, key=lambda one: not one.ticked):
        count[item.text] += 1
        if not item.checks:
            continue
        name = mark(f"{item.text} {count[item.text]}")
        fresh = name in new
        if fresh or (opened.claim and (not item.ticked or name in known)):
            yield Due(item, name, fresh)
