"""Reading the journal for people: the newest lines that fit a filter, in bounded memory."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Mapping
from typing import Any

from codex_self_iter.core.text import money, tokens
from codex_self_iter.errors import UsageError

Record = Mapping[str, Any]


def journal_path(state_dir: str) -> str:
    """Where the journal of a loop is."""
    from codex_self_iter.world.state import journal

    return os.path.join(state_dir, *journal.JOURNAL.split("/"))


def newest(
    state_dir: str, limit: int, fits: Callable[[Record], bool] | None = None
) -> list[Record]:
    """The last `limit` records that fit, oldest first. Raises StorageError.

    Looks at the end first, at four times as much each time; only a rare find costs a whole pass."""
    from codex_self_iter.world.state import journal

    path, count = journal_path(state_dir), limit if fits is None else max(256, limit)
    while True:
        lines = journal.tail(path, count)
        found = [line for line in lines if fits is None or fits(line)]
        if len(found) >= limit:
            return list(found[-limit:])
        if len(lines) < count or count > 20_000:
            break
        count *= 4
    if len(lines) < count and not _longer_than_tail(path, journal.TAIL_SCAN):
        return list(found)
    kept = (line for line in journal.stream(path) if fits is None or fits(line))
    return list(collections.deque(kept, limit))


def _longer_than_tail(path: str, scan: int) -> bool:
    try:
        return os.stat(path).st_size > scan
    except OSError:
        return False


def find(state_dir: str, iteration: int | None) -> Record:
    """The record of an iteration, or with None of the last. Raises UsageError and StorageError."""
    from codex_self_iter.world.state import journal

    path = journal_path(state_dir)
    last = journal.tail(path, 1)
    if not last:
        raise UsageError(f"no iteration is recorded in {path} yet")
    if iteration in (None, last[0]["iteration"]):
        return last[0]
    assert iteration is not None
    record = journal.find(path, iteration) if iteration < last[0]["iteration"] else None
    if record is None:
        first = next(iter(journal.stream(path)), last[0])
        span = f"{first['iteration']} to {last[0]['iteration']}"
        raise UsageError(f"there is no iteration {iteration}; recorded are {span}")
    return record


def number(value: object) -> float:
    """A number of the journal, 0 for anything else."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0


def spent(record: Record) -> tuple[str, str]:
    """(tokens, money) of an iteration as people read them; "" where nothing is known."""
    usage = record.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    both = number(usage.get("input_tokens")) + number(usage.get("output_tokens"))
    total = number(usage.get("total_tokens")) or both
    cost = record.get("cost_usd") if record.get("cost_usd") is not None else usage.get("cost_usd")
    return tokens(total) if total else "", money(number(cost)) if cost is not None else ""
