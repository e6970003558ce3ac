"""What is kept of old runs and prompts, and how large the state directory is.

Of `logs/runs/*` and `prompts/*` the oldest iterations go first, never the newest; of `quarantine/*`
and `inbox/done/*` what was put there first. The journal and the snapshots stay. Sizes of finished runs do not change, so they
are measured once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator

from codex_self_iter.world.state.durable import storing
from codex_self_iter.world.state.root import StateRoot

_MIB = 1024 * 1024
_DAY = 86400.0
_PLACES = ("logs/runs", "prompts")
ASIDE = ("quarantine", "inbox/done")
KEEP_ASIDE = 200
"""So many of each are kept: what was set aside is looked at soon or never."""
_NUMBER = re.compile(r"(\d+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Pruned:
    """What one pass removed: names, bytes on disk; `over`: the size bound cannot be met."""

    removed: tuple[str, ...]
    freed_bytes: int
    over: bool


@dataclasses.dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    iteration: int
    mtime: float
    size: int


class Retention:
    """Prunes and measures one state directory. Bounds as in the configuration; 0: no bound."""

    def __init__(
        self,
        root: StateRoot,
        *,
        keep_runs: int = 0,
        keep_days: float = 0,
        max_state_mb: float = 0,
        keep_newest: int = 3,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`keep_newest`: so many newest iterations are kept whatever the other bounds say."""
        self._root = root
        self.bound(keep_runs=keep_runs, keep_days=keep_days, max_state_mb=max_state_mb)
        self._keep_newest = keep_newest
        self._wall = wall
        self._sizes: dict[str, int] = {}  # of directories that belong to finished iterations
        self._usage: tuple[float, int] | None = None

    def bound(self, *, keep_runs: int, keep_days: float, max_state_mb: float) -> None:
        """Other bounds from now on."""
        self._keep_runs, self._keep_days = keep_runs, keep_days
        self._max_bytes = int(max_state_mb * _MIB)

    def usage_mb(self, *, max_age_sec: float = 60.0) -> float:
        """Disk use in MiB, at most `max_age_sec` old. Raises StorageError."""
        now = time.monotonic()
        if self._usage is None or now - self._usage[0] >= max_age_sec:
            with storing("measure", self._root.path):
                self._usage = now, self._measure()
        return self._usage[1] / _MIB

    def _measure(self) -> int:
        in_runs = sum(entry.size for entry in self._entries("logs/runs"))
        with self._root.directory("") as fd:
            return in_runs + _disk_use(fd, skip=("runs",))

    def prune(self, protect: Collection[str] = (), *, budget_sec: float = 2.0) -> Pruned:
        """Remove what the bounds say, oldest first; the next call goes on after `budget_sec`.

        `protect`: names (`000012-executor`) that a living run uses. Raises StorageError."""
        deadline = time.monotonic() + budget_sec
        with storing("remove old runs in", self._root.path):
            kept: list[_Entry] = []
            doomed: list[_Entry] = []
            entries = {place: self._entries(place) for place in _PLACES}
            numbers = {entry.iteration for place in entries.values() for entry in place}
            newest = sorted(numbers)[-self._keep_newest :]
            for place in entries.values():
                # What is safe counts as kept, but no bound ever removes it: the newest iterations
                # are what people look at, and a living run writes into its directory.
                rest = [
                    one
                    for one in place
                    if one.iteration not in newest and _leaf(one) not in protect
                ]
                old = self._old(rest, len(place) - len(rest))
                doomed += old
                gone = {entry.name for entry in old}
                kept += [entry for entry in rest if entry.name not in gone]
            for place_aside in ASIDE:
                doomed += self._aside(place_aside)
            # The size bound comes last and takes both places together, oldest iteration first, so
            # that a prompt does not outlive its run. Measuring is the dear part: not without bound.
            usage = self._measure() if self._max_bytes else 0
            usage -= sum(entry.size for entry in doomed)
            for entry in sorted(kept, key=lambda entry: (entry.iteration, entry.name)):
                if not self._max_bytes or usage <= self._max_bytes:
                    break
                doomed.append(entry)
                usage -= entry.size
            removed = list(self._remove(doomed, deadline))
        self._usage = None
        freed = sum(entry.size for entry in removed)
        return Pruned(tuple(entry.name for entry in removed), freed, 0 < self._max_bytes < usage)

    def _old(self, entries: list[_Entry], safe: int) -> list[_Entry]:
        ordered = sorted(entries, key=lambda entry: (entry.iteration, entry.name), reverse=True)
        beyond = ordered[max(0, self._keep_runs - safe) :] if self._keep_runs else []
        limit = self._wall() - self._keep_days * _DAY if self._keep_days else float("-inf")
        within = ordered[: len(ordered) - len(beyond)]
        return beyond + [entry for entry in within if entry.mtime < limit]

    def _aside(self, place: str) -> list[_Entry]:
        """What has been set aside for longest, beyond the newest."""
        with self._root.directory(place) as fd:
            # renamed into place: what changed last is when it was put there
            found = [
                _Entry(f"{place}/{leaf}", 0, about.st_ctime, about.st_blocks * 512)
                for leaf, about in _listed(fd)
            ]
        found.sort(key=lambda entry: (entry.mtime, entry.name), reverse=True)
        return found[KEEP_ASIDE:]

    def _entries(self, place: str) -> list[_Entry]:
        found = []
        with self._root.directory(place) as fd:
            for leaf, about in _listed(fd):
                with contextlib.suppress(FileNotFoundError):
                    name = f"{place}/{leaf}"
                    size = about.st_blocks * 512
                    if stat.S_ISDIR(about.st_mode):
                        size += self._directory_size(name, leaf, fd)
                    number = _NUMBER.match(leaf)
                    iteration = int(number[1]) if number else 0
                    found.append(_Entry(name, iteration, about.st_mtime, size))
        newest = sorted({entry.iteration for entry in found})[-self._keep_newest :]
        for one in found:
            if one.iteration in newest:  # may still grow
                self._sizes.pop(one.name, None)
        return found

    def _directory_size(self, name: str, leaf: str, fd: int) -> int:
        if name not in self._sizes:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(leaf, flags, dir_fd=fd)
            try:
                self._sizes[name] = _disk_use(inner)
            finally:
                os.close(inner)
        return self._sizes[name]

    def _remove(self, entries: list[_Entry], deadline: float) -> Iterator[_Entry]:
        for entry in sorted(entries, key=lambda entry: (entry.iteration, entry.name)):
            if time.monotonic() > deadline:
                return
            place = entry.name.rpartition("/")[0]
            with self._root.directory(place) as fd, contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(os.stat(_leaf(entry), dir_fd=fd, follow_symlinks=False).st_mode):
                    shutil.rmtree(_leaf(entry), dir_fd=fd)  # never leaves through a symlink
                else:
                    os.unlink(_leaf(entry), dir_fd=fd)
                self._sizes.pop(entry.name, None)
                yield entry


def _leaf(entry: _Entry) -> str:
    return entry.name.rpartition("/")[2]


def _listed(fd: int) -> Iterator[tuple[str, os.stat_result]]:
    """The names in an open directory with what they are; one that is gone by now is left out."""
    with os.scandir(fd) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                about = entry.stat(follow_symlinks=False)
                yield entry.name, about


def _disk_use(fd: int, skip: Collection[str] = ()) -> int:
    """Bytes on disk of everything below an open directory; symlinks are not followed."""
    total = 0
    for _, directories, files, here in os.fwalk(".", dir_fd=fd, follow_symlinks=False):
        for name in skip:
            if name in directories:
                directories.remove(name)
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(name, dir_fd=here, follow_symlinks=False).st_blocks * 512
    return total
