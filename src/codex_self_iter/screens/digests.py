"""The digest of all loops, read from their files."""

from __future__ import annotations

import sys

from codex_self_iter.core.text import epoch
from codex_self_iter.errors import StorageError
from codex_self_iter.screens import records, sources
from codex_self_iter.views.digest import LoopDigest, of_loop
from codex_self_iter.views.timeline import Record

FIRST = 64
"""Journal lines that are read at first; four times as many each time, until they reach back."""


def since(state_dir: str, at: float) -> list[Record]:
    """The iterations that ended at or after that moment, oldest first. What cannot be read, or is no
    longer kept, is left out. Never raises."""
    count = FIRST
    try:
        found = records.latest(state_dir, count)
        while len(found) == count and _ended(found[0].record) >= at:
            count *= 4
            found = records.latest(state_dir, count)
    except StorageError:
        return []
    return [one.record for one in found if _ended(one.record) >= at]


def _ended(record: Record) -> float:
    found = epoch(record.get("ts"))
    return -sys.float_info.max if found is None else found


def digest(at: float) -> list[LoopDigest]:
    """Every loop of this user since that moment (Unix seconds), the most urgent first."""
    loops = sources.Loops()
    loops.refresh()
    return [
        of_loop(one.seen, one.around, one.row, since(one.loop.state_dir, at)) for one in loops.shown
    ]
