"""The journal `logs/iterations.jsonl`: one line an iteration, appended and synced, never rewritten.

Which lines count (the rule that recovery relies on): a line is good when it ends in a line feed, is
at most MAX_LINE bytes of UTF-8, and is a JSON object with a whole number `iteration`. Everything
else (a torn tail, a block of NULs, a foreign line) is skipped. What follows the last line that is
JSON goes to the quarantine before the next append: a line which was not believed once is never
believed later, and every program can read the journal.

Reading starts at the end, in blocks: neither start nor append depends on the journal's length."""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import json
import os
import re
import stat
import sys

from codex_self_iter.core.text import epoch
from codex_self_iter.world.guarded import QUARANTINE
from codex_self_iter.world.state.durable import (
    data_sync,
    encode_json,
    full_sync,
    stamp,
    storage_error,
    storing,
    write_all,
)
from codex_self_iter.world.state.root import StateRoot, identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

JOURNAL = "logs/iterations.jsonl"
MAX_LINE = 4 * 1024 * 1024
TAIL_SCAN = 64 * 1024 * 1024
"""Bytes from the end in which `tail` looks for good lines."""
MOST_BYTES = 64 * 1024 * 1024
"""A journal that is larger goes on in a new file with its last quarter; the old one stays as `.1`
until the next. Some ten thousand iterations."""
_BLOCK = 64 * 1024
_COPY = 1024 * 1024
_TRACE = 256
"""Bytes before a place by which it is known again: they hold an iteration's number and times."""
_RECENT_LINES, _RECENT_BYTES = 64, 256 * 1024


# -- lines -----------------------------------------------------------------------------------------


def good_line(raw: bytes) -> dict[str, Any] | None:
    """The record of a line (without its line feed) if it is a good one."""
    if len(raw) > MAX_LINE or raw.lstrip()[:1] != b"{":
        return None
    try:
        record = json.loads(raw.decode())
    except (ValueError, RecursionError):
        return None
    number = record.get("iteration") if isinstance(record, dict) else None
    return record if isinstance(number, int) and not isinstance(number, bool) else None


@functools.lru_cache(_RECENT_LINES)
def _known_line(line: bytes) -> dict[str, Any] | None:
    """The same for a line that is asked for again and again. Whoever gets it must not change it."""
    return good_line(line[:-1])


def parse_json(raw: bytes) -> bool:
    """True for a line that is JSON, ours or not."""
    try:
        json.loads(raw.decode())
    except (ValueError, RecursionError):
        return False
    return True


def encode_line(record: Mapping[str, Any]) -> bytes:
    """A record's line with its line feed. Long texts and lists are cut until it fits MAX_LINE."""
    line = encode_json(record)
    longest = 256 * 1024
    while len(line) >= MAX_LINE and longest >= 16:
        line = encode_json(_shorter(record, longest))
        longest //= 8
    return line + b"\n"


def _shorter(value: Any, longest: int) -> Any:
    if isinstance(value, str) and len(value) > longest:
        return f"{value[:longest]}… [{len(value) - longest} characters cut]"
    if isinstance(value, list | tuple):
        return [_shorter(item, longest) for item in value[:longest]]
    if isinstance(value, dict):
        return {key: _shorter(item, longest) for key, item in list(value.items())[:longest]}
    return value


def _backwards(fd: int, end: int, scan: int | None = None) -> Iterator[tuple[int, bytes]]:
    """(offset, line without line feed) of complete lines before `end`, newest first.

    Over-long lines and an unterminated last line are left out. `scan` bounds the bytes looked at.
    """
    stop = 0 if scan is None else max(0, end - scan)
    position, held = end, 0
    pieces: list[bytes] = []
    dropping = True  # the text after the last line feed is no line
    while position > stop:
        start = max(stop, position - _BLOCK)
        block = os.pread(fd, position - start, start)
        cursor = len(block)
        while True:
            feed = block.rfind(b"\n", 0, cursor)
            if not dropping:
                pieces.append(block[feed + 1 : cursor])
                held += cursor - feed - 1
                if held > MAX_LINE:
                    pieces, dropping = [], True
            if feed < 0:
                break
            if not dropping:
                yield start + feed + 1, b"".join(reversed(pieces))
            pieces, held, dropping, cursor = [], 0, False, feed
        position = start
    if position == 0 and not dropping:
        yield 0, b"".join(reversed(pieces))


