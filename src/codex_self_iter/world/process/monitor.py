"""What the monitor makes of a look at a run's tree: a sample, its idle time, and the limit it has
crossed.

Nothing here waits or kills; the keeper (world/process/keeper.py) looks and acts, in its own thread.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection, Mapping

from codex_self_iter.core.model import EndCause, RunLimits, RunSample
from codex_self_iter.world.process import proctable

NOISE_CORES = 0.005
"""Timer wake-ups of a waiting agent stay below this share of a core; work does not."""
BURST_SEC = 0.1
"""CPU time beyond the noise that counts as a sign of life."""
MAX_ENTRIES = 200_000
"""How many directory entries one look for file changes may visit."""


def newest_change(root: str, skip: Collection[str], *, max_entries: int = MAX_ENTRIES) -> float:
    """Wall time of the newest change below `root` (content, metadata or names), 0.0 if there is
    none.

    Leaves out `.git`, the paths in `skip`, and symbolic links' targets. Bounded: stops after
    `max_entries`."""
    newest, visited, todo = _ctime(root), 0, [root]
    while todo and visited < max_entries:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    visited += 1
                    if entry.name == ".git" or entry.path in skip:
                        continue
                    status = entry.stat(follow_symlinks=False)
                    newest = max(newest, status.st_ctime)
                    if stat.S_ISDIR(status.st_mode):
                        todo.append(entry.path)
        except OSError:
            continue  # gone or forbidden: no sign of life
    return newest


def _ctime(path: str) -> float:
    try:
        return os.stat(path).st_ctime
    except OSError:
        return 0.0


class FileWatch:
    """Asked only when a run would otherwise be idle: seconds since the last file change in its
    workspace.
    """

    def __init__(self, root: str | None, skip: Collection[str]) -> None:
        self._root, self._skip = root, frozenset(skip)
        self._newest = 0.0

    def age(self, window_sec: float) -> float | None:
        """Seconds since a change within `window_sec`, None if there was none. May take a while: not
        on the loop."""
        if self._root is None:
            return None
        newest = newest_change(self._root, self._skip)
        changed, self._newest = newest > self._newest > 0.0, newest
        age = time.time() - newest
        if 0.0 <= age < window_sec:
            return age
        return 0.0 if changed else None  # the wall clock was set: trust the change, not the times


class Tracker:
    """One run's history as far as its limits need it. Times are monotonic seconds."""

    def __init__(
        self, limits: RunLimits, started: float, now: float, files: Callable[[float], float | None]
    ) -> None:
        self.limits = limits
        self._files = files
        self._started = started
        self._active_at = now
        self._looked_at = now
        self._bucket = 0.0
        self._skipped = 0.0
        self.cpu_sec = 0.0
        self.max_memory = 0
        self.latest = RunSample(now - started, 0.0, 0.0, 0, 1, None, 0.0, 0)

    def look(
        self,
        now: float,
        table: Mapping[int, proctable.Proc],
        recorder: int,
        pids: Collection[int],
        output: tuple[int, float | None],
    ) -> RunSample:
        """Take one sample. `pids` is the tree without its recorder; `output` is (size, time of last
        growth)."""
        members = [table[pid] for pid in pids if pid in table]
        cpu = sum(proc.cpu_sec + proc.reaped_cpu_sec for proc in members)
        cpu += table[recorder].reaped_cpu_sec if recorder in table else 0.0
        elapsed = max(now - self._looked_at, 1e-3)
        used = max(0.0, cpu - self.cpu_sec)
        self.cpu_sec = max(self.cpu_sec, cpu)
        memory = sum(proc.rss_bytes for proc in members)
        if self.limits.memory_bytes and memory > self.limits.memory_bytes:
            # forks share pages: count them once
            memory = min(memory, proctable.pss_bytes(pids) or memory)
        self.max_memory = max(self.max_memory, memory)
        self._note_activity(now, elapsed, used, output[1])
        self._looked_at = now
        self.latest = RunSample(
            age_sec=now - self._started - self._skipped,
            cpu_sec=self.cpu_sec,
            cpu_percent=100.0 * used / elapsed,
            memory_bytes=memory,
            processes=sum(proc.living for proc in members),
            last_output_at=None if output[1] is None else time.time() - (now - output[1]),
            idle_sec=now - self._active_at,
            output_bytes=output[0],
        )
        return self.latest

    def _note_activity(
        self, now: float, elapsed: float, used: float, grown_at: float | None
    ) -> None:
        """A leaky bucket: CPU use drips out at the noise rate; what overflows is work."""
        self._bucket = max(0.0, self._bucket + used - NOISE_CORES * elapsed)
        size = min(BURST_SEC, max(2 * proctable.TICK, NOISE_CORES * self.limits.idle_sec))
        if self._bucket > size:
            self._bucket, self._active_at = 0.0, now
        if grown_at is not None:
            self._active_at = max(self._active_at, grown_at)

    def skip(self, seconds: float) -> None:
        """Nobody looked for so long (the machine or the supervisor stood still): that is neither
        age nor idleness."""
        self._skipped += seconds
        self._active_at += seconds

    def crossed(self, now: float) -> EndCause | None:
        """The limit that the run has crossed, by the latest sample."""
        limits, sample = self.limits, self.latest
        if limits.wall_sec and now - self._started - self._skipped >= limits.wall_sec:
            return EndCause.WALL_TIMEOUT
        if limits.memory_bytes and sample.memory_bytes > limits.memory_bytes:
            return EndCause.MEMORY
        if limits.processes and sample.processes > limits.processes:
            return EndCause.MEMORY
        if limits.idle_sec and now - self._active_at >= limits.idle_sec:
            age = self._files(now - self._active_at)
            if age is None:
                return EndCause.IDLE_TIMEOUT
            self._active_at = now - age
        return None

    def next_look(self, now: float) -> float:
        """Seconds until the next look is worth its cost: often at first and near a limit, then
        seldom.
        """
        limits, age = self.limits, now - self._started - self._skipped
        pause = 0.25 if age < 3 else 1.0 if age < 30 else 2.0
        if limits.memory_bytes and self.latest.memory_bytes > limits.memory_bytes // 2:
            pause = 0.25
        if limits.processes and self.latest.processes > limits.processes // 8:
            pause = 0.25
        if limits.wall_sec:
            pause = min(pause, limits.wall_sec - age)
        if limits.idle_sec:
            pause = min(pause, self._active_at + limits.idle_sec - now, limits.idle_sec / 4)
        return max(0.02, pause)
