"""What a person reads while the supervisor works: lines, and a live line below them.

Whoever reads may stand still: Ctrl-S, a pager, a full pipe, a frozen session. A write then blocks
for as long as they like. So a thread of our own writes, what does not fit into its queue is dropped
and counted, and the count is said when the reader goes on. Nothing waits for a reader but `close`,
for a moment. Standard library only."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import stat
import threading
import time
from queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

MOST_LINES = 1000
"""So many lines wait for the reader; a day of an ordinary loop."""
PATIENCE_SEC = 2.0
"""So long the end waits for a reader that takes nothing."""
_ERASE = "\r\x1b[2K"
_LIVE, _END = object(), object()


class Console:
    """Writes to one stream. Every call but `close` returns at once, whatever the reader does."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._queue: SimpleQueue[object] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._live = ""
        self._live_queued = False
        self._live_shown = False
        self._lost = self._told = self._written = 0
        self.say_lost: Callable[[int], None] = lambda _lines: None
        """Called when the reader goes on, with the number of lines that it has missed."""

    def line(self, text: str) -> None:
        """Print a line above the live line."""
        if self._queue.qsize() >= MOST_LINES:
            self._lost += 1
            return
        self._queue.put(text)
        self._start()

    def live(self, text: str) -> None:
        """Show this at the bottom from now on, cut to the terminal's width; "" takes it away."""
        width = shutil.get_terminal_size().columns - 1
        self._live = "".join(char if char.isprintable() else " " for char in text)[:width]
        if not self._live_queued:  # one that nobody has read yet is simply another text now
            self._live_queued = True
            self._queue.put(_LIVE)
            self._start()

    def close(self) -> None:
        """Take the live line away and write what waits, as long as it is read."""
        self._live = ""
        self._queue.put(_END)
        self._start()
        written, deadline = -1, 0.0
        while self._thread is not None and self._thread.is_alive():
            if written != self._written:
                written, deadline = self._written, time.monotonic() + PATIENCE_SEC
            if time.monotonic() > deadline:
                return
            self._thread.join(0.02)

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._write_on, name="console", daemon=True)
            with contextlib.suppress(RuntimeError):  # the next line tries again
                thread.start()
                self._thread = thread

    def _write_on(self) -> None:
        while (item := self._queue.get()) is not _END:
            text = f"{item}{os.linesep}" if isinstance(item, str) else ""
            if item is _LIVE:
                self._live_queued = False
            self._write(text)
            self._written += 1
            if self._lost != self._told and self._queue.qsize() <= MOST_LINES // 2:
                lost, self._told = self._lost - self._told, self._lost
                self.say_lost(lost)
        self._write("")

    def _write(self, text: str) -> None:
        live, erase = self._live, _ERASE if self._live_shown else ""
        self._live_shown = bool(live)
        write_out(self._out, erase + text + live)


def output_files() -> tuple[str, ...]:
    """The regular files that our stdout and stderr are, where the kernel tells their paths."""
    found: dict[str, None] = {}
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            path, ours = os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd)
            if stat.S_ISREG(ours.st_mode) and os.path.samestat(ours, os.lstat(path)):
                found[path] = None
    return tuple(found)


def write_out(out: TextIO, text: str) -> None:
    """Write all of it past every buffer; a reader that went away is no reason to complain."""
    with contextlib.suppress(OSError, ValueError):
        try:
            fd = out.fileno()
        except (OSError, ValueError, AttributeError):
            out.write(text)
            return
        data = text.encode(out.encoding or "utf-8", "replace")
        while data:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:  # somebody else has made it so
                select.select([], [fd], [])


def say(out: TextIO, text: str, patience_sec: float = 1.0) -> None:
    """Write a line, or give up when nobody reads it in time."""
    args = (out, text + os.linesep)
    thread = threading.Thread(target=write_out, args=args, name="last words", daemon=True)
    try:
        thread.start()
        thread.join(patience_sec)
    except RuntimeError:  # no further thread can be had: a file or a terminal takes it at once
        write_out(*args)
