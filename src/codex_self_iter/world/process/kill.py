"""Ending processes for certain: exactly this one, our adopted ones, everything that a search names.

Every kill goes through a descriptor that is checked against the start time first, so that nobody
who has got a dead process's number is hit."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import starmap

from codex_self_iter.world.pause import pause
from codex_self_iter.world.process import bare, proctable, signals

_NOT_HERE = (errno.ENOSYS, errno.EPERM)
"""What a kernel without descriptors of processes says, and what guards of containers say."""


def pin(pid: int, start: int) -> int:
    """A descriptor of exactly this process, -1 if it is gone or there are no such descriptors."""
    for fd in bare.pin(pid) if pid > 0 else ():
        if proctable.start_ticks(pid) == start:
            return fd
        os.close(fd)
    return -1


def kill(pid: int, start: int, number: int = signal.SIGKILL) -> bool:
    """Signal exactly this process, pinned by a descriptor and its start. False: it is gone.

    Where there are no such descriptors, now or ever, its start alone says who it is."""
    if pid <= 1 or pid == os.getpid():
        return False
    fd = pin(pid, start)
    try:
        if fd < 0 or not _send(fd, number):
            if proctable.start_ticks(pid) != start:
                return False
            os.kill(pid, number)
    except OSError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True


def _send(fd: int, number: int) -> bool:
    """Signal through a descriptor; False where that is not allowed. Raises OSError."""
    try:
        signal.pidfd_send_signal(fd, number)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return False
    return True


def _lives(pid: int, start: int) -> bool:
    process = proctable.read(pid)
    return process is not None and process.living and process.start == start


class Children:
    """This process's own children, told from the orphans that we adopted.

    Whoever starts a child in a session of its own does it inside `spawning` and registers it there;
    the reaper holds the same lock, so it can never collect a child between its birth and its
    registration. Children that share our session are never touched: an orphan of a run cannot be in
    it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[int] = set()
        self._expected: list[str] = []
        self._recorders: set[tuple[int, int]] = set()
        self._suspects: set[tuple[int, int]] = set()
        self._others: set[tuple[int, int]] = set()

    @contextlib.contextmanager
    def spawning(self) -> Iterator[Callable[[int], None]]:
        """Hold the reaper off; call the value with the child's pid."""
        with self._lock, signals.masked(signal.SIG_UNBLOCK, signals.HEARD):
            yield self._known.add

    def forget(self, pid: int) -> None:
        """The child has been collected by its owner."""
        with self._lock:
            self._known.discard(pid)

    @contextlib.contextmanager
    def expecting(self, name: str) -> Iterator[None]:
        """A recorder of this name may become our child (its launcher was killed) and is no
        stranger, although nobody knows its pid yet."""
        self._expected.append(name)
        try:
            yield
        finally:
            self._expected.remove(name)

    def spare(self, pid: int, start: int) -> None:
        """This recorder has a run: its keeper ends and collects it, until `unspare`. A mere name
        spares nobody, for everybody can take one."""
        self._recorders.add((pid, start))

    def unspare(self, pid: int, start: int) -> None:
        """The recorder's run has ended."""
        self._recorders.discard((pid, start))

    def strangers(self) -> list[proctable.Proc]:
        """Adopted orphans that may be a run's, zombies included (Linux)."""
        return [proc for proc in self._adopted() if (proc.pid, proc.start) not in self._others]

    def _adopted(self) -> list[proctable.Proc]:
        """Children of ours that we did not start."""
        session = os.getsid(0)
        with self._lock:
            found = [
                proctable.read(pid)
                for pid in bare.children_of(os.getpid())
                if pid not in self._known
            ]
        return [
            proc
            for proc in found
            if proc is not None
            and proc.session != session
            and (proc.pid, proc.start) not in self._recorders
            and proc.name not in self._expected
        ]

    def reap_strangers(self) -> None:
        """Collect adopted zombies seen twice: an owner would have collected them by now.

        What comes to us while every recorder lives is no run's, for a recorder adopts its own: we
        are process 1 of a container, and somebody has looked in (`docker exec`)."""
        found = self._adopted()
        if not self._expected and all(starmap(_lives, tuple(self._recorders))):
            self._others = {(proc.pid, proc.start) for proc in found}
        zombies = {(proc.pid, proc.start) for proc in found if not proc.living}
        for pid, _ in zombies & self._suspects:
            self.reap(pid)
        self._suspects = zombies

    def end_strangers(self, give_up: float) -> dict[tuple[int, int], int]:
        """Kill and collect what we adopted until some looks find nothing; (pid, start) -> status.

        Reads only our own list of children, so it is quick enough for what forks a successor every
        millisecond and ends; and a child that is not collected yet cannot be a namesake. Blocking,
        until `give_up` (monotonic)."""
        ended: dict[tuple[int, int], int] = {}
        quiet = 0
        while quiet < 4 and time.monotonic() < give_up:
            found = self.strangers()
            for proc in found:
                with contextlib.suppress(OSError):
                    os.kill(proc.pid, signal.SIGKILL)
                if (status := self.reap(proc.pid)) is not None:
                    ended[proc.pid, proc.start] = status
            quiet = 0 if found else quiet + 1
            pause(0.0005 if found else 0.002)
        return ended

    def reap(self, pid: int) -> int | None:
        """Collect one child if it has ended; its wait status, or None."""
        with self._lock:
            if pid in self._known:
                return None
            with contextlib.suppress(ChildProcessError):
                found, status = os.waitpid(pid, os.WNOHANG)
                return status if found else None
        return None


