"""Process trees: who is whose child, and who carries a run's marker.

One pass over /proc/*/stat is the whole machine in one or two milliseconds; psutil is the same where
there is no /proc. A process is (pid, start): a pid alone may belong to somebody else by the time
one acts on it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import psutil

from codex_self_iter.world.guarded import stat_or_none
from codex_self_iter.world.process import bare
from codex_self_iter.world.state import holder

MARKER = "CODEX_SELF_ITER_RUN_ID"
"""Environment variable that every process of a run inherits."""
PLACE_MARKER = "CODEX_SELF_ITER_RUN_IN"
"""The same for the workspace: it finds a run of which no record is left."""

LINUX = sys.platform.startswith("linux")
_PSS = re.compile(rb"^Pss:\s+(\d+)", re.MULTILINE)
TICK = 1.0 / os.sysconf("SC_CLK_TCK")


class Proc(NamedTuple):
    """One process; `start` in ticks since boot."""

    pid: int
    name: str
    state: str
    parent: int
    session: int
    start: int

    @property
    def living(self) -> bool:
        """False for a zombie: it holds nothing but its exit status."""
        return self.state not in "ZX"


def _parse(stat: bytes) -> Proc:
    head, _, tail = stat.rpartition(b")")
    pid, _, name = head.partition(b" (")
    f = tail.split()
    shown = name.decode("utf-8", "replace")
    return Proc(int(pid), shown, chr(f[0][0]), int(f[1]), int(f[3]), int(f[19]))


def blind() -> str:
    """Why what a run leaves cannot be found here, and what to do; "" where it can."""
    seen = ""
    with contextlib.suppress(OSError):
        seen = os.readlink("/proc/self") if LINUX else str(os.getpid())
    if seen == str(os.getpid()):
        return ""
    what = "shows the processes of another pid namespace" if seen else "is not mounted"
    return (
        f"/proc {what}, so that what an agent leaves running could be neither found nor ended: "
        "mount it (mount -t proc proc /proc, unshare --mount-proc, bwrap --proc /proc)"
    )


def read(pid: int | str) -> Proc | None:
    """One process; None if it is gone."""
    stat = bare.contents(f"/proc/{pid}/stat")
    return _parse(stat) if stat else None


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
            todo += bare.children_of(pid)
    return found


def _scan_psutil() -> dict[int, Proc]:
    found: dict[int, Proc] = {}
    for process in psutil.process_iter(["pid", "name", "status", "ppid", "create_time"], None):
        info, session = process.info, 0
        with contextlib.suppress(OSError):
            session = os.getsid(process.pid)
        found[process.pid] = Proc(
            process.pid,
            info["name"] or "",
            "Z" if info["status"] == psutil.STATUS_ZOMBIE else "S",
            info["ppid"] or 0,
            session,
            int((info["create_time"] or 0) / TICK),
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
        return bare.start_ticks(pid)
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


def _environment(pid: int) -> list[bytes]:
    """`NAME=value` as the process was started with; [] where that may not be seen."""
    if LINUX:
        return bare.contents(f"/proc/{pid}/environ").split(b"\0")
    try:
        known = psutil.Process(pid).environ()
    except (psutil.Error, OSError):
        return []
    return [os.fsencode(f"{name}={value}") for name, value in known.items()]


def has_marker(pid: int, value: str, *, variable: str = MARKER) -> bool:
    """True if the process was started with `variable` set to exactly `value`."""
    return os.fsencode(f"{variable}={value}") in _environment(pid)


def environment_value(pid: int, variable: str) -> str:
    """The value of `variable` that the process was started with, or ""."""
    name = os.fsencode(f"{variable}=")
    found = (entry for entry in _environment(pid) if entry.startswith(name))
    return os.fsdecode(next(found, name).removeprefix(name))


def marked(table: Mapping[int, Proc], value: str, *, variable: str = MARKER) -> set[int]:
    """Living processes with the marker. Those that emptied their environment, other rings find."""
    return {
        pid
        for pid, proc in table.items()
        if proc.living and has_marker(pid, value, variable=variable)
    }


def lock_heirs(table: Mapping[int, Proc], lock_path: str) -> set[int]:
    """Living processes but us that hold the run lock: its inherited file, not just its path."""
    wanted = stat_or_none(lock_path)
    if wanted is None:
        return set()
    key = (wanted.st_dev, wanted.st_ino)
    return {pid for pid in table if LINUX and pid != os.getpid() and _holds_lock(pid, key)}


def _holds_lock(pid: int, key: tuple[int, int]) -> bool:
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            status = os.stat(f"/proc/{pid}/fd/{fd}")
            ours = (status.st_dev, status.st_ino) == key
            if ours and b"FLOCK" in bare.contents(f"/proc/{pid}/fdinfo/{fd}"):
                return True
    return False


def pss_bytes(pids: Iterable[int]) -> int:
    """Memory with pages shared among them counted once; 0 where the kernel does not tell."""
    texts = (bare.contents(f"/proc/{pid}/smaps_rollup") for pid in pids)
    return sum(1024 * int(found[1]) for text in texts if (found := _PSS.search(text)))
