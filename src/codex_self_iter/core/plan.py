"""The plan: a Markdown file with checkboxes, read without a Markdown library.

What counts as an item: a list line (`-`, `*`, `+`, `1.`, `1)`) whose text starts with `[ ]`, `[x]`
or `[X]`, at any depth, as on a forge's web page. What does not: anything inside a fenced code block
or an HTML comment, an indented code block outside a list, a link such as `[x](page)`, a checkbox
without text.

Blocks of shell commands (fences marked sh, bash, shell or console) belong to the item above them,
up to the next item, the next heading or ruler, or a plain list line that is no deeper than the
item. They may be indented or not.

A check is a shell command that says whether a step is done: `check: COMMAND`, in lower case, on an
indented line of its own below the item (with or without a list marker), or at the end of the item's
own line, after `;`, `,`, `.` or a dash, in parentheses, or in backticks. Where the command begins
with a backtick, every code span is one, and the rest is text. `(after: 2, 3)` in an item names by
number those of the top level that come before it.

Pure, and light to import (`status` reads it): standard library only, no dataclasses."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SHELLS = {
    "sh": "sh",
    "shell": "sh",
    "console": "console",
    "shell-session": "console",
    "bash": "bash",
}
"""First word of a fence's info string -> what reads the block. Every other fence is text."""

_BULLET = r"(?:[-*+]|[0-9]{1,9}[.)])"
_ITEM = re.compile(rf"([ \t]*){_BULLET}[ \t]+\[([ \txX])\][ \t]+(\S.*)")
_LIST_LINE = re.compile(rf"([ \t]*){_BULLET}(?:[ \t]|$)")
_FENCE = re.compile(rf"([ \t]*)(?:{_BULLET}[ \t]+)?(`{{3,}}|~{{3,}})(.*)")
_CHECK_LINE = re.compile(r"[ \t]+(?:[-*+][ \t]+)?check:[ \t]*(\S.*)")
_INLINE_CHECK = re.compile(
    r"(?:[;,.\u2013\u2014][ \t]+|[ \t]--?[ \t]+|\()check:[ \t]*(?=\S)|[ \t]check:[ \t]*(?=`)"
)
_SPAN = re.compile(r"`([^`]+)`")
_AFTER = re.compile(r"[ \t]?\(after:([^()]*)\)")
_LONE_RETURN = re.compile(r"\r(?!\n)")
_SECTION = re.compile(r" {0,3}(?:#{1,6}(?:[ \t]|$)|=+[ \t]*$|(?:[-*_][ \t]*){3,}$|-{2,}[ \t]*$)")


MAX_LINES = 50_000
"""Lines of a plan that are read: a tenth of a second. Nobody ticks items below them."""
MAX_DROPPED = 500
"""Items remembered that were taken out of a plan."""


class Block(NamedTuple):
    """A fenced block of shell commands.

    `shell` is "sh", "bash" or "console"; `script` is the block's text without the fence's
    indentation; `line` is the line of the opening fence, counted from 1; `closed` is False when the
    file ended before the fence did."""

    shell: str
    script: str
    line: int
    closed: bool

    @property
    def commands(self) -> str:
        """What is to be run: the script, or for a console block the lines after its `$ `
        prompts."""
        return _prompted(self.script) if self.shell == "console" else self.script

    @property
    def empty(self) -> bool:
        """True when there is nothing to run: no lines, or comments only."""
        lines = (line.strip() for line in self.commands.split("\n"))
        return all(not line or line.startswith("#") for line in lines)


