"""The terminal: colours where they are wanted, its width, and local times."""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}


class Paint:
    """Colours text, or leaves it alone. `unicode` tells whether the output can show more than
    ASCII.
    """

    def __init__(self, stream: TextIO | None = None, *, colour: bool | None = None) -> None:
        stream = sys.stdout if stream is None else stream
        self.unicode = "utf" in (getattr(stream, "encoding", "") or "").lower()
        if colour is None:
            plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
            colour = stream.isatty() and not plain
        self.colour = colour

    def __call__(self, text: str, *styles: str) -> str:
        """`text` in the named styles."""
        if not self.colour or not styles or not text:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def width() -> int:
    """Columns of the terminal, at least 60; 100 where there is none."""
    given = os.environ.get("COLUMNS", "")
    try:
        columns = (
            int(given) if given.isdigit() else os.get_terminal_size(sys.stdout.fileno()).columns
        )
    except (OSError, ValueError):  # no terminal, or no stdout at all
        columns = 0
    return max(60, columns or 100)


def clock(seconds: float, now: float) -> str:
    """A local time of day, with the date when it is not within half a day of now."""
    form = "%H:%M:%S" if abs(seconds - now) < 43200 else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(seconds))