def _forwards(fd: int, position: int = 0) -> Iterator[tuple[int, bytes]]:
    """(offset behind its line feed, line) of every complete line from `position`, oldest first, in
    bounded memory; over-long lines are left out."""
    end, rest, dropping = position, b"", False
    while block := os.pread(fd, _COPY, position):
        position += len(block)
        *lines, last = block.split(b"\n")
        for line in lines:
            end += len(line) + 1
            if not dropping:
                yield end, rest + line
            rest, dropping = b"", False
        end = position - len(last)
        if not dropping:
            rest += last
            dropping = len(rest) > MAX_LINE
            rest = b"" if dropping else rest


def _last_good(fd: int, count: int, scan: int | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if count > 0:
        for _, raw in _backwards(fd, os.fstat(fd).st_size, scan):
            record = good_line(raw)
            if record is not None:
                found.append(record)
                if len(found) == count:
                    break
    return found[::-1]


# -- reading, by anybody, without a lock -----------------------------------------------------------


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int | None]:
    fd = None
    try:
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        yield fd if fd is not None and stat.S_ISREG(os.fstat(fd).st_mode) else None
    except OSError as error:
        raise storage_error("read", path, error) from error
    finally:
        if fd is not None:
            os.close(fd)


def tail(path: str, count: int) -> list[dict[str, Any]]:
    """The last `count` good lines, oldest first, of what journal there is. Raises StorageError."""
    with _opened(path) as fd:
        return [] if fd is None else _last_good(fd, count, TAIL_SCAN)


def stream(path: str, wanted: re.Pattern[bytes] | None = None) -> Iterator[dict[str, Any]]:
    """All good lines in which there is what is `wanted`, oldest first, one at a time. Raises
    StorageError."""
    with _opened(path) as fd:
        for _, raw in _forwards(fd) if fd is not None else ():
            record = good_line(raw) if wanted is None or wanted.search(raw) else None
            if record is not None:
                yield record


class Reached:
    """How far a journal was read: which file it was, to which offset, and what stands before that."""

    def __init__(self, file: tuple[int, int], end: int, before: bytes) -> None:
        self.file, self.end, self.before = file, end, before


def grown(
    path: str, wanted: re.Pattern[bytes], reached: Reached | None = None
) -> tuple[list[dict[str, Any]], Reached | None, bool]:
    """(records, how far it was read, whether from the beginning): of all good lines behind
    `reached` those in which there is what is `wanted`, oldest first.

    Another file, or one of which that part was rewritten, is read from its beginning. Raises
    StorageError."""
    with _opened(path) as fd:
        if fd is None:
            return [], None, True
        found = os.fstat(fd)
        file, begin, records = (found.st_dev, found.st_ino), 0, []
        if reached is not None and reached.file == file:
            start = reached.end - len(reached.before)
            same = os.pread(fd, len(reached.before), start) == reached.before
            begin = reached.end if same else 0
        end = begin
        for line_end, raw in _forwards(fd, begin):
            end = line_end
            record = good_line(raw) if wanted.search(raw) else None
            if record is not None:
                records.append(record)
        start = max(0, end - _TRACE)
        return records, Reached(file, end, os.pread(fd, end - start, start)), not begin


def find(path: str, iteration: int) -> dict[str, Any] | None:
    """An iteration's last good line. Raises StorageError."""
    found = place(path, iteration)
    return found[1] if found else None


def place(path: str, iteration: int) -> tuple[int, dict[str, Any]] | None:
    """The offset behind an iteration's last good line, and the line. Raises StorageError."""
    wanted = re.compile(rb'"iteration"\s*:\s*%d\b' % iteration)
    with _opened(path) as fd:
        if fd is not None:
            for offset, raw in _backwards(fd, os.fstat(fd).st_size):
                if wanted.search(raw):  # 20 times cheaper than parsing every line
                    record = good_line(raw)
                    if record is not None and record["iteration"] == iteration:
                        return offset + len(raw) + 1, record
    return None


def before(path: str, end: int | None, count: int) -> list[tuple[int, dict[str, Any]]]:
    """The last `count` good lines that end at `end` or before (None: at the file's end), oldest
    first, each with the offset behind it. Raises StorageError."""
    found: list[tuple[int, dict[str, Any]]] = []
    with _opened(path) as fd:
        size = os.fstat(fd).st_size if fd is not None else 0
        lines = _backwards(fd, size if end is None else min(end, size)) if fd is not None else ()
        for offset, raw in lines if count > 0 else ():
            record = good_line(raw)
            if record is not None:
                found.append((offset + len(raw) + 1, record))
                if len(found) == count:
                    break
    return found[::-1]


