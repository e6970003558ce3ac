"""Who holds the supervisor's lock: asked by everybody, without taking it.

The least that can be imported for it, because every reading command starts through here; the lock
itself is in world/state/lock.py."""

from __future__ import annotations

import errno
import fcntl
import os

from codex_self_iter.core.text import epoch, moment
from codex_self_iter.world.guarded import parse_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LOCK_FILE = "loop.lock"
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
_READ_LIMIT = 4096


class Holder:
    """Who holds a lock. Fields that are not known are 0 or ""."""

    __slots__ = ("boot_id", "host", "pid", "since", "version", "workspace")

    def __init__(self, info: Mapping[str, Any], pid: int = 0) -> None:
        """From the lock file's content; `pid` where that says nothing."""
        recorded = info.get("pid")
        self.pid = recorded if isinstance(recorded, int) and not isinstance(recorded, bool) else pid
        self.host, self.boot_id, self.since, self.version, self.workspace = (
            str(info.get(name, "")) for name in ("host", "boot_id", "since", "version", "workspace")
        )

    def __str__(self) -> str:
        who = f"process {self.pid}" if self.pid else "another process"
        at = epoch(self.since)
        since = f" since {self.since if at is None else moment(at)}" if self.since else ""
        return f"{who}{since}{f' on {self.host}' if self.host else ''}"


def boot_id() -> str:
    """The kernel's name for this boot; "" where there is none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def try_lock(fd: int, how: int = fcntl.LOCK_EX) -> bool:
    """Take the flock now; False when somebody else has it. Raises OSError."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def read_info(fd: int) -> dict[str, Any]:
    """What the lock file says; {} when it says nothing that we wrote."""
    try:
        return parse_object(os.pread(fd, _READ_LIMIT, 0)) or {}
    except OSError:
        return {}


def kernel_holder(fd: int) -> int:
    """Pid of the flock's holder as the kernel tells it (/proc/locks); 0 when it does not."""
    found = os.fstat(fd)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    same_inode = 0
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return 0
    for line in lines:
        words = line.split()
        if len(words) < 6 or words[1] != "FLOCK":
            continue
        place, _, inode = words[5].rpartition(":")
        if inode == str(found.st_ino) and words[4].lstrip("-").isdecimal():
            same_inode = int(words[4])  # on some file systems with another device number
            if place == device:
                break
    return same_inode


def holder_of(fd: int) -> Holder:
    """Who holds the open lock file, by its content or else by the kernel."""
    info = read_info(fd)
    return Holder(info, 0 if info.get("pid") else kernel_holder(fd))


def probe(state_dir: str, lock_file_name: str = LOCK_FILE, workspace: str = "") -> Holder | None:
    """Who supervises here, or None. Never blocks, never writes.

    With `workspace` its directory is asked as well, which answers in the second in which the file
    is missing."""
    places = [(f"{state_dir}/{lock_file_name}", os.O_NOFOLLOW), (workspace, os.O_DIRECTORY)]
    for path, flag in places:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flag)
        except OSError:
            continue
        try:
            if not try_lock(fd, fcntl.LOCK_SH):
                return holder_of(fd) if flag == os.O_NOFOLLOW else Holder({}, kernel_holder(fd))
        except OSError:
            continue
        finally:
            os.close(fd)  # and with it the shared lock
    return None
