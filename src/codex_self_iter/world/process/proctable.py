"""Process trees: who is whose child, and who carries a run's marker.

One pass over /proc/*/stat is the whole machine in one or two milliseconds; psutil is the same where
there is no /proc. A process is (pid, start): a pid alone may belong to somebody else by the time
one acts on it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import psutil

from codex_self_iter.world.process import launcher
from codex_self_iter.world.state import holder

MARKER = "CODEX_SELF_ITER_RUN_ID"
"""Environment variable that every process of a run inherits."""
PLACE_MARKER = "CODEX_SELF_ITER_RUN_IN"
"""The same for the workspace: it finds a run of which no record is left."""

LINUX = sys.platform.startswith("linux")
TICK = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Proc(NamedTuple):
    """One process. `cpu_sec` is its own, `reaped_cpu_sec` that of the children it has collected."""

    pid: int
    name: str
    state: str
    parent: int
    session: int
    start: int
    cpu_sec: float
    reaped_cpu_sec: float
    rss_bytes: int

    @property
    def living(self) -> bool:
        """False for a zombie: it holds nothing but its exit status."""
        return self.state not in "ZX"


def _parse(stat: bytes) -> Proc:
    head, _, tail = stat.rpartition(b")")
    pid, _, name = head.partition(b" (")
    f = tail.split()
    return Proc(
        int(pid),
        name.decode("utf-8", "replace"),
        chr(f[0][0]),
        int(f[1]),
        int(f[3]),
        int(f[19]),
        (int(f[11]) + int(f[12])) * TICK,
        (int(f[13]) + int(f[14])) * TICK,
        int(f[21]) * _PAGE,
    )


def read(pid: int | str) -> Proc | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        try:
            return _parse(os.read(fd, 2048))
        finally:
            os.close(fd)
    except (OSError, IndexError, ValueError):
        return None  # gone meanwhile


def _scan_proc() -> dict[int, Proc]:
    found = (read(entry) for entry in os.listdir("/proc") if entry[0] <= "9")
    return {proc.pid: proc for proc in found if proc is not None}


def walk(roots: Iterable[int]) -> dict[int, Proc]:
    """Like `scan`, but only `roots` and their descendants: for small trees among many processes.

    Less exact than one pass: what moves between parents meanwhile may be missed."""
    found: dict[int, Proc] = {}
    todo = list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found and (proc := read(pid)) is not None:
            found[pid] = proc
            todo += launcher.children_of(pid)
    return found


def _scan_psutil() -> dict[int, Proc]:
    found: dict[int, Proc] = {}
    wanted = ["pid", "name", "status", "ppid", "create_time", "cpu_times", "memory_info"]
    for process in psutil.process_iter(wanted, ad_value=None):
        info = process.info
        times, memory = info["cpu_times"], info["memory_info"]
        try:
            session = os.getsid(process.pid)
        except OSError:
            session = 0
        found[process.pid] = Proc(
            process.pid,
            info["name"] or "",
            "Z" if info["status"] == psutil.STATUS_ZOMBIE else "S",
            info["ppid"] or 0,
            session,
            int((info["create_time"] or 0) / TICK),
            times.user + times.system if times else 0.0,
            times.children_user + times.children_system if times else 0.0,
            memory.rss if memory else 0,
        )
    return found


def scan() -> dict[int, Proc]:
    """Every process of the machine by pid: a millisecond or two with /proc; not on the loop."""
    return _scan_proc() if LINUX else _scan_psutil()


def boot_id() -> str:
    """Names this boot; identities of another boot cannot be alive."""
    return holder.boot_id() or f"boot-{int(psutil.boot_time())}"


def start_ticks(pid: int) -> int:
    """Start time of a process in ticks since boot, 0 if there is none."""
    if LINUX:
        return launcher.start_ticks(pid)
    try:
        return int(psutil.Process(pid).create_time() / TICK)
    except psutil.Error:
        return 0


def alive(table: Mapping[int, Proc], pid: int, start: int) -> bool:
    """True if exactly this process runs; a zombie or one that has got its pid does not count."""
    proc = table.get(pid)
    return proc is not None and proc.living and proc.start == start


def offspring(table: Mapping[int, Proc]) -> dict[int, list[int]]:
    """Direct children by parent, for `descendants`."""
    by_parent: dict[int, list[int]] = {}
    for proc in table.values():
        by_parent.setdefault(proc.parent, []).append(proc.pid)
    return by_parent


def descendants(by_parent: Mapping[int, list[int]], roots: Collection[int]) -> set[int]:
    """All transitive children of `roots`, without the roots themselves."""
    found: set[int] = set()
    todo = list(roots)
    while todo:
        fresh = [pid for pid in by_parent.get(todo.pop(), ()) if pid not in found]
        found.update(fresh)
        todo += fresh
    return found - set(roots)


def ancestors(table: Mapping[int, Proc], pid: int) -> set[int]:
    """The process itself and everyone above it."""
    found: set[int] = set()
    while pid in table and pid not in found:
        found.add(pid)
        pid = table[pid].parent
    return found


def has_marker(pid: int, value: str, *, variable: str = MARKER) -> bool:
    """True if the process was started with `variable` set to exactly `value`."""
    if not LINUX:
        try:
            return psutil.Process(pid).environ().get(variable) == value
        except (psutil.Error, OSError):
            return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return os.fsencode(f"{variable}={value}") in file.read().split(b"\0")
    except OSError:
        return False


def environment_value(pid: int, variable: str) -> str:
    """The value of `variable` that the process was started with, or ""."""
    if not LINUX:
        try:
            return psutil.Process(pid).environ().get(variable, "")
        except (psutil.Error, OSError):
            return ""
    wanted = os.fsencode(f"{variable}=")
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            found = (entry for entry in file.read().split(b"\0") if entry.startswith(wanted))
            return os.fsdecode(next(found, wanted)[len(wanted) :])
    except OSError:
        return ""


def marked(table: Mapping[int, Proc], value: str, *, variable: str = MARKER) -> set[int]:
    """Living processes with the marker. Those that emptied their environment, other rings find."""
    return {
        pid
        for pid, proc in table.items()
        if proc.living and has_marker(pid, value, variable=variable)
    }


def lock_heirs(table: Mapping[int, Proc], lock_path: str) -> set[int]:
    """Living processes but us that hold the run lock: its inherited file, not just its path."""
    try:
        wanted = os.stat(lock_path)
    except OSError:
        return set()
    key = (wanted.st_dev, wanted.st_ino)
    return {pid for pid in table if LINUX and pid != os.getpid() and _holds_lock(pid, key)}


def _holds_lock(pid: int, key: tuple[int, int]) -> bool:
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            status = os.stat(f"/proc/{pid}/fd/{fd}")
            if (status.st_dev, status.st_ino) == key:
                with open(f"/proc/{pid}/fdinfo/{fd}") as file:
                    if "FLOCK" in file.read():
                        return True
    except OSError:
        pass
    return False


def pss_bytes(pids: Iterable[int]) -> int:
    """Memory with pages shared among them counted once; 0 where the kernel does not tell."""
    total = 0
    for pid in pids:
        with (
            contextlib.suppress(OSError, ValueError, IndexError),
            open(f"/proc/{pid}/smaps_rollup") as file,
        ):
            total += (
                next((int(line.split()[1]) for line in file if line.startswith("Pss:")), 0) * 1024
            )
    return total
