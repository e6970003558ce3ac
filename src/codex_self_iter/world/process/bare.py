"""What launcher, recorder and supervisor share: processes, their files, their pipes.

The standard library only: the launcher runs without site-packages, and every recorder is a fork of
it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import select
import stat
import sys
import time
from collections.abc import Mapping
from typing import Any

PIECE_BYTES = 64 * 1024
"""What a pipe holds."""
PUMP_BYTES = 16 * PIECE_BYTES
"""So much is moved before signals and the supervisor are listened to again."""
DRAIN_BYTES = 256 * PIECE_BYTES
"""What is moved at most at an end: left-overs may print for ever."""
KEPT_BYTES = 4 * PIECE_BYTES
"""So much of the newest output waits in memory for a disk that is full: an answer comes last."""
ROOM_SEC = 1.0
"""So long a run's end waits for room for it: whoever caps a flood makes some within milliseconds."""

_PR_SET_NAME, _PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 15, 36, 37


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: Any) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    return bool(_libc().prctl(option, argument, 0, 0, 0) == 0)


def child_subreaper(on: bool) -> bool | None:
    """Make this process the adopter of orphaned descendants; returns what it was, None: cannot."""
    before = ctypes.c_int(0)
    if not _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before)):
        return None
    _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(on))
    return bool(before.value)


def name_process(name: str) -> None:
    """Set the name that `ps` and /proc/PID/stat show (15 bytes)."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]))


def contents(path: str) -> bytes:
    """What a small file of the kernel says; b"" where it, or its process, is gone or forbidden."""
    found = b""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # half of what a file object costs
        try:
            while piece := os.read(fd, 65536):
                found += piece
        finally:
            os.close(fd)
    return found


def _fields(pid: int | str) -> list[bytes]:
    """/proc/PID/stat behind the name, from the state on; [] if there is no such process."""
    return contents(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def start_ticks(pid: int) -> int:
    """Start time of a process in kernel ticks since boot, 0 if there is none (or no /proc)."""
    fields = _fields(pid)
    return int(fields[19]) if fields else 0


def pin(pid: int) -> list[int]:
    """A descriptor of this process; none where the system, or what guards it, has no such thing."""
    with contextlib.suppress(AttributeError, OSError):
        return [os.pidfd_open(pid)]
    return []


def children_of(pid: int) -> list[int]:
    """Direct children of a process, zombies included."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found.extend(map(int, file.read().split()))
    except FileNotFoundError:
        return _children_by_scan(pid)
    except OSError:
        pass
    return found


def _children_by_scan(pid: int) -> list[int]:
    """The same for kernels without `children` files."""
    entries = os.listdir("/proc") if os.path.isdir("/proc/self") else []
    pids = [int(entry) for entry in entries if entry.isdecimal()]
    return [one for one in pids if _fields(one)[1:2] == [b"%d" % pid]]


def write_private(path: str, value: Mapping[str, Any], aside: str = "") -> bool:
    """Replace a private JSON file atomically; False if that is impossible now (gone, disk full).

    Whatever an agent put in its way, or in the way of its temporary name, is moved to `aside`."""
    data = json.dumps(value).encode() + b"\n"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        clear_way(f"{path}.tmp", aside, empty=True)
        with open(os.open(f"{path}.tmp", flags, 0o600), "wb", buffering=0) as file:
            whole = file.write(data) == len(data)
        if whole:
            clear_way(path, aside)
            os.rename(f"{path}.tmp", path)
    except OSError:
        return False
    return whole


def clear_way(path: str, aside: str, *, empty: bool = False) -> str:
    """Move what is in the place of a regular file into `aside`; returns where it is now, or "".

    A regular file stays, unless the place is to be `empty`. Raises OSError."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return ""
    if not stat.S_ISREG(mode):
        return move_aside(path, aside)
    if empty:
        os.unlink(path)
    return ""


def move_aside(path: str, aside: str) -> str:
    """Move what is there into `aside`, made if need be; returns where it is now. OSError."""
    aside = aside or os.path.dirname(path)
    os.makedirs(aside, 0o700, exist_ok=True)
    there = f"{aside}/{os.path.basename(path)}.{time.time_ns()}"
    os.rename(path, there)
    return there


class Pump:
    """Moves what a run prints from its pipe into its file.

    A pipe and not the file itself is what the run has: whoever opens `/dev/stderr` or
    `/proc/self/fd/1` anew, as a shell does for `> /dev/stderr`, empties a file, but no pipe."""

    def __init__(self, source: int, target: int) -> None:
        """`source` is closed at its end, `target` with `close`; both by `close`."""
        self.source, self.target = source, target
        self.lost = 0
        self._kept = b""
        os.set_blocking(source, False)

    def move(self, most: int = PUMP_BYTES) -> int:
        """Move what is there, at most so much; returns how many bytes that was."""
        moved = 0
        while self.source >= 0 and moved < most:
            try:
                data = os.read(self.source, PIECE_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                os.close(self.source)
                self.source = -1
                break
            moved += len(data)
            self._write(data)
        return moved

    def settle(self) -> None:
        """Wait for room for what the disk did not take, at most `ROOM_SEC`."""
        for _ in range(int(ROOM_SEC * 100)):
            if not self._kept:
                break
            select.select((), (), (), 0.01)  # see world/pause.py
            self._write(b"")

    def _write(self, data: bytes) -> None:
        """A disk that takes no more must not stop the run: the newest waits for room, older output
        is lost, counted, and told in the stream as soon as it can be written to again."""
        note = b"\n[... %d bytes lost ...]\n" % self.lost if self.lost else b""
        view = memoryview(note + self._kept + data) if note or self._kept else memoryview(data)
        done = 0
        with contextlib.suppress(OSError):
            while done < len(view):
                done += os.write(self.target, view[done:])
        if done == len(view):
            self.lost, self._kept = 0, b""
            return
        if done >= len(note):
            self.lost, rest = 0, view[done:]
        else:
            rest = view[len(note) :]
        self.lost += max(0, len(rest) - KEPT_BYTES)
        self._kept = bytes(rest[-KEPT_BYTES:])

    def close(self) -> None:
        """Idempotent."""
        for fd in (self.source, self.target):
            if fd >= 0:
                os.close(fd)
        self.source = self.target = -1
