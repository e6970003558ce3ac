"""The items of a plan as lanes take them: one lane for each checkbox of the top level, with all that
is below it.

An item is known by its words, for lines and numbers move when a person edits the plan."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

from codex_self_iter.core.plan import MAX_LINES, Item, Reading, parse_plan, read_plan, tick
from codex_self_iter.core.text import one_line

_LONGEST_KEY = 300
_NO_TITLE = ("", " ", "\t", "-", "*", "+")
"""So no line begins that is a heading by the line below it."""


@dataclasses.dataclass(frozen=True, slots=True)
class LaneItem:
    """One item of the top level.

    Attributes:
        key: its words; the second of the same words has " (2)" behind them. No two have the same.
        number: from 1, in the order of the plan, those that are done included.
        title: its words without check and what it comes after.
        body: its lines as they stand in the plan, with what is below it.
        done: it is ticked, and all below it.
        after: the numbers of the items that it waits for."""

    key: str
    number: int
    title: str
    body: str
    done: bool = False
    after: tuple[int, ...] = ()


def items(text: str) -> tuple[LaneItem, ...]:
    """The items of a plan's text. What `(after: …)` names and is not there counts for nothing."""
    reading = read_plan(text)
    plan, found = reading.plan, list[LaneItem]()
    lines = [
        line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")[:MAX_LINES]
    ]
    keys, numbers, seen = set[str](), plan.numbers(), Counter[str]()
    groups = [
        [item for item, _ in group]
        for _, group in itertools.groupby(
            zip(plan.items, numbers, strict=True), key=lambda pair: pair[1]
        )
    ]
    ends = [*(group[0].line - 1 for group in groups[1:]), len(lines)]
    for number, (group, end) in enumerate(zip(groups, ends, strict=False), 1):
        top = group[0]
        words = one_line(top.title, _LONGEST_KEY)
        key = words
        while key in keys or not seen[words]:
            seen[words] += 1
            key = words if seen[words] == 1 else f"{words} ({seen[words]})"
        keys.add(key)
        found.append(
            LaneItem(
                key=key,
                number=number,
                title=words,
                body="\n".join(_of_item(lines, top.line, end, reading)),
                done=all(item.ticked for item in group),
                after=tuple(_numbers(top.after, len(groups))),
            )
        )
    return tuple(found)


def _of_item(lines: list[str], first: int, end: int, reading: Reading) -> list[str]:
    """The lines from this number up to the next heading or ruler, without empty ones at the end."""
    ends = (n for n in range(first + 1, end + 1) if n in reading.sections)
    if section := next(ends, 0):
        end = section - 1
        title = reading.loose.get(end, "")
        if set(lines[end].strip()) in ({"="}, {"-"}) and title[:1] not in _NO_TITLE:
            end -= 1
    kept = lines[first - 1 : end]
    while kept and not kept[-1].strip():
        kept.pop()
    return kept


def _numbers(words: Iterable[str], most: int) -> Iterator[int]:
    """The numbers up to `most` that are among these words, each once."""
    for word in dict.fromkeys(words):
        if word.isascii() and word.isdecimal() and len(word) < 10 and 0 < int(word) <= most:
            yield int(word)


def open_boxes(text: str, keys: Iterable[str]) -> list[Item]:
    """Of the items with these keys every open checkbox, with those below them."""
    wanted, plan = set(keys), parse_plan(text)
    chosen = {item.number for item in items(text) if item.key in wanted}
    both = zip(plan.items, plan.numbers(), strict=True)
    return [item for item, number in both if number in chosen and not item.ticked]


def ticked(text: str, keys: Iterable[str]) -> str:
    """The plan's text with these items ticked, and all below them."""
    for item in open_boxes(text, keys):
        text = tick(text, item)  # one character by another: the other places stay
    return text
