"""What the board shows at one moment: values only. Drawn by `drawing`, changed by `terminal`."""

from __future__ import annotations

import dataclasses
import enum

from rich.cells import cell_len, chop_cells

from codex_self_iter.views.rows import Row
from codex_self_iter.views.summary import Seen
from codex_self_iter.views.timeline import Iteration
from codex_self_iter.views.troubles import Trouble

Line = tuple[str, str]
"""A text, clean, and the style in which it is shown ("" for none): "bold", "red", "dim"."""

MAX_LINES = 5000
"""Lines of one text that are held; of an output that goes on the oldest go first."""
TAB = 4


class Level(enum.IntEnum):
    """How close one looks."""

    LOOPS = 0
    LOOP = 1
    ITERATION = 2


class Body:
    """A text that is scrolled, wrapped at the width in which it was drawn last."""

    def __init__(self, lines: list[Line] | None = None) -> None:
        self.lines: list[Line] = list(lines or ())
        self._width = 0
        self._wrapped: list[Line] = []

    def extend(self, more: list[Line]) -> None:
        """Lines at the end; the oldest go where there are too many."""
        self.lines += more
        if len(self.lines) > MAX_LINES:
            del self.lines[: len(self.lines) - MAX_LINES]
            self._width = 0
        elif self._width:
            self._wrapped += _wrap(more, self._width)

    def wrapped(self, width: int) -> list[Line]:
        """The rows of a terminal of that width."""
        if width != self._width:
            self._width, self._wrapped = width, _wrap(self.lines, width)
        return self._wrapped


def _wrap(lines: list[Line], width: int) -> list[Line]:
    found: list[Line] = []
    for text, style in lines:
        line = text.expandtabs(TAB)
        if len(line) <= width and line.isascii():
            found.append((line, style))
        elif line.isascii():
            found += [(line[at : at + width], style) for at in range(0, len(line), width)]
        elif cell_len(line) <= width:
            found.append((line, style))
        else:
            found += [(part, style) for part in chop_cells(line, max(2, width))]
    return found


@dataclasses.dataclass(slots=True)
class Showing:
    """Everything that decides what is drawn.

    Attributes:
        now: Unix seconds.
        rows: all loops, the most urgent first; chosen: state directory of the one that is meant.
        seen, troubles: of that one.
        iterations: of that one, the newest first; what is under way has not `ended`.
        number: the iteration that is meant; None: the newest, and whatever follows it.
        new: the iteration that has begun since another one was chosen, 0 for none.
        scroll: first row of the body that is shown; tail: it stays at the end.
        question: what was asked, answered with y; typing: words before the text that is typed.
        message: what the last key came to; bad: it was refused.
        found: row of the body in which the search has stopped, -1 for none."""

    now: float = 0.0
    rows: list[Row] = dataclasses.field(default_factory=list)
    chosen: str = ""
    seen: Seen | None = None
    troubles: list[Trouble] = dataclasses.field(default_factory=list)
    iterations: list[Iteration] = dataclasses.field(default_factory=list)
    number: int | None = None
    new: int = 0
    level: Level = Level.LOOPS
    tab: int = 0
    body: Body = dataclasses.field(default_factory=Body)
    scroll: int = 0
    tail: bool = True
    help: bool = False
    question: str = ""
    typing: str = ""
    message: str = ""
    bad: bool = False
    found: int = -1
    searched: str = ""
    loading: bool = True

    @property
    def row(self) -> Row | None:
        """The line of the loop that is meant."""
        return next((row for row in self.rows if row.state_dir == self.chosen), None)

    @property
    def iteration(self) -> Iteration | None:
        """The iteration that is meant."""
        if self.number is None:
            return self.iterations[0] if self.iterations else None
        return next((one for one in self.iterations if one.number == self.number), None)
