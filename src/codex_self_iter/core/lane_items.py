"""The items of a plan as lanes take them: one lane for each checkbox of the top level, with all that
is below it.

An item is known by its words, for lines and numbers move when a person edits the plan."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

from codex_self_iter.core.plan import Item, Plan, parse_plan, tick
from codex_self_iter.core.text import one_line

_LONGEST_KEY = 300


@dataclasses.dataclass(frozen=True, slots=True)
class LaneItem:
    """One item of the top level.

    Attributes:
        key: its words; the second of the same words has " (2)" behind them.
        number: from 1, in the order of the plan, those that are done included.
        title: its words without check and what it comes after.
        body: its lines as they stand in the plan, with what is below it.
        done: it is ticked.
        after: the numbers of the items that it waits for."""

    key: str
    number: int
    title: str
    body: str
    done: bool = False
    after: tuple[int, ...] = ()


def items(text: str) -> tuple[LaneItem, ...]:
    """The items of a plan's text. What `(after: …)` names and is not there counts for nothing."""
    plan, lines = parse_plan(text), text.splitlines()
    tops = _tops(plan)
    seen: Counter[str] = Counter()
    found = []
    for number, index in enumerate(tops, 1):
        item = plan.items[index]
        words = one_line(item.title, _LONGEST_KEY)
        seen[words] += 1
        last = tops[number] if number < len(tops) else len(plan.items)
        end = plan.items[last].line - 1 if last < len(plan.items) else len(lines)
        found.append(
            LaneItem(
                key=words if seen[words] == 1 else f"{words} ({seen[words]})",
                number=number,
                title=words,
                body="\n".join(_of_item(lines[item.line - 1 : end])),
                done=item.ticked,
                after=tuple(
                    int(word)
                    for word in item.after
                    if word.isascii() and word.isdecimal() and 0 < int(word) <= len(tops)
                ),
            )
        )
    return tuple(found)


def _tops(plan: Plan) -> list[int]:
    """The places of the items of the top level."""
    numbers = plan.numbers()
    return [at for at, number in enumerate(numbers) if not at or number != numbers[at - 1]]


def _of_item(lines: list[str]) -> list[str]:
    """The lines up to the next heading, without empty ones at the end."""
    fenced, kept = False, list[str]()
    for at, line in enumerate(lines):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        if at and not fenced and line.startswith("#"):
            break
        kept.append(line)
    while kept and not kept[-1].strip():
        kept.pop()
    return kept


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
