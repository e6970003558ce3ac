"""Reading growing files in bounded memory: lines of any length, holes, truncation, deletion."""

from __future__ import annotations

import errno
import os

from codex_self_iter.world.guarded import open_guarded

CHUNK = 256 * 1024
MAX_LINE = 8 * 1024 * 1024
"""Longer lines are cut. Agents put a command's output into one event: over 1 MiB was seen."""
CUT = "[…]"


class GrowingFile:
    """A file that an agent appends to and that the output cap may shorten or punch a hole into."""

    def __init__(self, path: str, window: int | None = None, start: int = 0) -> None:
        """Nothing is opened yet; the file need not exist. With a `window`, of what is there when it
        is opened only the whole lines in the last so many bytes are read; else all from `start` on,
        the beginning of a line."""
        self.path = path
        self._fd = -1
        self._offset = start
        self._window = window
        self.skipped = 0
        """Bytes at the beginning that the window has left out."""
        self._line: list[bytes] = []
        self._held = 0
        self._dropped = 0

    def close(self) -> None:
        """Close the file; it can be read again from where it was."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def position(self) -> int:
        """The offset behind the last whole line that was read: a `start` to go on from."""
        return self._offset - self._held - self._dropped

    def catch_up(self, most: int, window: int) -> int:
        """Go to the whole lines of the last `window` bytes where more than `most` are unread; the bytes
        left out. Raises OSError for anything but a missing file."""
        before = self.position
        if not self._opened() or os.fstat(self._fd).st_size - self._offset <= most:
            return 0
        self._line, self._held, self._dropped, self._window = [], 0, 0, window
        self._skip()
        return self._offset - before

    def lines(self) -> list[str]:
        """The next whole lines, at most about CHUNK bytes of them; [] when there is nothing new.

        Raises OSError for anything but a missing file."""
        data = self.chunk()
        # a long line: go on until its end, so that "nothing new" stays []
        while data and b"\n" not in data:
            self._hold(data)
            data = self.chunk()
        *whole, rest = data.split(b"\n")
        lines = [self._take(part) for part in whole]
        self._hold(rest)
        return lines

    def rest(self) -> list[str]:
        """The unfinished last line, at the end of the stream."""
        return [self._take(b"")] if self._held or self._dropped else []

    def chunk(self) -> bytes:
        """The next bytes as they are, b"" when there are none yet; a hole is left out and marked."""
        if not self._opened():
            return b""
        size = os.fstat(self._fd).st_size
        if size < self._offset:
            self._offset = 0
            return f"{CUT} the output was cut here by its cap\n".encode()
        gap = self._hole(size)
        if gap:
            self._offset += gap
            return f"\n{CUT} {gap} bytes were dropped here by the output cap\n".encode()
        data = os.pread(self._fd, CHUNK, self._offset)
        self._offset += len(data)
        return data

    def _opened(self) -> bool:
        if self._fd < 0:
            try:
                self._fd = open_guarded(self.path)
            except FileNotFoundError:
                return False
            self._skip()
        return True

    def _skip(self) -> None:
        """Begin with the first whole line of the window."""
        window, self._window = self._window, None
        start = 0 if window is None else os.fstat(self._fd).st_size - window
        if start > 0:
            feed = os.pread(self._fd, CHUNK, start - 1).find(b"\n")
            self._offset = self.skipped = start + max(0, feed)

    def _hole(self, size: int) -> int:
        """Length of the hole at the offset, 0 when there is data (or no way to know)."""
        if self._offset >= size or not hasattr(os, "SEEK_DATA"):
            return 0
        try:
            data = os.lseek(self._fd, self._offset, os.SEEK_DATA)
        except OSError as error:
            return size - self._offset if error.errno == errno.ENXIO else 0  # a hole up to the end
        return data - self._offset

    def _hold(self, part: bytes) -> None:
        room = MAX_LINE - self._held
        kept = part[:room] if room > 0 else b""
        self._dropped += len(part) - len(kept)
        self._held += len(kept)
        if kept:
            self._line.append(kept)

    def _take(self, part: bytes) -> str:
        self._hold(part)
        text = b"".join(self._line).decode("utf-8", "replace")
        if self._dropped:
            text += f" {CUT} {self._dropped} bytes of this line are not shown"
        self._line, self._held, self._dropped = [], 0, 0
        return text
