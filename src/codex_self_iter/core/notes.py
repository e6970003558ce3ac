"""Notes: short facts that agents leave for later iterations, as lines of one file.

Whatever a note says, it is one line of a list in a prompt: it cannot begin a section there. The
file belongs to the person as much as to the agents, so its other lines stay as they are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from codex_self_iter.core.marks import normalise
from codex_self_iter.core.text import shorten

LONGEST = 400
"""Characters of one note."""
PROPOSED = 20
"""So many notes of one answer are taken, the first."""
HEAD = (
    "# Notes of this loop, one a line: every prompt shows them. Edit them as you like; when there "
    "are too many the oldest go first."
)
_LEADING = re.compile(r"^(?:[-*+•>#|=]+(?=\s|$)|\s)+")
_FENCE = re.compile(r"`{3,}|~{3,}")


def note(text: str) -> str:
    """One line that nothing hides in and that opens nothing: no control or invisible characters, no
    mark of a list, heading or fence; "" for what says nothing."""
    seen = "".join(char for char in text if unicodedata.category(char) != "Cf")
    line = _LEADING.sub("", _FENCE.sub("'", shorten(seen, 2 * LONGEST)))
    return shorten(line, LONGEST) if normalise(line) else ""


def notes_of(text: str) -> list[str]:
    """The notes in the text of a file: all of its lines but headings, oldest first."""
    return [found for line in text.splitlines() if (found := _in_line(line))]


def _in_line(line: str) -> str:
    return "" if line.lstrip().startswith("#") else note(line)


def newest(notes: Sequence[str], most: int, most_bytes: int) -> list[str]:
    """The last of them that are within both bounds, oldest first."""
    room, kept = most_bytes, list[str]()
    for one in reversed(notes):
        room -= len(one.encode("utf-8", "replace")) + 1
        if room < 0 or len(kept) == most:
            break
        kept.append(one)
    return kept[::-1]


def added(text: str, new: Iterable[str], most: int, most_bytes: int) -> tuple[str, int]:
    """The text of the file with these notes at its end, and how many old ones went for them.

    What the file says already, but for case, space and punctuation, is not added once more."""
    lines = text.splitlines() or [HEAD]
    known = {normalise(one) for one in notes_of(text)}
    for one in filter(None, map(note, new)):
        if normalise(one) not in known:
            known.add(normalise(one))
            lines.append(f"- {one}")
    places = [number for number, line in enumerate(lines) if _in_line(line)]
    kept = len(newest([_in_line(lines[number]) for number in places], most, most_bytes))
    gone = set(places[: len(places) - kept])
    left = [line for number, line in enumerate(lines) if number not in gone]
    return "\n".join(left) + "\n", len(gone)
