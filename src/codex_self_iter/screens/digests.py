"""The digest of all loops, read from their files."""

from __future__ import annotations

from codex_self_iter.errors import StorageError
from codex_self_iter.screens import sources
from codex_self_iter.views.digest import LoopDigest, of_loop
from codex_self_iter.views.timeline import Record
from codex_self_iter.world.state import journal


def since(state_dir: str, at: float) -> list[Record]:
    """The iterations that ended at or after that moment, oldest first. What cannot be read, or is no
    longer kept, is left out. Never raises."""
    try:
        return [*journal.since(f"{state_dir}/{journal.JOURNAL}", at)]
    except StorageError:
        return []


def digest(at: float) -> list[LoopDigest]:
    """Every loop of this user since that moment (Unix seconds), the most urgent first."""
    loops = sources.Loops()
    loops.refresh()
    return [
        of_loop(one.seen, one.around, one.row, since(one.loop.state_dir, at)) for one in loops.shown
    ]
