"""What is wrong with a plan, and what would make it better.

A fault is what this program would read otherwise than it was meant, or not at all. Everything else
is a suggestion: items that are too much for one sitting, or that no machine can verify.

Pure, and light to import: standard library only, no dataclasses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from codex_self_iter.core.plan import (
    MAX_LINES,
    Item,
    Plan,
    Reading,
    newlines,
    parse_plan,
    read_plan,
)
from codex_self_iter.core.shell import hollow
from codex_self_iter.core.text import listed, shorten

PLAN = """\
# Plan

One item a line, small enough for one sitting. The agent ticks what is done and may add items.
An indented line `check: COMMAND` below an item says what must succeed before it is done.

- [ ] Read the repository and write down here what has to be done, item by item
- [ ] Do the items, each with its tests
- [ ] Check the whole against TASK.md
"""
"""The plan as `init` writes it."""

LONG = 200
"""Characters of one item, without code and check: some thirty words."""
MANY_ANDS = 2
MANY_SENTENCES = 3
"""Sentences, or parts with a semicolon between them."""

_BULLET = r"(?:[-*+•\u2013\u2014]|[0-9]{1,9}[.)])"
_BOX = rf"(\s*)(?:({_BULLET})(\s*))?(\[[^\[\]]{{0,3}}\]|\([ xX]?\)|[☐☑☒])(\s*)(.*)"
_NEARLY_ITEM = re.compile(_BOX)
_MARKS = frozenset("xXvVyo✓✔✗✘√-~+*/.>?!_")
_CHECK = re.compile(r"[ \t]*(?:[-*+][ \t]+)?check:[ \t]*(.*)")
_CODE = re.compile(r"`[^`]*`")
_AND = re.compile(r"\band\b", re.IGNORECASE)
_END = re.compile(r"(?<![ .]\w)(?<!\betc)[.;!?][ \t]+(?=\S)")


class Remark(NamedTuple):
    """One thing to say of a plan.

    `line` counts from 1; `rule` is stable; `fault`: it makes the plan wrong, else it is a
    suggestion; `what` is said and `mend` says what to do."""

    line: int
    rule: str
    fault: bool
    what: str
    mend: str


def lint(text: str, *, gates: bool = False) -> list[Remark]:
    """Everything there is to say of a plan's text, by line. `gates`: commands are configured that
    must succeed before a completion is believed. Never raises."""
    text = newlines(text)
    reading = read_plan(text)
    if not text.strip():
        return [
            Remark(1, "empty", True, "the plan is empty", "write items such as `- [ ] first item`")
        ]
    if _untouched(text):
        line = reading.plan.items[0].line
        what = "the plan is still as `init` wrote it"
        return [Remark(line, "placeholder", True, what, "write down what is to be done")]
    found = [*_unread(text, reading), *_order(reading.plan), *_tabs(text, reading.plan)]
    found += [*_items(reading), *_verifiable(reading.plan, gates)]
    return sorted(found, key=lambda one: (one.line, not one.fault, one.rule))


def _untouched(text: str) -> bool:
    lines = {line.strip() for line in text.splitlines()}
    return lines.issubset({line.strip() for line in PLAN.splitlines()}) and "- [" in text


# -- what is not read as it was meant --------------------------------------------------------------


def _unread(text: str, reading: Reading) -> Iterator[Remark]:
    if text.count("\n") > MAX_LINES:
        what = f"nothing below line {MAX_LINES} is read"
        yield Remark(MAX_LINES, "too-long", True, what, "shorten the plan")
    if reading.unclosed:
        what = (
            "the code fence or comment that begins here is never closed: no item below it is read"
        )
        yield Remark(reading.unclosed, "unclosed", True, what, "close it")
    for number, line in reading.loose.items():
        if problem := _nearly_item(line):
            mend = "write `- [ ] text`, or `- [x] text` for an item that is done"
            yield Remark(
                number, "not-an-item", True, f"this is not read as an item: {problem}", mend
            )
        elif match := _CHECK.fullmatch(line):
            what = "this check belongs to no item" if match[1] else "this check has no command"
            mend = "write `check: COMMAND` below an item, with more indentation than it"
            yield Remark(number, "stray-check", True, what, mend)
    if not reading.plan.items:
        yield Remark(
            1, "empty", True, "the plan has no item", "write items such as `- [ ] first item`"
        )


def _nearly_item(line: str) -> str:
    """Why a line that looks like an item is none; "" where it does not look like one."""
    match = _NEARLY_ITEM.fullmatch(line)
    if match is None or _is_text(match):
        return ""
    indent, bullet, gap, box, space, rest = match.groups()
    blanks = f"{indent}{gap or ''}{space}{box[1:-1] if box[1:-1].isspace() else ''}"
    if odd := next((one for one in blanks if one not in " \t"), ""):
        return f"a blank in it is no plain one (U+{ord(odd):04X})"
    if box not in ("[ ]", "[x]", "[X]", "[\t]"):
        return f"its box is `{box}`"
    if bullet is None:
        return "nothing stands before its box"
    if bullet in "•\u2013\u2014":
        return f"`{bullet}` begins no list"
    if not gap:
        return f"there is no blank after its `{bullet}`"
    if not rest:
        return "it has no text"
    return "it is indented like code" if space else "there is no blank after its box"


def _is_text(match: re.Match[str]) -> bool:
    """Whether a box is none: a link, a footnote, a word in brackets."""
    _, bullet, _, box, space, rest = match.groups()
    inside = box[1:-1].strip() if len(box) > 1 else ""
    if box[0] == "[" and not space and rest[:1] in ("(", "[", ":"):
        return True
    if bullet is None and (box[0] == "(" or not space or not rest):
        return True
    return bool(inside) and inside not in _MARKS


def _order(plan: Plan) -> Iterator[Remark]:
    """`(after: …)` that names no item, and a circle of them."""
    numbers = plan.numbers()
    last = numbers[-1] if numbers else 0
    lines: dict[int, int] = {}
    waits: dict[int, set[int]] = {}
    for item, number in zip(plan.items, numbers, strict=True):
        lines.setdefault(number, item.line)
        for word in item.after:
            named = int(word) if word.isascii() and word.isdigit() and len(word) < 9 else 0
            if 1 <= named <= last:
                waits.setdefault(number, set()).add(named)
                continue
            what = f"`(after: {shorten(word, 40)})` names no item"
            mend = f"name items of the top level by number, 1 to {last}"
            yield Remark(item.line, "after", True, what, mend)
    if circle := _circle(waits):
        path = ", which waits for ".join(f"item {number}" for number in (*circle, circle[0])[1:9])
        what = f"item {circle[0]} can never begin: it waits for {path}"
        yield Remark(lines[circle[0]], "after", True, what, "take one `(after: …)` out")


def _circle(waits: Mapping[int, set[int]]) -> list[int]:
    """Numbers of items that wait for each other in a circle, the lowest first; [] without one."""
    free = {named for all_named in waits.values() for named in all_named} - waits.keys()
    behind: dict[int, list[int]] = {}
    for number, all_named in waits.items():
        for named in all_named:
            behind.setdefault(named, []).append(number)
    left, ready = {number: len(named) for number, named in waits.items()}, [*free]
    while ready:
        for number in behind.get(ready.pop(), ()):
            left[number] -= 1
            ready += [number] if not left[number] else []
    stuck = {number for number, count in left.items() if count}
    path: dict[int, int] = {}
    at = min(stuck, default=0)
    while at and at not in path:
        path[at] = len(path)
        at = min(waits[at] & stuck)
    circle = [*path][path[at] :] if at else []
    first = circle.index(min(circle)) if circle else 0
    return circle[first:] + circle[:first]


def _tabs(text: str, plan: Plan) -> Iterator[Remark]:
    """Items that are indented with a tab where others are with blanks: who is below whom depends on
    the width of a tab."""
    lines = text.split("\n", MAX_LINES)
    indents = [(item, _indent(lines[item.line - 1])) for item in plan.items]
    if not any(" " in indent for _, indent in indents):
        return
    for item, indent in indents:
        if "\t" in indent:
            what = (
                f"this item is indented with a tab, others with blanks: read as column {item.depth}"
            )
            yield Remark(item.line, "tabs", True, what, "indent with blanks everywhere")


def _indent(line: str) -> str:
    line = line.removeprefix("\ufeff")
    return line[: len(line) - len(line.lstrip(" \t"))]


# -- what could be better --------------------------------------------------------------------------


def _items(reading: Reading) -> Iterator[Remark]:
    """Items that are too large, without a check, there twice, or placeholders."""
    plan = reading.plan
    placeholders = {item.text for item in parse_plan(PLAN).items}
    seen: dict[tuple[int, str], int] = {}
    above: list[tuple[Item, bool]] = []
    for index, item in enumerate(plan.items):
        while above and above[-1][0].depth >= item.depth:
            above.pop()
        parent = above[-1][0].line if above else 0
        checked = bool(item.checks or item.runnable) or bool(above and above[-1][1])
        above.append((item, checked))
        first = seen.setdefault((parent, _same(item.title)), item.line)
        if item.ticked:
            continue
        if first != item.line:
            what = f"the same item is in line {first}"
            yield _suggest(item, "duplicate", what, "take one out, or say what differs")
        if item.text in placeholders:
            what = "this item is still as `init` wrote it"
            yield _suggest(item, "placeholder", what, "write down what is to be done")
        below = plan.items[index + 1] if index + 1 < plan.total else None
        if below is None or below.depth <= item.depth:
            yield from _leaf(item, reading.loose, checked)
        for check in filter(hollow, item.checks):
            what = f"the check `{shorten(check, 40)}` succeeds whatever is wrong"
            yield _suggest(item, "no-check", what, "name a command that can fail")


def _leaf(item: Item, loose: Mapping[int, str], checked: bool) -> Iterator[Remark]:
    """What is asked of an open item that has none below it."""
    if large := _large(_prose(item, loose)):
        mend = "split it into items that can be checked one by one"
        yield _suggest(item, "too-large", f"the item may be too large ({large})", mend)
    if not checked:
        mend = "say below it, indented, what must succeed: `check: COMMAND`"
        yield _suggest(item, "no-check", "the item has no check", mend)


def _suggest(item: Item, rule: str, what: str, mend: str) -> Remark:
    return Remark(item.line, rule, False, what, mend)


def _prose(item: Item, loose: Mapping[int, str]) -> str:
    """An item's words, with the lines that go on with them, without code."""
    words, number = [item.title], item.line + 1
    while number in loose and not re.match(rf"[ \t]*{_BULLET}(?:[ \t]|$)", loose[number]):
        words.append(loose[number].strip())
        number += 1
    return _CODE.sub("_", " ".join(words))


def _large(prose: str) -> str:
    """What makes an item large, or ""."""
    ands, parts = len(_AND.findall(prose)), len(_END.findall(prose)) + 1
    return listed([
        *([f"{len(prose)} characters"] if len(prose) > LONG else []),
        *([f"{ands} times \"and\""] if ands >= MANY_ANDS else []),
        *([f"{parts} sentences"] if parts >= MANY_SENTENCES else []),
    ])  # fmt: skip


def _same(title: str) -> str:
    return " ".join(title.casefold().split()).rstrip(".;:,!")


def _verifiable(plan: Plan, gates: bool) -> Iterator[Remark]:
    checked = Counter(bool(item.checks or item.runnable) for item in plan.items)
    if plan.items and not checked[True] and not gates:
        what = (
            "nothing here can be verified by a machine: no item has a check, and no gate is known"
        )
        mend = "give items a check, or name your tests under [verify] commands"
        yield Remark(plan.items[0].line, "nothing-to-verify", False, what, mend)
