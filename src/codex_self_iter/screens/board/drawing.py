"""From what is shown to the lines of a terminal, whatever its size."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TypeVar

from rich.cells import cell_len, set_cell_size

from codex_self_iter.core.text import counted, money, tokens, took
from codex_self_iter.screens.board.bindings import BINDINGS, TABS
from codex_self_iter.screens.board.showing import Level, Line, Showing
from codex_self_iter.views.rows import URGENCIES, Row, Urgency, counts
from codex_self_iter.views.summary import clock
from codex_self_iter.views.timeline import Iteration

T = TypeVar("T")
Pieces = list[Line]
"""One line of the screen, from left to right."""

NARROW = 80
"""Columns below which list and detail are shown one at a time."""
_NAME = 24
_HINTS = (
    "enter closer", "esc back", "tab next", "p pause", ": steer", "S stop after", "/ search", "? keys",
    "q quit",
)  # fmt: skip
_HEAD_LINES = 8
"""What is said of a loop above the text, at most."""


def ago(seconds: float) -> str:
    """How long ago, in one unit: what does not change every second need not be drawn again."""
    whole = max(0, int(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= length:
            return f"{whole // length} {unit}"
    return "<1 m"


def draw(on: Showing, width: int, height: int) -> list[Pieces]:
    """Exactly `height` lines of at most `width` columns each."""
    foot = _footer(on, width, height)
    room = max(0, height - 1 - len(foot))
    if on.help:
        middle = _help(on, room)
    elif width < NARROW or not on.rows:
        middle = _narrow(on, width, room)
    else:
        middle = _wide(on, width, room)
    middle = (middle + [[]] * room)[:room]
    lines = [_header(on, width), *middle, *foot]
    return [_fitted(line, width) for line in lines[:height]]


def body_size(on: Showing, width: int, height: int) -> tuple[int, int]:
    """Columns and rows of the part that is scrolled."""
    room = max(0, height - 1 - len(_footer(on, width, height)))
    if on.help or (width < NARROW and on.level is not Level.ITERATION):
        return width, room
    columns = width if on.level is Level.ITERATION else width - _left_width(width) - 1
    return columns, max(0, room - len(_head(on, columns)) - 1)


# -- the frame -------------------------------------------------------------------------------------


def _header(on: Showing, width: int) -> Pieces:
    """How many loops there are of each urgency; parts are shed where there is no room."""
    many = counts(on.rows)
    told = [
        (f"{number} {URGENCIES[urgency]}", _tint(urgency))
        for urgency, number in many.items()
        if number
    ]
    where = [] if on.level is Level.LOOPS or on.row is None else [on.row.name]
    if on.level is Level.ITERATION and on.iteration is not None:
        where.append(f"iteration {on.iteration.number}")
    title = " > ".join(["loops", *where])
    line: Pieces = [(title, "bold")]
    left = width - cell_len(title)
    for text, style in told:
        if left < len(text) + 3:
            break
        line += [("   ", ""), (text, style)]
        left -= len(text) + 3
    return line


def _footer(on: Showing, width: int, height: int) -> list[Pieces]:
    """A question, or what the last key came to, to its end where there is room; else the keys."""
    if on.typing:
        return [[(on.typing, "bold")]]
    text, style = f"{on.question} y/n", "bold yellow"
    if not on.question:
        text, style = on.message, "red" if on.bad else "cyan"
    if text:
        parts = textwrap.wrap(text, max(1, width), break_on_hyphens=False) or [""]
        return [[(part, style)] for part in parts[: max(1, min(4, height // 4))]]
    line = ""
    for hint in (_HINTS[-1], _HINTS[-2], *_HINTS[:-2]):
        if len(line) + len(hint) + 3 <= width:
            line = f"{line}   {hint}" if line else hint
    return [[(line, "dim")]]


def _help(on: Showing, room: int) -> list[Pieces]:
    rows = [f"{one.shown:<10} {one.words}" for one in BINDINGS]
    lines: list[Pieces] = [[("Keys", "bold")], *([(row, "")] for row in rows)]
    first = max(0, min(on.scroll, len(lines) - room))
    return lines[first : first + room]


def _left_width(width: int) -> int:
    return min(80, max(36, width * 2 // 5))


def _wide(on: Showing, width: int, room: int) -> list[Pieces]:
    if on.level is Level.ITERATION:
        return _detail(on, width, room)
    left = _left_width(width)
    listed = _list(on, left, room)
    detail = _detail(on, width - left - 1, room)
    lines = []
    for number in range(room):
        one = _fitted(listed[number], left) if number < len(listed) else []
        pad = left - sum(cell_len(text) for text, _ in one)
        other = detail[number] if number < len(detail) else []
        lines.append([*one, (" " * pad, ""), ("│", "dim"), *other])
    return lines


def _narrow(on: Showing, width: int, room: int) -> list[Pieces]:
    if on.level is Level.ITERATION:
        return _detail(on, width, room)
    about = _head(on, width) if room >= 12 else []
    listed = _list(on, width, room - len(about))
    if about:
        listed = (listed + [[]] * room)[: room - len(about)]
    return [*listed, *about]


# -- the lists -------------------------------------------------------------------------------------


def _list(on: Showing, width: int, room: int) -> list[Pieces]:
    if on.level is Level.LOOPS:
        return _loops(on, width, room)
    return _iterations(on, width, room)


def _loops(on: Showing, width: int, room: int) -> list[Pieces]:
    if not on.rows:
        if on.loading:
            return [[("Looking for loops …", "dim")]]
        return [
            [("No loop of this user is known.", "bold")],
            [("Start one, in its repository:", "")],
            [('  codex-self-iter run "what is wanted"', "")],
        ]
    listed: list[Row | Urgency] = []
    chosen, group = 0, None
    many = counts(on.rows)
    for row in on.rows:
        if row.urgency is not group:
            group = row.urgency
            listed.append(group)
        if row.state_dir == on.chosen:
            chosen = len(listed)
        listed.append(row)
    return [
        _loop(on, one, width)
        if isinstance(one, Row)
        else [(f"{URGENCIES[one]} ({many[one]})", f"bold {_tint(one)}")]
        for one in _window(listed, chosen, room)
    ]


def _loop(on: Showing, row: Row, width: int) -> Pieces:
    mark = ">" if row.state_dir == on.chosen else " "
    style = "reverse" if row.state_dir == on.chosen else ""
    name = _cell(row.name, min(_NAME, max(8, width // 3)))
    since = "" if row.since is None else ago(on.now - row.since)
    plan = f"{row.done}/{row.total}" if row.total else ""
    warned = f"{row.warnings}!" if row.warnings else ""
    line: Pieces = [(f"{mark} {name} ", style), (f"{row.state:<14.14} ", f"{row.colour} {style}")]
    left = width - len(mark) - cell_len(name) - 18
    for text, size in ((since, 5), (plan, 7), (warned, 3)):
        if left >= size + 1:
            line.append((f"{text:>{size}} ", style))
            left -= size + 1
    if left > 12:
        line.append((_cell(row.doing, left), style or "dim"))
    return line


def _iterations(on: Showing, width: int, room: int) -> list[Pieces]:
    if not on.iterations:
        return [[("No iteration yet.", "dim")]]
    meant = on.iteration
    chosen = next((n for n, one in enumerate(on.iterations) if one is meant), 0)
    seen = _window(on.iterations, chosen, room)
    return [_iteration(one, width, chosen=one is meant) for one in seen]


def _iteration(one: Iteration, width: int, *, chosen: bool) -> Pieces:
    style = "reverse" if chosen else ""
    lasted = took(one.took_sec) if one.ended is not None else ""
    head = f"{'>' if chosen else ' '} {one.number:>4} "
    line: Pieces = [(head, style), (f"{one.verdict:<10.22} ", f"{one.colour} {style}")]
    left = width - len(head) - max(10, min(22, len(one.verdict))) - 1
    if left > 24:
        line.append((f"{lasted:>9} ", style))
        left -= 10
    line.append((_cell(one.summary, left), style or "dim"))
    return line


def _window(listed: Sequence[T], chosen: int, room: int) -> Sequence[T]:
    """As many as there is room for, with the chosen one in sight."""
    first = max(0, min(chosen - room // 2, len(listed) - room))
    return listed[first : first + room]


# -- the detail ------------------------------------------------------------------------------------


def _detail(on: Showing, width: int, room: int) -> list[Pieces]:
    if on.row is None:
        return []
    head = _head(on, width)
    rows = room - len(head) - 1
    if rows < 1:
        return _text(on, width, room) if on.level is Level.ITERATION else head
    return [*head, _tabs(on, width), *_text(on, width, rows)]


def _head(on: Showing, width: int) -> list[Pieces]:
    """What a loop, or an iteration, is and needs."""
    row = on.row
    if row is None:
        return []
    if on.level is Level.ITERATION and on.iteration is not None:
        return _iteration_head(on, on.iteration, width)
    since = ""
    if row.since is not None:
        since = f"  since {clock(row.since, on.now)} ({ago(on.now - row.since)})"
    lines: list[Pieces] = [
        [(row.name, "bold"), ("  ", ""), (row.state, f"bold {row.colour}"),
         (f"  iteration {row.iteration}" if row.iteration else "", ""), (since, "dim")]
    ]  # fmt: skip
    if not on.troubles or on.troubles[0].urgency >= Urgency.PAUSED:
        lines += _folded("", row.doing, "", width)
    for trouble in on.troubles:
        lines += _folded("! ", trouble.words, _tint(trouble.urgency), width)
        lines += _folded("  ", trouble.mend, "bold", width)
    spent = []
    if row.total:
        spent.append(f"plan {row.done} of {row.total}")
    if row.tokens:
        spent.append(f"{tokens(row.tokens)} tokens")
    if row.cost_usd:
        spent.append(money(row.cost_usd))
    shown = lines[: _HEAD_LINES - 1]
    if len(lines) > len(shown):
        shown.append([(f"and {len(lines) - len(shown)} lines more: status has them", "dim")])
    elif spent:
        shown.append([(", ".join(spent), "dim")])
    return [_fitted(line, width) for line in shown]


def _iteration_head(on: Showing, one: Iteration, width: int) -> list[Pieces]:
    when = "" if one.ended is None else f"  {clock(one.ended, on.now)}, {took(one.took_sec)}"
    facts = [one.agent, one.model]
    facts += [f"{tokens(one.tokens)} tokens"] if one.tokens else []
    facts += [money(one.cost_usd)] if one.cost_usd is not None else []
    facts += [counted(one.changed, "file") + " changed"] if one.changed else []
    lines: list[Pieces] = [
        [(f"Iteration {one.number}", "bold"), ("  ", ""),
         (one.told_verdict, f"bold {one.colour}"), (when, "dim")],
        [(one.summary, "")],
        [(", ".join(filter(None, facts)), "dim")],
    ]  # fmt: skip
    return [_fitted(line, width) for line in lines if any(text for text, _ in line)]


def _tabs(on: Showing, width: int) -> Pieces:
    works = on.seen is not None and on.seen.life.alive
    live = ("LIVE" if works else "newest") if on.number is None else "REVIEW"
    if on.new and on.number is not None:
        live = f"▶ new: iteration {on.new}"
    left = width - cell_len(live) - 1
    for names, gap in (
        ([f"{n} {name}" for n, name in enumerate(TABS, 1)], "  "),
        (list(TABS), " "),
        ([f"{on.tab + 1}/{len(TABS)} {TABS[on.tab]}"], ""),
    ):
        if sum(map(len, names)) + len(gap) * (len(names) - 1) <= left:
            break
    line: Pieces = []
    for number, name in enumerate(names):
        chosen = number == on.tab or len(names) == 1
        line += [(gap if number else "", ""), (name, "bold reverse" if chosen else "dim")]
    used = sum(cell_len(text) for text, _ in line)
    pad = max(1, width - used - cell_len(live))
    return [*line, (" " * pad, ""), (live, "green" if live == "LIVE" else "yellow")]


def _text(on: Showing, width: int, room: int) -> list[Pieces]:
    rows = on.body.wrapped(width)
    last = max(0, len(rows) - room)
    first = last if on.tail else max(0, min(on.scroll, last))
    shown = []
    for number, (text, style) in enumerate(rows[first : first + room], first):
        shown.append([(text, f"{style} reverse" if number == on.found else style)])
    return shown


# -- pieces ----------------------------------------------------------------------------------------


def _tint(urgency: Urgency) -> str:
    if urgency is Urgency.NEEDS_YOU:
        return "red"
    if urgency in (Urgency.STUCK, Urgency.WAITING, Urgency.PAUSED):
        return "yellow"
    return "green" if urgency in (Urgency.WORKING, Urgency.DONE) else "dim"


def _folded(lead: str, text: str, style: str, width: int) -> list[Pieces]:
    """A text that has to be read to its end, such as a command: it goes on in the next line."""
    room = max(8, width - len(lead))
    parts = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    return [[(lead if n == 0 else " " * len(lead), style), (p, style)] for n, p in enumerate(parts)]


def _cell(text: str, width: int) -> str:
    """Exactly `width` columns; what does not fit ends in an ellipsis."""
    if cell_len(text) <= width:
        return text + " " * (width - cell_len(text))
    return set_cell_size(text, max(0, width - 1)) + "…" if width > 0 else ""


def _fitted(line: Pieces, width: int) -> Pieces:
    """The same, cut where the screen ends."""
    found: Pieces = []
    left = width
    for text, style in line:
        size = cell_len(text)
        if size > left:
            found.append((_cell(text, left), style))
            return found
        if text:
            found.append((text, style))
        left -= size
    return found
