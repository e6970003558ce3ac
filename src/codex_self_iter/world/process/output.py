"""A run's output files: bounded on disk while it writes, bounded in memory when they are read.

Its recorder moves what it prints from pipes into these files. While it writes, everything between
the head and a tail is punched out of the file (offsets stay valid for whoever follows it); after
its end the file is compacted to head, one line that says what was dropped, and tail."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import sys

from codex_self_iter.world.guarded import open_guarded
from codex_self_iter.world.process.bare import DRAIN_BYTES, Pump, clear_way, move_aside

HEAD_BYTES = 256 * 1024
"""How much of the beginning of a capped stream is kept; the rest of the cap is tail."""
FLOOD_BYTES_PER_SEC = 50 * 1024 * 1024
"""A stream that grows faster than this is looked at every few milliseconds."""

_CHUNK = 1 << 20
_BLOCK = 4096
_ALIGN_WITHIN = 64 * 1024
_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02


def free_disk_mb(path: str) -> int:
    """Free disk in MiB, for unprivileged users, where `path` is or would be. Raises OSError."""
    while not os.path.exists(path):
        path = os.path.dirname(os.path.abspath(path))
    return shutil.disk_usage(path).free // (1024 * 1024)


def _punch(fd: int, start: int, end: int, *, holes: bool) -> None:
    """Free the disk of [start, end); where there are no holes, drop everything from `start` on."""
    if holes:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        if libc.fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, start, end - start) == 0:
            return
        if ctypes.get_errno() not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.ftruncate(fd, start)  # the writer appends, so it goes on behind the head


class Stream:
    """One output file: its size, when it last grew, its cap. Not thread-safe; one thread owns it.

    Attributes:
        size: apparent size in bytes, what was punched out included.
        grown_at: monotonic time of the last look that saw growth, or None.
        troubles: what became of it that nobody should have to guess, a line each."""

    def __init__(
        self,
        path: str,
        limit_bytes: int,
        *,
        make: bool = False,
        source: int = -1,
        aside: str = "",
        holes: bool = sys.platform.startswith("linux"),
    ) -> None:
        """Open an existing file, or `make` it. `limit_bytes` bounds its disk; 0: no bound. OSError.

        `source` is the run's pipe (closed with the file), read only where no recorder is left to.
        `aside` is where goes what lies in the file's way. Without `holes` (systems and file systems
        that have none) only the head outlasts the cap."""
        self.path, self.limit, self.aside = path, limit_bytes, aside
        self._fd = open_guarded(path, os.O_RDWR | (os.O_CREAT if make else 0))
        self._pump = Pump(source, self._fd) if source >= 0 else None
        self.troubles: list[str] = []
        self._punched = False
        self._holes = holes
        self._cut = False
        self._looked_at: float | None = None
        self.size = 0
        self.grown_at: float | None = None

    @property
    def head(self) -> int:
        """Bytes kept from the beginning, a whole number of disk blocks."""
        return min(HEAD_BYTES, self.limit // 4) // _BLOCK * _BLOCK

    @property
    def source(self) -> int:
        """The reading end of the run's pipe, -1 where there is none."""
        return self._pump.source if self._pump is not None else -1

    def poll(self, now: float) -> float:
        """Look at the file, cap it if need be; returns seconds until the next look is due."""
        status = os.fstat(self._fd)
        grown, since = status.st_size - self.size, now - (self._looked_at or now)
        if grown < 0 and not self._cut:
            self.troubles.append(f"{self.path} was cut by {-grown} bytes by another program")
        self._cut = False
        self.size, self._looked_at = status.st_size, now
        if grown:
            self.grown_at = now
        disk = status.st_blocks * 512
        if self.limit and disk > self.limit * 3 // 4:
            self._cap(status.st_size)
        if not grown:
            return 0.25
        rate = grown / since if since > 0 else 0.0
        return 0.005 if self.limit and rate > min(FLOOD_BYTES_PER_SEC, self.limit) else 0.05

    def _cap(self, size: int) -> None:
        end = (size - self.limit // 2) // _BLOCK * _BLOCK
        if end > self.head:
            _punch(self._fd, self.head, end, holes=self._holes)
            self._punched = True
            self._cut = os.fstat(self._fd).st_size < size

    def take(self, most: int = DRAIN_BYTES) -> None:
        """Do the recorder's work: move what the run has printed. Only where it has none."""
        if self._pump is not None:
            os.lseek(self._fd, 0, os.SEEK_END)
            self._pump.move(most)

    def finish(self) -> int:
        """Take the rest, compact, put back what was deleted, close; the writers are gone.

        Returns the size. Raises OSError when the disk refuses; the descriptor is closed all the
        same."""
        with contextlib.closing(self):
            self.take()
            size = self.size = os.fstat(self._fd).st_size
            if self.limit and (self._punched or size > self.limit):
                self._compact(size)
            self._restore()
        return size

    def close(self) -> None:
        """Close without touching the file. Idempotent."""
        if self._pump is not None:
            self._pump.close()
        elif self._fd >= 0:
            os.close(self._fd)
        self._fd, self._pump = -1, None

    def _compact(self, size: int) -> None:
        """Move the tail down behind the head, in place, in steps: disk and memory stay flat."""
        with contextlib.suppress(OSError):  # room first: the flood itself may have filled the disk
            self._cap(size)
        source = max(self.head, size - self.limit // 2)
        source += _to_line_start(self._fd, source, size)
        note = b"\n[... %d bytes dropped ...]\n" % (source - self.head)
        if source <= self.head + len(note):
            return
        target = self.head + os.pwrite(self._fd, note, self.head)
        while source < size and (chunk := os.pread(self._fd, min(_CHUNK, size - source), source)):
            os.pwrite(self._fd, chunk, target)
            source, target = source + len(chunk), target + len(chunk)
        os.ftruncate(self._fd, target)

    def _own_directories(self) -> list[str]:
        """The file's directories below the state directory, from the top."""
        found, state = [os.path.dirname(self.path)], os.path.dirname(self.aside) or "/"
        while (above := os.path.dirname(found[-1])).startswith(f"{state}/") and self.aside:
            found.append(above)
        return found[::-1]

    def _restore(self) -> None:
        """Write the file anew if its name is gone (`git clean -xdf`): the answer may be in it."""
        here = os.fstat(self._fd)
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except PermissionError:
            return  # somebody took the rights of a directory above: the file is where it was
        except OSError:
            there = None
        if there is not None and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            return
        if self.aside and not os.path.isdir(os.path.dirname(os.path.dirname(self.aside))):
            return  # the workspace itself is gone: nothing is made in its place
        parent = os.path.dirname(self.path)
        for one in self._own_directories():
            if os.path.islink(one) or os.path.isfile(one):
                moved = move_aside(one, self.aside)
                self.troubles.append(f"{one} was no directory: it is {moved} now")
        os.makedirs(parent, 0o700, exist_ok=True)
        if moved := clear_way(self.path, self.aside, empty=True):
            self.troubles.append(f"{self.path} was no file: it is {moved} now")
        with open(open_guarded(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb", 0) as copy:
            offset = 0
            while chunk := os.pread(self._fd, _CHUNK, offset):
                offset += copy.write(chunk) or 0


def _to_line_start(fd: int, offset: int, size: int) -> int:
    """Bytes from `offset` to the next beginning of a line, 0 if none is near."""
    window = os.pread(fd, min(_ALIGN_WITHIN, size - offset), offset)
    return window.find(b"\n") + 1


def read_head_tail(path: str, head: int, tail: int) -> tuple[bytes, bytes, int]:
    """(first `head` bytes, last `tail` bytes, number of bytes between them); never overlapping.

    A file that does not exist is empty."""
    try:
        with open(open_guarded(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(head)
            start = max(len(first), size - tail)
            file.seek(start)
            return first, file.read(tail), start - len(first)
    except FileNotFoundError:
        return b"", b"", 0