def after(path: str, start: int, count: int) -> list[tuple[int, dict[str, Any]]]:
    """The first `count` good lines from `start` on, each with the offset behind it. Raises
    StorageError."""
    found: list[tuple[int, dict[str, Any]]] = []
    with _opened(path) as fd:
        for end, raw in _forwards(fd, start) if fd is not None and count > 0 else ():
            record = good_line(raw)
            if record is not None:
                found.append((end, record))
                if len(found) == count:
                    break
    return found


def since(path: str, at: float) -> list[dict[str, Any]]:
    """The good lines of iterations that ended at that moment (Unix seconds) or later, oldest first.
    Raises StorageError."""
    found: list[dict[str, Any]] = []
    first = sys.maxsize
    for name in (
        path,
        f"{path}.1",
    ):  # the one that goes on begins with the last quarter of the other
        with _opened(name) as fd:
            for _, raw in _backwards(fd, os.fstat(fd).st_size) if fd is not None else ():
                record = good_line(raw)
                ended = epoch(record.get("ts")) if record is not None else None
                if record is None or ended is None or record["iteration"] >= first:
                    continue
                if ended < at:
                    return found[::-1]
                found.append(record)
        first = found[-1]["iteration"] if found else sys.maxsize
    return found[::-1]


# -- writing, by the one supervisor ----------------------------------------------------------------


