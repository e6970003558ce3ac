"""What the monitor makes of a look at a run's tree: a sample, its idle time, a limit crossed.

Nothing here waits or kills; the keeper (world/process/keeper.py) looks and acts, in its own thread.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol

import psutil

from codex_self_iter.core.runs import EndCause, RunLimits, RunSample
from codex_self_iter.world.guarded import stat_or_none
from codex_self_iter.world.process import cgroup, proctable

BURST_SEC = 0.1
"""CPU time beyond the noise that counts as a sign of life; of an agent that is noisier than others
its noise of BURST_SPAN_SEC, because it comes in bursts."""
BURST_SPAN_SEC = 20.0
COUNTS_SEC = 10.0
"""How old a sample's threads, bytes and open files may be."""
MAX_ENTRIES = 200_000
"""How many directory entries one look for file changes may visit."""


def newest_change(root: str, skip: Collection[str], *, max_entries: int = MAX_ENTRIES) -> float:
    """Wall time of the newest change below `root` (content, metadata or names), or 0.0.

    Leaves out `.git`, the paths in `skip`, and symbolic links' targets. Bounded: stops after
    `max_entries`."""
    top = stat_or_none(root)
    newest, visited, todo = top.st_ctime if top else 0.0, 0, [root]
    while todo and visited < max_entries:
        # gone or forbidden: no sign of life
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                visited += 1
                if entry.name == ".git" or entry.path in skip:
                    continue
                status = entry.stat(follow_symlinks=False)
                newest = max(newest, status.st_ctime)
                if stat.S_ISDIR(status.st_mode):
                    todo.append(entry.path)
    return newest


class FileWatch:
    """Seconds since a workspace's last file change; asked only when a run would be idle else."""

    def __init__(self, root: str | None, skip: Collection[str]) -> None:
        self._root, self._skip = root, frozenset(skip)
        self._newest = 0.0

    def age(self, window_sec: float) -> float | None:
        """Seconds since a change within `window_sec`, or None. May be slow: not on the loop."""
        if self._root is None:
            return None
        newest = newest_change(self._root, self._skip)
        changed, self._newest = newest > self._newest > 0.0, newest
        age = time.time() - newest
        if 0.0 <= age < window_sec:
            return age
        return 0.0 if changed else None  # the wall clock was set: trust the change, not the times


class Usage(NamedTuple):
    """What the processes of a tree use together."""

    cpu_sec: float = 0.0
    memory_bytes: int = 0
    threads: int = 0
    io_bytes: int = 0
    open_files: int = 0


class Sampling(Protocol):
    """Measures a tree: `pids` without their `recorder` (0: none), all of them in `table`."""

    def __call__(
        self, now: float, table: Mapping[int, proctable.Proc], recorder: int, pids: Collection[int]
    ) -> Usage: ...


