"""The labels of checkpoints: "12" is what iteration 12 left, "12-before" what it found. Pure."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

REFS = "refs/codex-self-iter"
_NUMBERED = re.compile(r"(\d+)(-before)?", re.ASCII)


def place(label: str) -> tuple[int, bool]:
    """Where it stands in time among the numbered ones; (-1, False) for another name."""
    numbered = _NUMBERED.fullmatch(label)
    return (int(numbered[1]), numbered[2] is None) if numbered else (-1, False)


def normal(label: str, digits: int = 0) -> str:
    """ "012" -> "12"; with `digits` the form in the ref's name."""
    numbered = _NUMBERED.fullmatch(label)
    return f"{int(numbered[1]):0{digits}d}{numbered[2] or ''}" if numbered else label


def before(known: Iterable[tuple[str, str]], label: str) -> str:
    """The commit of the nearest earlier numbered one of (label, commit), or ""."""
    placed = ((place(name), commit) for name, commit in known)
    return max((one for one in placed if (0, False) <= one[0] < place(label)), default=("", ""))[1]