class Item(NamedTuple):
    """One checkbox.

    `text` is the rest of its line; `line` counts from 1; `ticked` is its state; `depth` is the
    column of the list marker (tabs to multiples of four); `mark` is the index in the plan's text of
    the character between the brackets; `below` are the checks on lines of their own."""

    text: str
    line: int
    ticked: bool
    depth: int
    mark: int
    blocks: tuple[Block, ...] = ()
    below: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The text without its check and what it comes after."""
        return _split(self.text)[0] or self.text

    @property
    def checks(self) -> tuple[str, ...]:
        """The commands that must succeed before it counts as done, in the order of the file."""
        return (*_split(self.text)[1], *self.below)

    @property
    def after(self) -> tuple[str, ...]:
        """What stands in `(after: …)`, word by word."""
        return tuple(" ".join(_AFTER.findall(self.text)).replace(",", " ").split())

    @property
    def runnable(self) -> tuple[Block, ...]:
        """The blocks that have commands in them."""
        return tuple(block for block in self.blocks if not block.empty)


class Plan(NamedTuple):
    """All items of a plan in the order of the file."""

    items: tuple[Item, ...]

    @property
    def done(self) -> int:
        """Number of ticked items."""
        return sum(item.ticked for item in self.items)

    @property
    def total(self) -> int:
        """Number of items."""
        return len(self.items)

    def children(self, item: Item) -> tuple[Item, ...]:
        """The items nested under this one, at every depth."""
        below = self.items[self.items.index(item) + 1 :]
        end = next((n for n, other in enumerate(below) if other.depth <= item.depth), len(below))
        return below[:end]

    def numbers(self) -> tuple[int, ...]:
        """For each item the number, from 1, of the one of the top level that it is or belongs to."""
        found: list[int] = []
        number, top = 0, 0
        for item in self.items:
            if not found or item.depth <= top:
                number, top = number + 1, item.depth
            found.append(number)
        return tuple(found)

    def next_open(self) -> Item | None:
        """The item to work on now: the first open one, save that an item which has no commands of
        its own and open items under it waits for those."""
        for item in self.items:
            if not item.ticked and (
                item.runnable or all(child.ticked for child in self.children(item))
            ):
                return item
        return None


class Reading(NamedTuple):
    """A plan, and what of its text is none: for who looks for mistakes.

    `loose`: by number, the lines outside fences and comments that are no item and no check;
    `unclosed`: number of the line with the fence or comment that nothing closes, else 0;
    `sections`: numbers of the lines that are a heading, what underlines one, or a ruler."""

    plan: Plan
    loose: dict[int, str]
    unclosed: int
    sections: frozenset[int]


def parse_plan(text: str) -> Plan:
    """Read a plan. Never raises; a text without checkboxes gives an empty plan."""
    return read_plan(text).plan


def read_plan(text: str) -> Reading:
    """The same, with what is no item. Never raises."""
    reader = _Reader()
    items = reader.read(text)
    fence = reader.fence.line if reader.fence is not None else 0
    sections = frozenset(reader.sections)
    return Reading(Plan(tuple(items)), reader.loose, fence or reader.in_comment, sections)


def plan_progress(text: str) -> tuple[int, int, str | None]:
    """(ticked, all, text of the last ticked item in the order of the file) for `status`."""
    plan = parse_plan(text)
    ticked = [item.text for item in plan.items if item.ticked]
    return len(ticked), plan.total, ticked[-1] if ticked else None


def open_items(text: str) -> list[str]:
    """Texts of the items that are not ticked."""
    return [item.text for item in parse_plan(text).items if not item.ticked]


def ticks(before: str, after: str) -> int:
    """Items that were ticked between two texts of a plan, less those that were unticked. What was
    added as ticked was not ticked; one whose text was changed with its tick was."""
    if before == after:
        return 0
    then, now = _by_text(before), _by_text(after)
    return _moved(then, now) - _moved(then[::-1], now[::-1])


def newly_ticked(before: str, after: str) -> list[str]:
    """What tells the ticked items of a text from those that were ticked in the one before: their
    texts, each with how many of that text are ticked by now."""
    (_, old), (_, new) = _by_text(before), _by_text(after)
    return [
        f"{text} {count}"
        for text, most in new.items()
        for count in range(old.get(text, 0) + 1, most + 1)
    ]


def items_differ(before: str, after: str) -> bool:
    """True when items came, went, were reworded, ticked or unticked between two texts of a plan."""
    return before != after and _by_text(before) != _by_text(after)


def _by_text(text: str) -> list[dict[str, int]]:
    """How often each text stands there, of open items and of ticked ones."""
    counts: list[dict[str, int]] = [{}, {}]
    for item in parse_plan(text).items:
        of_state = counts[item.ticked]
        of_state[item.text] = of_state.get(item.text, 0) + 1
    return counts


def _moved(then: list[dict[str, int]], now: list[dict[str, int]]) -> int:
    """Items that went from the first state to the second."""
    (old_from, old_to), (new_from, new_to) = then, now
    same = sum(
        max(0, min(count - new_from.get(text, 0), new_to.get(text, 0) - old_to.get(text, 0)))
        for text, count in old_from.items()
    )
    gone, come = (
        sum(a.values()) - sum(b.values()) for a, b in ((old_from, new_from), (new_to, old_to))
    )
    return max(same, min(gone, come))


def dropped(known: Iterable[str], before: str, after: str) -> tuple[str, ...]:
    """Texts of the items that were taken out while they were open: those that are `known` and not
    back, and those of `before` that are not in `after`. For each new item one, the most like it,
    counts as reworded."""
    old, new = parse_plan(before).items, parse_plan(after).items
    there = Counter(item.text for item in new)
    lost = tuple(text for text in dict.fromkeys(known) if not there[text])
    gone = [*(Counter(open_items(before)) - there).elements()]
    come = [*(there - Counter(item.text for item in old) - Counter(known)).elements()]
    if len(come) >= len(gone):
        return lost
    for text in come[:MAX_DROPPED]:
        words = _words(text)
        likest = max(gone[:MAX_DROPPED], key=lambda one: len(words & _words(one)))
        gone.remove(likest)
    return (*lost, *gone)[:MAX_DROPPED]


def followed(seen: Iterable[str], old: str, new: str) -> tuple[str, ...]:
    """Texts of the open items that came in while a plan was changed, step by step: those `seen` in
    earlier steps and not reworded in this one, and what `new` has more than `old`."""
    before, after = ({item.text for item in parse_plan(text).items} for text in (old, new))
    come = [_words(text) for text in itertools.islice(after - before, MAX_DROPPED)]
    kept = (text for text in seen if text in after or not _reworded(text, come))
    return tuple(dict.fromkeys((*kept, *dropped((), new, old))))[-MAX_DROPPED:]


def overwritten(seen: Iterable[str], before: str, after: str) -> tuple[str, ...]:
    """Those of the items `seen` in between that neither the text before nor the one after has."""
    there = {item.text for text in (before, after) for item in parse_plan(text).items}
    return tuple(text for text in seen if text not in there)


def _words(text: str) -> set[str]:
    return set(text.casefold().split())


def _reworded(text: str, come: Iterable[set[str]]) -> bool:
    """True when one of the new items has most words of this one, or this one most of its."""
    words = _words(text)
    return any(2 * len(words & other) > min(len(words), len(other)) for other in come)


def tick(text: str, item: Item) -> str:
    """The text with this item ticked: exactly one character differs. A ticked item changes nothing.

    Raises ValueError when the text has no checkbox at the item's place: it was edited since it was
    parsed."""
    box = text[item.mark - 1 : item.mark + 2]
    if len(box) != 3 or box[0] != "[" or box[1] not in " \txX" or box[2] != "]":
        raise ValueError(f"the plan changed: no checkbox at line {item.line} ({item.text})")
    if box[1] in "xX":
        return text
    return f"{text[: item.mark]}x{text[item.mark + 1 :]}"


def find_again(old: Plan, item: Item, new: Plan) -> Item | None:
    """An item of the old plan in a newer reading of it: the one with the same text, or None.

    Of several with the same text it is the same one by count; if their number changed, the one
    nearest to the old line."""
    before = [other.line for other in old.items if other.text == item.text]
    now = [other for other in new.items if other.text == item.text]
    if len(before) == len(now) and item.line in before:
        return now[before.index(item.line)]
    return min(now, key=lambda other: abs(other.line - item.line), default=None)


def content_hash(text: str) -> str:
    """16 hexadecimal digits that change when the text does."""
    from hashlib import blake2b  # kept out of the import: `status` does not need it

    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def newlines(text: str) -> str:
    """The text with a newline, in the same place, where a carriage return alone ends a line."""
    return _LONE_RETURN.sub("\n", text) if "\r" in text else text


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(index of the line's first character, line without its end)."""
    start = 1 if text.startswith("\ufeff") else 0
    for line in newlines(text)[start:].split("\n", MAX_LINES)[:MAX_LINES]:
        yield start, line.removesuffix("\r")
        start += len(line) + 1


