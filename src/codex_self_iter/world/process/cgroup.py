"""The third ring: a cgroup v2 for each run, where one was delegated to us (`Delegate=yes`).

Never needed and never in the way: every failure here only means that the first two rings work
alone."""

from __future__ import annotations

import contextlib
import os
import resource
import time

from codex_self_iter.world.pause import pause
from codex_self_iter.world.process.bare import contents


def own_cgroup(*, proc: str = "/proc/self") -> str | None:
    """The directory of this process's cgroup v2, or None."""
    named = [line for line in _lines(f"{proc}/cgroup") if line.startswith("0::")]
    if not named:
        return None
    path = named[0][3:].strip()
    for line in _lines(f"{proc}/mountinfo"):
        mount = line.split()
        if mount[mount.index("-") + 1] == "cgroup2" and (
            mount[3] == "/" or f"{path}/".startswith(f"{mount[3]}/")
        ):
            inside = path if mount[3] == "/" else path.removeprefix(mount[3])
            return os.path.normpath(mount[4] + "/" + inside)
    return None


def _lines(path: str) -> list[str]:
    return os.fsdecode(contents(path)).split("\n")[:-1]


def delegated() -> str | None:
    """Our own cgroup if a service manager gave it to us: marked as delegated, and writable."""
    directory = own_cgroup()
    if directory is None or not os.access(f"{directory}/cgroup.procs", os.W_OK):
        return None
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError, AttributeError):
            if os.getxattr(directory, name) == b"1":
                return directory
    return None


def process_room() -> int:
    """How many processes and threads this process may have with all that is limited with it; 0: no
    limit is known (cgroups of both versions, and the user's own limit)."""
    limits = [resource.getrlimit(resource.RLIMIT_NPROC)[0]] if os.getuid() else []
    directories = [own_cgroup() or ""]
    directories += [
        f"/sys/fs/cgroup/pids{line.split(':', 2)[2]}"
        for line in _lines("/proc/self/cgroup")
        if ":pids:" in line
    ]
    for directory in directories:
        while len(directory) > 1:
            limits += [
                int(found)
                for found in contents(f"{directory}/pids.max").split()[:1]
                if found.isdigit()
            ]
            directory = os.path.dirname(directory)
    return min((limit for limit in limits if limit > 0), default=0)


def create(parent: str, name: str) -> str:
    """Make a run's cgroup; "" if that is impossible."""
    directory = f"{parent}/{name}"
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError:
        return ""
    return directory


def _populated(directory: str) -> bool:
    return b"populated 1" in contents(f"{directory}/cgroup.events")


def end(directory: str, *, recorder: int = 0, limit_sec: float = 2.0) -> int:
    """Kill everything in a run's cgroup and remove it. Blocking, bounded.

    Returns how many processes were in it, not counting the `recorder`, which may just be exiting.
    """
    found = 0
    if _populated(directory):
        pids = contents(f"{directory}/cgroup.procs").split()
        found = sum(int(pid) != recorder for pid in pids)
        with contextlib.suppress(OSError), open(f"{directory}/cgroup.kill", "w") as file:
            file.write("1")
    give_up = time.monotonic() + limit_sec
    while _populated(directory) and time.monotonic() < give_up:
        pause(0.002)
    with contextlib.suppress(OSError):
        os.rmdir(directory)
    return found
