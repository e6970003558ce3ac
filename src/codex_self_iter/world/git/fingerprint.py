"""What a file contains, in a short string: `<mode> <hash>`, the hash being git's id of the content.

Using git's form means that a file whose content equals what HEAD has compares equal to it, however
the index came to look. A file is read again only when its inode, size or times changed since the
last look; times that lie within two seconds of the look prove nothing (a second edit in the same
tick of the clock) and the file is read again."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
import time

_CHUNK = 1024 * 1024
_WHOLE = 64 * 1024 * 1024
"""Files up to this size are read whole; of larger ones the size and 64 samples of 64 KiB."""
_SAMPLES = 64
_SAMPLE = 64 * 1024
_RACY_NS = 2_000_000_000
"""FAT keeps times to 2 s, ext4 to a kernel tick (4 ms): the coarsest that is met."""

_Key = tuple[int, int, int, int, int, int]
StatCache = dict[bytes, tuple[_Key, str]]
"""Absolute path -> (device, inode, size, mtime, ctime, mode) and the fingerprint found then."""


@dataclasses.dataclass(slots=True)
class Budget:
    """How long one look may last. `stop` is set from outside when nobody waits any more."""

    deadline: float
    stop: bool = False

    @property
    def spent(self) -> bool:
        """True when the look must end."""
        return self.stop or time.monotonic() > self.deadline


class Hasher:
    """Fingerprints for one look. `fresh` becomes the next look's cache; the old one is only read.

    Attributes:
        fresh: the cache after this look: only paths seen in it.
        unreadable: paths that could not be opened, at most ten."""

    def __init__(self, cache: StatCache, budget: Budget, object_format: str = "sha1") -> None:
        self._cache = cache
        self._budget = budget
        self._format = object_format
        self._looked_ns = time.time_ns()
        self.fresh: StatCache = {}
        self.unreadable: list[bytes] = []

    def fingerprint(self, path: bytes) -> str | None:
        """The fingerprint of an absolute path; "": nothing is there; None: the budget is spent."""
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError:
            return self._unreadable(path, "unknown")
        place = found.st_dev, found.st_ino
        key = (*place, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)
        cached = self._cache.get(path)
        if cached is not None and cached[0] == key:
            self.fresh[path] = cached
            return cached[1]
        if self._budget.spent:
            return None
        result = self._read(path, found)
        newest = max(found.st_mtime_ns, found.st_ctime_ns)
        if result is not None and newest < self._looked_ns - _RACY_NS:
            self.fresh[path] = (key, result)
        return result

    def _read(self, path: bytes, found: os.stat_result) -> str | None:
        if stat.S_ISLNK(found.st_mode):
            try:
                target = os.readlink(path)
            except OSError:
                return ""
            return f"120000 {self._start(len(target), target).hexdigest()}"
        if stat.S_ISDIR(found.st_mode):
            return ""  # the file that was here is gone; what is in the directory stands for itself
        if not stat.S_ISREG(found.st_mode):
            return f"special {stat.S_IFMT(found.st_mode):o}"
        mode = "100755" if found.st_mode & stat.S_IXUSR else "100644"
        try:  # a pipe put there meanwhile must not block, a link put there must not be followed
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                read = self._sampled if found.st_size > _WHOLE else self._whole
                digest = read(fd, found.st_size)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return ""
        except OSError:
            return self._unreadable(path, f"{found.st_size} {found.st_mtime_ns}")
        return None if digest is None else f"{mode} {digest}"

    def _start(self, size: int, data: bytes = b"") -> hashlib._Hash:
        digest = hashlib.new(self._format, f"blob {size}\0".encode(), usedforsecurity=False)
        digest.update(data)
        return digest

    def _whole(self, fd: int, size: int) -> str | None:
        digest = self._start(size)
        while chunk := os.read(fd, _CHUNK):
            if self._budget.spent:
                return None
            digest.update(chunk)
        return digest.hexdigest()

    def _sampled(self, fd: int, size: int) -> str | None:
        digest = self._start(size)
        for number in range(_SAMPLES):
            if self._budget.spent:
                return None
            digest.update(os.pread(fd, _SAMPLE, (size - _SAMPLE) * number // (_SAMPLES - 1)))
        return f"~{digest.hexdigest()}"

    def _unreadable(self, path: bytes, what_is_known: str) -> str:
        if len(self.unreadable) < 10:
            self.unreadable.append(path)
        return f"unreadable {what_is_known}"
