"""Reading the journal for people: the newest lines that fit a filter, in bounded memory."""

from __future__ import annotations

import collections
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple

from codex_self_iter.core.foreign import as_list, as_text
from codex_self_iter.errors import UsageError
from codex_self_iter.views.timeline import Record
from codex_self_iter.world.state import journal

_TICKED = re.compile(rb'"ticked"\s*:\s*\["')
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


class Ticks:
    """Which iteration ticked what. A journal may have 64 MiB: of one that was read, only what it has
    grown by is read again. For many threads."""

    MOST = 64
    """Journals that are remembered: those that were asked for last."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._known: dict[str, tuple[journal.Reached | None, dict[str, int]]] = {}
        self._lock = threading.Lock()

    def of(self, state_dir: str) -> dict[str, int]:
        """By mark of what was ticked, the last iteration that did. Raises StorageError."""
        path = os.path.join(state_dir, journal.JOURNAL)
        with self._lock:
            reached, ticked = self._known.pop(path, (None, {}))
            records, reached, anew = journal.grown(path, _TICKED, reached)
            fresh = {
                mark: record["iteration"]
                for record in records
                for mark in map(as_text, as_list(record.get("ticked")))
            }
            ticked = fresh if anew else {**ticked, **fresh}
            self._known[path] = reached, ticked
            if len(self._known) > self.MOST:
                del self._known[next(iter(self._known))]
            return ticked


ticked_in = Ticks().of
"""By mark of what was ticked, the last iteration that did. Raises StorageError."""


# -- by position, for who follows a journal --------------------------------------------------------


class Placed(NamedTuple):
    """A journal line and what marks its place: `after` of a mark goes on exactly behind it."""

    mark: str
    record: Record


def latest(state_dir: str, count: int) -> list[Placed]:
    """The last `count` iterations, oldest first. Raises StorageError."""
    path = os.path.join(state_dir, journal.JOURNAL)
    found = [_placed(*one) for one in journal.before(path, None, count)]
    first = found[0].record["iteration"] if found else sys.maxsize
    return _rotated(path, first, count - len(found)) + found


def older(state_dir: str, mark: str, count: int) -> list[Placed]:
    """The last `count` iterations before the one that `mark` stands for, oldest first. Raises
    StorageError."""
    path, end = _find_place(state_dir, mark)
    iteration = _iteration(mark)
    found = [
        one
        for one in (_placed(*line) for line in journal.before(path, end, count + 1))
        if one.record["iteration"] < iteration
    ][-count:]
    if path.endswith(".1"):
        return found
    first = found[0].record["iteration"] if found else iteration
    return _rotated(path, first, count - len(found)) + found


def _rotated(path: str, first: int, count: int) -> list[Placed]:
    """The last `count` iterations before `first` in the journal that was set aside. The one that
    goes on begins with its last quarter."""
    if count <= 0:
        return []
    behind = journal.place(f"{path}.1", first)
    lines = journal.before(f"{path}.1", behind[0] if behind else None, count + 1)
    return [_placed(*line) for line in lines if line[1]["iteration"] < first][-count:]


def after(state_dir: str, mark: str = "", limit: int = 1000) -> list[Placed]:
    """At most `limit` iterations behind the place of `mark`, oldest first; all that are kept when
    there is none, or when what it stood for is not kept any more. Raises StorageError.

    A mark of the journal before its rotation still counts."""
    path = os.path.join(state_dir, journal.JOURNAL)
    place, start = _find_place(state_dir, mark) if mark else (f"{path}.1", 0)
    found = [_placed(*one) for one in journal.after(place, start or 0, limit)]
    if place == path or len(found) == limit:
        return found
    last = found[-1].record["iteration"] if found else _iteration(mark)
    begin = journal.place(path, last) if last >= 0 else None
    rest = journal.after(path, begin[0] if begin else 0, limit - len(found))
    return found + [_placed(*one) for one in rest]


def _placed(end: int, record: Record) -> Placed:
    return Placed(f"{end}-{record['iteration']}", record)


def _iteration(mark: str) -> int:
    """-1 for a mark that is none of ours."""
    word = mark.partition("-")[2]
    return int(word) if word.isascii() and word.isdigit() and len(word) < 16 else -1


def _find_place(state_dir: str, mark: str) -> tuple[str, int | None]:
    """The file and the offset behind the line that `mark` stands for; the beginning of the rotated
    journal where there is none."""
    path, iteration = os.path.join(state_dir, journal.JOURNAL), _iteration(mark)
    word = mark.partition("-")[0]
    if iteration >= 0 and word.isascii() and word.isdigit() and len(word) < 16:
        there = journal.before(path, int(word), 1)
        if there and (there[0][0], there[0][1]["iteration"]) == (int(word), iteration):
            return path, int(word)
    for one in (path, f"{path}.1") if iteration >= 0 else ():
        if found := journal.place(one, iteration):
            return one, found[0]
    return f"{path}.1", 0