def _column(indent: str) -> int:
    return len(indent.expandtabs(4))


def _split(text: str) -> tuple[str, tuple[str, ...]]:
    """(title, checks) of an item's own line."""
    if "check:" not in text and "(after:" not in text:
        return text, ()
    text = _AFTER.sub("", text)
    found = _INLINE_CHECK.search(text)
    if found is None:
        return text.strip(), ()
    end = len(text)
    if found[0].startswith("("):
        end = _closing(text, found.end())
    title = text[: found.start()].rstrip() + text[end + 1 :].rstrip()
    return title, _commands(text[found.end() : end])


def _closing(text: str, start: int) -> int:
    """Index of the parenthesis that closes one opened before `start`; the end where there is none."""
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if depth < 0:
            return index
    return len(text)


def _commands(text: str) -> tuple[str, ...]:
    """What stands after `check:`: one command, or those in backticks."""
    spans = _SPAN.findall(text) if text.startswith("`") else []
    found = (one.strip() for one in spans or [text.strip("` \t")])
    return tuple(one for one in found if one and "\0" not in one)  # no program takes a zero byte


def _prompted(script: str) -> str:
    """The commands of a console block: `$ command`, with `> ` lines going on after a backslash; the
    rest is output."""
    commands: list[str] = []
    goes_on = False
    for line in script.splitlines():
        if goes_on:
            command = line.removeprefix("> ")
        elif line.startswith("$ "):
            command = line[2:]
        else:
            continue
        commands.append(command)
        goes_on = command.endswith("\\")
    return "".join(f"{command}\n" for command in commands)


