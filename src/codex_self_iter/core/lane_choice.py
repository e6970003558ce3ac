"""What the state of lanes says: what may be begun, what lands next, how it ends. Pure."""

from __future__ import annotations

import string
from collections.abc import Iterable

from codex_self_iter.core.lane_items import LaneItem
from codex_self_iter.core.lanes import (
    OVER,
    RESTING,
    Finish,
    Lane,
    Lanes,
    LaneState,
    Rules,
)
from codex_self_iter.core.terms import State
from codex_self_iter.core.text import counted, listed

RIVALS = frozenset(LaneState) - OVER - {LaneState.KEPT}
"""Of the lanes of one item in these states one is to be chosen."""
_CHOSEN = frozenset({LaneState.LANDING, LaneState.LANDED, LaneState.LOST})
"""Where a lane is in one of these, its item has all candidates."""


def groups(state: Lanes) -> dict[str, list[Lane]]:
    """The lanes of each item, by its key."""
    found: dict[str, list[Lane]] = {}
    for one in state.lanes:
        found.setdefault(one.item, []).append(one)
    return found


def wanting(state: Lanes, rules: Rules) -> list[LaneItem]:
    """The items that more lanes are to be begun for, in order."""
    left, lanes = state.open_items, groups(state)
    waiting = {one.number for one in left}
    return [
        item
        for item in left
        if len(own := lanes.get(item.key, [])) < rules.candidates
        and not waiting.intersection(item.after)
        and not any(one.state in _CHOSEN for one in own)
    ]


def next_group(state: Lanes, rules: Rules) -> tuple[str, ...]:
    """The lanes to be landed together, the longest ready first; of a red batch a half."""
    lanes, unfinished = groups(state), {one.key for one in wanting(state, rules)}
    ready = [
        one
        for one in state.of(LaneState.READY)
        if one.item not in unfinished
        and sum(other.state in RIVALS for other in lanes[one.item]) == 1
    ]
    names = [one.id for one in sorted(ready, key=lambda one: (one.since, one.number))]
    if suspects := [one for one in state.suspects if one in names]:
        return tuple(suspects[: max(1, len(suspects) // 2)])
    return tuple(names[: rules.batch])


def better(best: Lane, other: Lane) -> str:
    """Why a candidate was chosen and not the other one."""
    if other.state is not LaneState.READY:
        return "done"
    if best.verdict == "best":
        return f"the best for the reviewer{f': {best.praise}' if best.praise else ''}"
    return "smaller" if best.size < other.size else "as small, and comes first"


def slots(state: Lanes, but: str = "") -> set[int]:
    """The ranges of ports that are taken, but for those of one lane."""
    at_work = {one.id for one in state.at_work}
    return {one.slot for one in state.lanes if one.id != but and (one.place or one.id in at_work)}


def free(taken: Iterable[int]) -> int:
    """The first number that is not taken."""
    numbers = set(taken)
    return next(n for n in range(len(numbers) + 1) if n not in numbers)


def free_id(state: Lanes, number: int, candidate: int, rules: Rules) -> str:
    """An id that no lane ever had."""
    letter = string.ascii_lowercase[candidate % 26] if rules.candidates > 1 else ""
    first, taken = f"{number}{letter}", {one.id for one in state.lanes}
    ids = (first if n == 1 else f"{first}-{n}" for n in range(1, len(taken) + 2))
    return next(one for one in ids if one not in taken)


def finish(state: Lanes) -> Finish:
    """How it ends when nothing is at work any more."""
    left = state.open_items
    if state.items and not left and not state.held:
        landed = "all items have landed, and the gates are green there"
        return Finish(State.COMPLETED, landed if state.settled else "all items are ticked")
    if state.halt:
        return Finish(State.STOPPED, state.halt)
    if state.spent:
        return Finish(State.BLOCKED, state.spent)
    keys = {one.key for one in left}
    bounded = [one for one in _bounded(state) if one.item in keys]
    if bounded and not any(one.item in keys for one in state.of(*RESTING)):
        which = listed([one.id for one in bounded])
        them = "lanes" if len(bounded) > 1 else "lane"
        return Finish(
            State.STOPPED, f"{bounded[0].bounded}: the next start goes on with {them} {which}"
        )
    if not state.items:
        return Finish(State.BLOCKED, "the plan has no items")
    if not left:
        why = f"all items have landed beside the target: {state.held}"
        return Finish(State.BLOCKED, why)
    return Finish(State.BLOCKED, f"{counted(len(left), 'item')} left: {listed(_whys(state, left))}")


def _bounded(state: Lanes) -> list[Lane]:
    """The lanes that go on at the next start."""
    return [one for one in state.lanes if one.bounded and one.id in state.idle]


def _whys(state: Lanes, left: tuple[LaneItem, ...]) -> list[str]:
    """Why the items that are left cannot go on, those first for which a person can do something."""
    numbers, keys = {one.number for one in left}, {one.key for one in left}
    resting = [one for one in (*state.of(*RESTING), *_bounded(state)) if one.item in keys]
    known = {one.item for one in resting}
    last = {one.item: one for one in state.of(*OVER) if one.item in keys - known}
    whys = [f"lane {one.id} ({one.why or one.state.value})" for one in (*resting, *last.values())]
    for one in left:
        if one.key not in known and one.key not in last:
            others = [str(number) for number in one.after if number in numbers]
            whys.append(f"item {one.number} waits for {listed(others)}")
    return whys
