"""The terminal: colours where they are wanted, and its width."""

from __future__ import annotations

import os
import sys

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Paint:
    """Colours text for stdout, or not. `unicode`: it can show more than ASCII."""

    def __init__(self, *, colour: bool | None = None) -> None:
        self.unicode = "utf" in (getattr(sys.stdout, "encoding", "") or "").lower()
        if colour is None:
            plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
            colour = sys.stdout.isatty() and not plain
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
        size = os.get_terminal_size
        columns = int(given) if given.isdigit() else size(sys.stdout.fileno()).columns
    except (OSError, ValueError):  # no terminal, or no stdout at all
        columns = 0
    return max(60, columns or 100)