class _OpenFence:
    """A fenced code block whose end has not been seen yet."""

    def __init__(self, line: int, match: re.Match[str]) -> None:
        self.line = line
        self.indent = match[1]
        self.mark = match[2]
        words = match[3].split()
        self.shell = SHELLS.get(words[0].lower()) if words else None
        self.body: list[str] = []

    def ends_at(self, line: str) -> bool:
        stripped = line.strip(" \t")
        return len(stripped) >= len(self.mark) and set(stripped) == {self.mark[0]}

    def add(self, line: str) -> None:
        spaces = len(line) - len(line.lstrip(" \t"))
        self.body.append(line[min(spaces, len(self.indent)) :])

    def block(self, closed: bool) -> Block | None:
        if self.shell is None:
            return None
        return Block(self.shell, "".join(f"{line}\n" for line in self.body), self.line, closed)


class _Reader:
    """One pass over the lines. `item` is the item that a block of commands would belong to."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.blocks: dict[int, list[Block]] = {}
        self.checks: dict[int, list[str]] = {}
        self.around: list[int] = []
        """The items that a line may be in, the innermost last."""
        self.loose: dict[int, str] = {}
        self.sections: list[int] = []
        self.item: int | None = None
        self.fence: _OpenFence | None = None
        self.in_comment = 0
        """The line in which a comment was opened that goes on."""
        self.in_list = False
        self.after_blank = True

    def read(self, text: str) -> list[Item]:
        for number, (start, line) in enumerate(_lines(text), 1):
            if self.fence is not None:
                self._inside_fence(line)
            elif self.in_comment:
                self.in_comment = 0 if "-->" in line else self.in_comment
            else:
                self._outside(number, start, line)
            self.after_blank = not line.strip()
        if self.fence is not None:
            self._keep(self.fence.block(closed=False))
        for owner, blocks in self.blocks.items():
            self.items[owner] = self.items[owner]._replace(blocks=tuple(blocks))
        for owner, checks in self.checks.items():
            self.items[owner] = self.items[owner]._replace(below=tuple(checks))
        return self.items

    def _inside_fence(self, line: str) -> None:
        assert self.fence is not None
        if self.fence.ends_at(line):
            self._keep(self.fence.block(closed=True))
            self.fence = None
        else:
            self.fence.add(line)

    def _keep(self, block: Block | None) -> None:
        if block is not None and self.item is not None:
            self.blocks.setdefault(self.item, []).append(block)

    def _outside(self, number: int, start: int, line: str) -> None:
        content = line.lstrip(" \t")
        indent = _column(line[: len(line) - len(content)])
        if indent >= 4 and not self.in_list:
            self.loose[number] = line  # an indented code block
            return
        fence = _FENCE.fullmatch(line)
        if fence and not (fence[2][0] == "`" and "`" in fence[3]):
            self.fence = _OpenFence(number, fence)
        elif content.startswith("<!--"):
            self.in_comment = 0 if "-->" in content else number
        elif _SECTION.match(line):
            self.sections.append(number)
            self.item, self.in_list = None, False
            self.around.clear()
        elif not self._is_item(number, start, line, indent) and not self._is_check(line, indent):
            self._plain_line(number, line, indent)

    def _is_item(self, number: int, start: int, line: str, indent: int) -> bool:
        """Whether the line is an item; it is kept then."""
        match = _ITEM.fullmatch(line)
        if match is None:
            return False
        item = Item(match[3].rstrip(), number, match[2] in "xX", indent, start + match.start(2))
        self._leave(indent)
        self.items.append(item)
        self.item, self.in_list = len(self.items) - 1, True
        self.around.append(self.item)
        return True

    def _leave(self, indent: int) -> None:
        """A line that is no deeper than an item is not in it."""
        while self.around and self.items[self.around[-1]].depth >= indent:
            self.around.pop()

    def _is_check(self, line: str, indent: int) -> bool:
        """Whether the line is a check of an item that it is in; it is kept then."""
        match = _CHECK_LINE.fullmatch(line) if self.in_list else None
        if match is None:
            return False
        self._leave(indent)
        if self.around:
            self.checks.setdefault(self.around[-1], []).extend(_commands(match[1]))
        return bool(self.around)

    def _plain_line(self, number: int, line: str, indent: int) -> None:
        if line.strip():
            self.loose[number] = line
        if _LIST_LINE.match(line):
            self.in_list = True
            self._leave(indent)
            if self.item is not None and indent <= self.items[self.item].depth:
                self.item = None
        elif line and indent == 0 and self.after_blank:
            self.in_list = False  # a new paragraph: what is indented after it is code
