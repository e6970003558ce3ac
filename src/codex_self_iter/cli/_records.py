"""Reading the journal for people: the newest lines that fit a filter, in bounded memory."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Mapping
from typing import Any

from codex_self_iter.core.foreign import as_dict, as_number
from codex_self_iter.core.text import money, tokens
from codex_self_iter.errors import UsageError
from codex_self_iter.world.state import journal

Record = Mapping[str, Any]
_LOOK = 4096
"""Lines at the end that are looked through for what fits before a whole pass is made."""


def newest(
    state_dir: str, limit: int, fits: Callable[[Record], bool] | None = None
) -> list[Record]:
    """The last `limit` records that fit, oldest first. Raises StorageError."""
    path = os.path.join(state_dir, journal.JOURNAL)
    lines = journal.tail(path, limit if fits is None else max(_LOOK, limit))
    found: list[Record] = [line for line in lines if fits is None or fits(line)]
    if len(found) >= limit:
        return found[-limit:]
    kept = (line for line in journal.stream(path) if fits is None or fits(line))
    return list(collections.deque(kept, limit))


def find(state_dir: str, iteration: int | None) -> Record:
    """The record of an iteration, or with None of the last. Raises UsageError and StorageError."""
    path = os.path.join(state_dir, journal.JOURNAL)
    last = next(iter(journal.tail(path, 1)), None)
    if last is None:
        raise UsageError(f"no iteration is recorded in {path} yet")
    if iteration in (None, last["iteration"]):
        return last
    assert iteration is not None
    older = (path, f"{path}.1") if iteration < last["iteration"] else ()
    record = next(filter(None, (journal.find(one, iteration) for one in older)), None)
    if record is None:
        first = next(iter(journal.stream(path)), last)
        span = f"{first['iteration']} to {last['iteration']}"
        raise UsageError(f"there is no iteration {iteration}; recorded are {span}")
    return record


def spent(record: Record) -> tuple[str, str]:
    """(tokens, money) of an iteration as people read them; "" where nothing is known."""
    usage = as_dict(record.get("usage"))
    both = as_number(usage.get("input_tokens")) + as_number(usage.get("output_tokens"))
    total = as_number(usage.get("total_tokens")) or both
    cost = record.get("cost_usd") if record.get("cost_usd") is not None else usage.get("cost_usd")
    return tokens(total) if total else "", money(as_number(cost)) if cost is not None else ""