class Sampler:
    """Measures a run's tree by psutil, on every platform in the same words.

    CPU and memory, which limits need, at each call; threads, bytes read and written and open files,
    which cost more than those, every COUNTS_SEC."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, psutil.Process]] = {}
        self._counted_at = -COUNTS_SEC
        self._counts = (0, 0, 0)

    def __call__(
        self, now: float, table: Mapping[int, proctable.Proc], recorder: int, pids: Collection[int]
    ) -> Usage:
        """See Sampling. Who has ended meanwhile, or may not be looked at, counts nothing."""
        self._known = {
            pid: known
            for pid in {*pids, recorder} & table.keys()
            if (known := self._process(pid, table[pid].start)) is not None
        }
        counting = now - self._counted_at >= COUNTS_SEC
        cpu, memory, counts = 0.0, 0, [0, 0, 0]
        for pid, (_, process) in self._known.items():
            with contextlib.suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                cpu += times.children_user + times.children_system
                if pid == recorder:
                    continue  # what it has collected was the agent's; it is not
                cpu += times.user + times.system
                memory += process.memory_info().rss
                if counting:
                    counts = [sum(pair) for pair in zip(counts, _counts(process), strict=True)]
        if counting:
            self._counted_at, self._counts = now, (counts[0], counts[1], counts[2])
        return Usage(cpu, memory, *self._counts)

    def _process(self, pid: int, start: int) -> tuple[int, psutil.Process] | None:
        known = self._known.get(pid)
        if known is not None and known[0] == start:
            return known
        with contextlib.suppress(psutil.Error):
            return start, psutil.Process(pid)
        return None


def _counts(process: psutil.Process) -> tuple[int, int, int]:
    """Threads, bytes read and written, open files of one process; 0 for what it does not show."""
    threads, files, moved = process.num_threads(), 0, 0
    with contextlib.suppress(psutil.Error):
        files = process.num_fds()
    if hasattr(process, "io_counters"):  # macOS tells nobody
        with contextlib.suppress(psutil.Error):
            io = process.io_counters()
            moved = io.read_bytes + io.write_bytes
    return threads, moved, files


class Tracker:
    """One run's history as far as its limits need it. Times are monotonic seconds."""

    def __init__(
        self,
        limits: RunLimits,
        started: float,
        now: float,
        files: Callable[[float], float | None],
        sampler: Sampling | None = None,
    ) -> None:
        self.limits = limits
        room = cgroup.process_room()
        # A bomb has to be seen before it has taken everything: our threads need room, too.
        self.most = min(limits.processes, room * 3 // 4 or limits.processes)
        self._sampler = sampler or Sampler()
        self._sample_cost = 0.0
        self._files = files
        self._started = started
        self._active_at = now
        self._looked_at = now
        self._bucket = 0.0
        self._skipped = 0.0
        self.cpu_sec = 0.0
        self.latest = RunSample(now - started, 0.0, 0.0, 0, 1, None, 0.0, 0)

    def look(
        self,
        now: float,
        table: Mapping[int, proctable.Proc],
        recorder: int,
        pids: Collection[int],
        output: tuple[int, float | None],
    ) -> RunSample:
        """Take one sample. `pids`: the tree without its recorder; `output`: (size, last growth)."""
        begun = time.perf_counter()
        usage = self._sampler(now, table, recorder, pids)
        self._sample_cost = time.perf_counter() - begun
        elapsed = max(now - self._looked_at, 1e-3)
        used = max(0.0, usage.cpu_sec - self.cpu_sec)
        self.cpu_sec = max(self.cpu_sec, usage.cpu_sec)
        memory = usage.memory_bytes
        if self.limits.memory_bytes and memory > self.limits.memory_bytes:
            # forks share pages: count them once
            memory = min(memory, proctable.pss_bytes(pids) or memory)
        self._note_activity(now, elapsed, used, output[1])
        self._looked_at = now
        self.latest = RunSample(
            age_sec=now - self._started - self._skipped,
            cpu_sec=self.cpu_sec,
            cpu_percent=100.0 * used / elapsed,
            memory_bytes=memory,
            processes=sum(table[pid].living for pid in pids if pid in table),
            last_output_at=None if output[1] is None else time.time() - (now - output[1]),
            idle_sec=now - self._active_at,
            output_bytes=output[0],
            threads=usage.threads,
            io_bytes=usage.io_bytes,
            open_files=usage.open_files,
        )
        return self.latest

    def _note_activity(
        self, now: float, elapsed: float, used: float, grown_at: float | None
    ) -> None:
        """A leaky bucket: CPU use drips out at the noise rate; what overflows is work."""
        noise = self.limits.noise_cores
        self._bucket = max(0.0, self._bucket + used - noise * elapsed)
        burst = max(BURST_SEC, noise * BURST_SPAN_SEC)
        size = min(burst, max(2 * proctable.TICK, noise * self.limits.idle_sec))
        if self._bucket > size:
            self._bucket, self._active_at = 0.0, now
        if grown_at is not None:
            self._active_at = max(self._active_at, grown_at)

    def skip(self, seconds: float) -> None:
        """Nobody looked for so long (all stood still): that is neither age nor idleness."""
        self._skipped += seconds
        self._active_at += seconds

    def crossed(self, now: float) -> EndCause | None:
        """The limit that the run has crossed, by the latest sample."""
        limits, sample = self.limits, self.latest
        if limits.wall_sec and now - self._started - self._skipped >= limits.wall_sec:
            return EndCause.WALL_TIMEOUT
        if limits.memory_bytes and sample.memory_bytes > limits.memory_bytes:
            return EndCause.MEMORY
        if self.most and sample.processes > self.most:
            return EndCause.MEMORY
        if limits.idle_sec and now - self._active_at >= limits.idle_sec:
            age = self._files(now - self._active_at)
            if age is None:
                return EndCause.IDLE_TIMEOUT
            self._active_at = now - age
        return None

    def next_look(self, now: float) -> float:
        """Seconds until the next look: often at first and near a limit, then seldom."""
        limits, age = self.limits, now - self._started - self._skipped
        pause = 0.25 if age < 3 else 1.0 if age < 30 else 2.0
        if limits.memory_bytes and self.latest.memory_bytes > limits.memory_bytes // 2:
            pause = 0.25
        if self.most and self.latest.processes > self.most // 8:
            pause = 0.25
        if limits.wall_sec:
            pause = min(pause, limits.wall_sec - age)
        if limits.idle_sec:
            pause = min(pause, self._active_at + limits.idle_sec - now, limits.idle_sec / 4)
        # a tree of a thousand processes must not cost more than a tenth of a core
        return max(0.02, pause, 10 * self._sample_cost)