children = Children()
"""Of this process. Children belong to the process, so there is one registry for each process."""


def exterminate(
    find: Callable[[Mapping[int, proctable.Proc]], Iterable[int]],
    *,
    limit_sec: float = 5.0,
    keep: Collection[int] = (),
    adopted: bool = False,
) -> tuple[dict[tuple[int, int], int | None], tuple[str, ...]]:
    """Kill whatever `find` names in a fresh table, again and again until it names nothing; bounded.

    Blocking: run it in a thread. What was found once stays prey together with its descendants,
    however it moves. `keep` holds pids that are never killed. With `adopted`, the strangers among
    our children are prey as well.

    Returns: (pid, start) -> wait status (None when it was not our child) of every process ended,
        and who is left, `pid (name)` each."""
    # One table is a photograph: while it is taken and acted on, prey forks, moves to another parent
    # and dies. So nothing is believed from one look. Whatever was hit once is named again by its
    # (pid, start) as long as it is there, because its children are found only through it: they may
    # have dropped the marker, and once it is collected they hang on a subreaper like anybody's.
    ended: dict[tuple[int, int], int | None] = {}
    give_up, delay, quiet = time.monotonic() + limit_sec, 0.001, 0
    while True:
        fresh = children.end_strangers(give_up) if adopted else {}
        ended |= fresh
        table = proctable.scan()
        named = set(find(table))
        named |= {pid for pid, start in ended if pid in table and table[pid].start == start}
        found = named | proctable.descendants(proctable.offspring(table), named)
        prey = [table[pid] for pid in found - {*keep, 0, 1, os.getpid()} if pid in table]
        living = [proc for proc in prey if proc.living]
        for proc in living:
            if kill(proc.pid, proc.start):
                ended.setdefault((proc.pid, proc.start), None)
        for proc in prey:
            # a zombie of ours keeps its number, and with it its place in the table, until then
            if proc.parent == os.getpid() and (status := children.reap(proc.pid)) is not None:
                ended[proc.pid, proc.start] = status
        quiet = 0 if living or fresh else quiet + 1
        # one look may miss what forks a successor and ends
        if quiet == 2 or time.monotonic() > give_up:
            if adopted:
                living += [proc for proc in children.strangers() if proc.living]
            return ended, tuple(sorted({f"{proc.pid} ({proc.name})" for proc in living}))
        pause(delay)
        delay = min(delay * 2, 0.05)