class Journal:
    """The open journal of one loop.

    The descriptor stays open, so that a deleted journal can be copied back from it; the last lines
    stay in memory, so that a truncated one gets at least those back."""

    def __init__(self, root: StateRoot, name: str = JOURNAL) -> None:
        self._root = root
        self._name = name
        self._fd = -1
        # as far as we know the file; a different size means that somebody else wrote
        self._size = 0
        self._whole = -1
        """The size up to which it is known to end in a line that is JSON."""
        self._recent: collections.deque[tuple[int, bytes]] = collections.deque()
        self._recent_bytes = 0

    @property
    def path(self) -> str:
        return f"{self._root.path}/{self._name}"

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def open(self) -> None:
        """Open or create the journal and keep its last lines in mind. Raises StorageError."""
        with self._root.guard, storing("open", self.path):
            if self._fd >= 0:
                return
            found = self._root.look(self._name)
            if found is not None and stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                # another name leads there (a backup by hard links, a trap): go on with a copy
                self._fd = self._root.open_file(self._name, os.O_RDONLY)
                self._size = os.fstat(self._fd).st_size
                self._copy_back()
            else:
                self._fd = self._root.open_file(self._name, os.O_RDWR | os.O_APPEND | os.O_CREAT)
                self._size = os.fstat(self._fd).st_size
            self._remember_end()

    def _remember_end(self) -> None:
        self._recent.clear()
        self._recent_bytes = 0
        newest_first = []
        for offset, raw in _backwards(self._fd, self._size, 2 * _RECENT_BYTES):
            newest_first.append((offset, raw + b"\n"))
            if len(newest_first) == _RECENT_LINES:
                break
        for offset, line in reversed(newest_first):
            self._remember(offset, line)

    def _remember(self, offset: int, line: bytes) -> None:
        self._recent.append((offset, line))
        self._recent_bytes += len(line)
        while len(self._recent) > 1 and (
            len(self._recent) > _RECENT_LINES or self._recent_bytes > _RECENT_BYTES
        ):
            self._recent_bytes -= len(self._recent.popleft()[1])

    def size(self) -> int:
        """Bytes; 0 when there is none. Raises StorageError."""
        with self._root.guard, storing("look at", self.path):
            found = self._root.look(self._name)
            return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else 0

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one line and sync it. Raises StorageError; then it does not count."""
        line = encode_line(record)
        with self._root.guard:
            self.open()
            self.heal()
            with storing("append to", self.path):
                self._append(line)

    def _append(self, line: bytes) -> None:
        self._cut_torn()
        start = self._size
        try:
            write_all(self._fd, line)
            data_sync(self._fd)
        except OSError:
            self._take_back(start, line)
            raise
        self._size = self._whole = start + len(line)
        self._remember(start, line)

    def _cut_torn(self) -> None:
        """Move what follows the last line that is JSON to the quarantine; whole again."""
        size = self._size
        if size == self._whole:
            return
        end = 0
        for offset, raw in _backwards(self._fd, size):
            if parse_json(raw):
                end = offset + len(raw) + 1
                break
        if end < size:
            aside = f"{QUARANTINE}/{self._name.replace('/', '_')}.{stamp()}"
            with self._root.replacing(aside) as piece:
                _copy(self._fd, piece, size, end)
                full_sync(piece)
            os.ftruncate(self._fd, end)
            why = f"{size - end} bytes at its end were no line"
            self._root.warnings.append(f"{self._name}: {why}; they are {aside}")
            self._size = end
            self._remember_end()
        self._whole = end

    def _take_back(self, start: int, data: bytes) -> None:
        """Cut off our own half line; if that is impossible, the next append sets it aside."""
        with contextlib.suppress(OSError):
            size = os.fstat(self._fd).st_size
            ours = size - start
            if 0 < ours <= len(data) and os.pread(self._fd, ours, start) == data[:ours]:
                os.ftruncate(self._fd, start)
                size = start
            self._size = size

    def heal(self) -> list[str]:
        """Put back what was deleted, replaced or truncated; returns what was done.

        Raises StorageError; then the open descriptor still holds the content and the next call
        tries again."""
        if self._fd < 0:
            return []
        with self._root.guard, storing("restore", self.path):
            here = self._root.glance(self._name)
            ours = os.fstat(self._fd)
            done = []
            if ours.st_size < self._size:
                self._refill(ours.st_size)
                done.append(f"{self._name} (its last lines: it had been truncated)")
            elif ours.st_size > self._size:  # somebody else appended: nothing of theirs is touched
                self._size = ours.st_size
            if here is None or identity(here) != identity(ours):
                if here is not None:
                    self._root.set_aside(
                        self._name, "it had replaced the journal of a running supervisor"
                    )
                self._copy_back()
                done.append(self._name)
            return done

    def _refill(self, size: int) -> None:
        lost = [(offset, line) for offset, line in self._recent if offset + len(line) > size]
        known = self._size
        try:
            if lost and lost[0][0] <= size:  # the cut went through a line that we have
                size = lost[0][0]
                os.ftruncate(self._fd, size)
            else:
                self._size, self._whole = size, -1
                self._cut_torn()
                size = self._size
            write_all(self._fd, b"".join(line for _, line in lost))
            data_sync(self._fd)
        except OSError:
            self._size = known
            os.ftruncate(self._fd, size)
            raise
        self._size = os.fstat(self._fd).st_size
        self._remember_end()

    def _copy_back(self, start: int = 0) -> None:
        with self._root.replacing(self._name, flags=os.O_APPEND) as copy:
            _copy(self._fd, copy, self._size, start)
            full_sync(copy)
            fresh = os.dup(copy)
        old, self._fd = self._fd, fresh
        self._size -= start
        os.close(old)
        with self._root.directory(os.path.dirname(self._name)) as directory:
            full_sync(directory)

    def rotate(self, most: int = MOST_BYTES) -> bool:
        """Keep it within bounds; True when a new file has begun. Raises StorageError."""
        with self._root.guard, storing("rotate", self.path):
            if self._fd < 0 or self._size <= most:
                return False
            self.heal()
            start = self._size - most // 4
            start += os.pread(self._fd, MAX_LINE, start).find(b"\n") + 1
            with self._root.directory(os.path.dirname(self._name)) as directory:
                leaf = os.path.basename(self._name)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{leaf}.1", dir_fd=directory)
                os.link(leaf, f"{leaf}.1", src_dir_fd=directory, dst_dir_fd=directory)
            self._copy_back(start)
            self._remember_end()
            return True

    def tail(self, count: int) -> list[dict[str, Any]]:
        """The last `count` good lines of TAIL_SCAN bytes, in order. Raises StorageError."""
        return self._read(count, TAIL_SCAN)

    def last(self) -> dict[str, Any] | None:
        """The last good line, however far from the end it is. Raises StorageError."""
        found = self._read(1, None)
        return found[0] if found else None

    def _read(self, count: int, scan: int | None) -> list[dict[str, Any]]:
        with self._root.guard, storing("read", self.path):
            if self._fd >= 0:
                found = self._remembered(count)
                return _last_good(self._fd, count, scan) if found is None else found
            try:
                fd = self._root.open_file(self._name, os.O_RDONLY)
            except FileNotFoundError:
                return []
            try:
                return _last_good(fd, count, scan)
            finally:
                os.close(fd)

    def _remembered(self, count: int) -> list[dict[str, Any]] | None:
        """The last good lines from memory; None when the file has to be read for them."""
        if not self._recent or os.fstat(self._fd).st_size != self._size:
            return None
        found: list[dict[str, Any]] = []
        for _, line in reversed(self._recent):
            record = _known_line(line) if len(line) <= _BLOCK // 4 else good_line(line[:-1])
            found += [dict(record)] if record is not None else []
            if len(found) >= count:
                return found[:count][::-1]
        return found[::-1] if self._recent[0][0] == 0 else None


def _copy(source: int, target: int, size: int, position: int = 0) -> None:
    while position < size:
        block = os.pread(source, min(_COPY, size - position), position)
        if not block:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        write_all(target, block)
        position += len(block)
