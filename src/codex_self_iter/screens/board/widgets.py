"""The two widgets of the board: the screen, and the line that is typed. Keys go to the board."""

from __future__ import annotations

import abc

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input

from codex_self_iter.screens.board.drawing import Pieces

_STYLE_OF = {"": Style()}


class Keyed(App[None]):
    """Who gets the keys."""

    @abc.abstractmethod
    def press(self, key: str) -> None:
        """A key, or the character that it types."""

    @abc.abstractmethod
    def typed(self, text: str | None) -> None:
        """A line was typed; None: it was left."""

    @abc.abstractmethod
    def scrolled(self, rows: int) -> None:
        """The mouse's wheel went so many rows down."""


class Canvas(Widget, can_focus=True):
    """The whole screen, line by line."""

    def __init__(self) -> None:
        super().__init__()
        self._drawn: list[Pieces] = []

    def show(self, drawn: list[Pieces]) -> None:
        """Draw the lines that have changed."""
        old, self._drawn = self._drawn, drawn
        regions = [
            Region(0, y, self.size.width, 1)
            for y in range(max(len(old), len(drawn)))
            if old[y : y + 1] != drawn[y : y + 1]
        ]
        if regions:
            self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        pieces = self._drawn[y] if y < len(self._drawn) else []
        strip = Strip([Segment(text, _style(style)) for text, style in pieces])
        return strip.adjust_cell_length(self.size.width, Style())

    def on_key(self, event: events.Key) -> None:
        """Every key goes to the board, and nowhere else."""
        event.stop()
        event.prevent_default()
        board = self.app
        assert isinstance(board, Keyed)
        # a character as it is, so that ":" and "!" are what is on the keyboard
        plain = event.character if event.is_printable and event.character != " " else event.key
        board.press(plain or event.key)

    def on_mouse_scroll_down(self) -> None:
        """A page goes down by some lines."""
        self._scrolled(3)

    def on_mouse_scroll_up(self) -> None:
        """And up."""
        self._scrolled(-3)

    def _scrolled(self, rows: int) -> None:
        assert isinstance(self.app, Keyed)
        self.app.scrolled(rows)


def _style(words: str) -> Style:
    if words not in _STYLE_OF:
        _STYLE_OF[words] = Style.parse(words)
    return _STYLE_OF[words]


class Typed(Input):
    """The line in which a message or a search is typed; no other key than enter and esc leaves it."""

    FEED = "↵"
    """What stands for the end of a line in what was pasted."""

    @property
    def text(self) -> str:
        """What was typed or pasted, of as many lines as it had."""
        return self.value.replace(self.FEED, "\n")

    def on_paste(self, event: events.Paste) -> None:
        """Take all lines of it: the widget would take the first."""
        event.stop()
        event.prevent_default()
        self.replace(self.FEED.join(event.text.strip("\r\n").splitlines()), *self.selection)

    def on_key(self, event: events.Key) -> None:
        """Leave with esc, or as any line of a terminal is left; tab and the like do nothing here."""
        board = self.app
        assert isinstance(board, Keyed)
        if event.key in ("escape", "ctrl+c"):
            event.stop()
            event.prevent_default()
            board.typed(None)
        elif event.key in ("tab", "shift+tab", "ctrl+q"):
            event.stop()
            event.prevent_default()
