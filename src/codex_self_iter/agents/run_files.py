"""Bounded reading of a run's directory: a 1 GiB stdout or a 200 MiB line leaves memory flat."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterable, Iterator
from typing import BinaryIO

from codex_self_iter.world.guarded import open_guarded

ANSWER_BYTES = 256 * 1024
"""The longest answer that a report carries (its end is kept)."""
_WHOLE_BYTES = 16 * 1024 * 1024
_HEAD_BYTES = 1024 * 1024
# Codex writes a command's whole output (cut at 1 MiB) into one line; with every byte escaped that
# is 6 MiB.
LINE_BYTES = 8 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_TAIL_BYTES = LINE_BYTES + _CHUNK_BYTES  # of a line that begins before it, too, its length tells


class RunFiles:
    """The files of one run. A file that is missing or cannot be read counts as empty."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.too_long = False
        """`iter_lines` met a line that is longer than it gives."""

    def path(self, name: str) -> str:
        """Absolute path of a file of this run."""
        return os.path.join(self.directory, name)

    def size(self, name: str) -> int:
        """Bytes, 0 when missing."""
        try:
            return os.stat(self.path(name)).st_size
        except OSError:
            return 0

    def read_tail(self, name: str, limit: int = ANSWER_BYTES) -> str:
        """The last `limit` bytes as text, whatever bytes they are; a cut first word, of which
        nobody could tell that it is half a secret, is dropped."""
        size = self.size(name)
        data = b"".join(self._chunks(name, [(max(0, size - limit), size)]))
        if size > limit:
            data = _drop_cut_word(data)
        return data.replace(b"\0", b"").decode("utf-8", "replace")

    def iter_lines(self, name: str) -> Iterator[str]:
        """The lines of a file; head and tail only when it is larger than 16 MiB.

        A line longer than 8 MiB, a line that a bound cut and what is left of a hole (NUL bytes) are
        dropped: they cannot be whole events. A last line without its end is given: the reader sees
        whether it is whole."""
        size = self.size(name)
        if size <= _WHOLE_BYTES:
            self.too_long |= yield from _lines(self._chunks(name, [(0, size)]), from_start=True)
            return
        yield from _lines(self._chunks(name, [(0, _HEAD_BYTES)]), from_start=True, to_end=False)
        tail = self._chunks(name, [(size - _TAIL_BYTES, size)])
        self.too_long |= yield from _lines(tail, from_start=False)

    def _chunks(self, name: str, spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        try:
            file: BinaryIO = open(open_guarded(self.path(name)), "rb", buffering=0)  # noqa: SIM115 - closed below
        except OSError:
            return
        with file:
            for start, end in spans:
                file.seek(start)
                while start < end:
                    chunk = file.read(min(_CHUNK_BYTES, end - start))
                    if not chunk:
                        break
                    start += len(chunk)
                    yield chunk


def _lines(
    chunks: Iterable[bytes], *, from_start: bool, to_end: bool = True
) -> Generator[str, None, bool]:
    """The whole lines; returns whether one was too long."""
    too_long = False
    held: list[bytes] = []
    length = 0
    whole = from_start  # False while inside a line that cannot be given
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            if whole and length + len(part) <= LINE_BYTES:
                yield _text(b"".join([*held, part]))
            too_long |= length + len(part) > LINE_BYTES
            held, length, whole = [], 0, True
        length += len(rest)
        if length > LINE_BYTES:
            held, whole = [], False
        elif whole:
            held.append(rest)
    if to_end and whole and length:
        yield _text(b"".join(held))
    return too_long or (to_end and not whole)  # of a tail without a line's end


def _text(line: bytes) -> str:
    return line.strip(b"\0\r").decode("utf-8", "replace")


def _drop_cut_word(data: bytes) -> bytes:
    word = re.match(rb"\S{0,4096}\s|[\x80-\xbf]{0,3}", data)  # else the rest of a character
    return data[word.end() :] if word else data
