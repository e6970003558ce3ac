"""The walls around a run's agent, built between fork and exec. Standard library only.

Three ways to the same walls (`core/fence.py` decides which, and what is open):

    namespaces   a mount namespace of the run's own: all is read-only but what is open; a path can
                 be closed inside an open one. Without root also a user namespace.
    bubblewrap   the same, made by `bwrap`, which may do so on some machines where we may not.
    landlock     rules of the kernel on the process itself: what is open is open with all below it.

With all three: no new privileges; from Landlock ABI 6 on, signals and abstract sockets reach nothing
outside; where it is asked for, a filter that refuses every socket but local ones.

A mount namespace alone leaves the agent's own sandbox working, which mounts as well; a process under
Landlock's rules for files may mount nothing. Sources: landlock(7), mount_setattr(2),
user_namespaces(7), capabilities(7), seccomp(2) and the kernel's uapi headers."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import signal
import stat
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MS_PLAIN = 2 | 4  # nosuid, nodev
_MNT_DETACH = 2
_ATTR_RDONLY, _AT_FDCWD, _AT_RECURSIVE = 1, -100, 0x8000
_SYS_MOUNT_SETATTR = 442
_SYS_LANDLOCK = 444
"""landlock_create_ruleset; then landlock_add_rule and landlock_restrict_self. The numbers of these
and of mount_setattr are the same on every architecture."""

_PR_CAPBSET_DROP, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 24, 22, 38
_KEPT_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31)
"""What root keeps: what it has in a container, without mknod and raw sockets."""
_LAST_CAPABILITY = 63

_WRITE_FILE, _READ_FILE = 1 << 1, 1 << 2
_CHANGE_TREE = sum(1 << bit for bit in range(4, 13))
"""Removing and making of entries of every kind."""
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_OF_FILES = _READ_FILE | _WRITE_FILE | _TRUNCATE
_SCOPE_ABI, _SCOPES = 6, 3
"""From which ABI on Landlock scopes, and: abstract sockets, signals."""

CLOSED_PROC = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi")
"""What root could change of the machine through /proc: closed for it."""

DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "pts", "shm")
DEVICE_LINKS = {
    "ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}  # fmt: skip
"""What of /dev root has."""

_AUDIT_ARCH = {"x86_64": (0xC000003E, 41, 53), "aarch64": (0xC00000B7, 198, 199)}
"""By machine: its name in a filter; the numbers of socket and socketpair."""
_IO_URING_SETUP = 425
_LOCAL_FAMILIES = (1, 16)
"""Sockets that stay: UNIX, and netlink, by which a program reads its network's addresses."""


_GONE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
"""What is not there any more, or is nobody's to reach, needs no wall."""


class WallsError(OSError):
    """The walls cannot be built: one line."""

    def __str__(self) -> str:
        return self.strerror or "unknown"


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise WallsError(code, f"{what}: {os.strerror(code)}")
    return result


def landlock_abi() -> int:
    """The version of Landlock that this kernel has switched on; 0 for none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, int(_libc().syscall(_SYS_LANDLOCK, None, 0, 1)))


def offline_possible() -> bool:
    """Whether this machine's filter for sockets is known."""
    return os.uname().machine in _AUDIT_ARCH


class Walls:
    """The walls of one run: prepared beside the agent, entered in its process before exec.

    `plan` is what `core/fence.py` made: `by`, `mounts` (pairs of kind and path: "rw", "ro" or
    "closed", outer ones first), `writable`, `readable` (Landlock), `anchor` (a directory of the
    run), `cwd`, `stdin`, `offline`, `bwrap`. Raises WallsError."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan = plan
        self.by = str(plan["by"])
        self.rulesets: list[int] = []
        self.stdin = -1
        """The prompt's file, opened from within: the descriptor of before leads around the walls."""
        self.flaw_read, self.flaw_write = os.pipe()
        abi = landlock_abi()
        try:
            # one for both: each layer that says nothing of files would forbid moves between directories
            if self.by == "landlock":
                self.rulesets.append(_file_rules(plan["writable"], plan["readable"], abi))
            elif abi >= _SCOPE_ABI:
                self.rulesets.append(_ruleset(0, _SCOPES))
        except BaseException:
            self.close()
            raise

    def close(self) -> str:
        """Close what was opened; returns why the walls could not be raised, "" where they stand."""
        fds = [*self.rulesets, self.flaw_write, *([self.stdin] if self.stdin >= 0 else [])]
        self.rulesets.clear()
        for fd in fds:
            os.close(fd)
        with open(self.flaw_read, "rb") as pipe:
            return pipe.read().decode("utf-8", "replace")

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command to start, in place of the agent's own."""
        if self.by != "bubblewrap":
            return list(argv)
        return _bubblewrap(self.plan, argv)

    @property
    def by_thread(self) -> bool:
        """A thread of its own can enter them and start the agent, which costs no fork: all of it is a
        thread's own but for a user namespace and the handling of signals."""
        return self.by == "landlock" or (self.by == "namespaces" and os.geteuid() == 0)

    def enter(self) -> None:
        """Raise the walls around this process before it becomes the agent, or around this thread before
        it starts the agent, for ever. Raises WallsError, which `close` tells in words."""
        try:
            if self.by == "namespaces":
                _enter_namespaces(self.plan)
                if self.plan.get("stdin"):
                    self.stdin = os.open(self.plan["stdin"], os.O_RDONLY | os.O_CLOEXEC)
            _prctl(_PR_SET_NO_NEW_PRIVS, 1, "no new privileges")
            for ruleset in self.rulesets:
                _check(_libc().syscall(_SYS_LANDLOCK + 2, ruleset, 0), "landlock_restrict_self")
            if self.plan.get("offline"):
                _refuse_sockets()
            if self.by != "bubblewrap" and os.geteuid() == 0:
                _drop_capabilities()
        except BaseException as error:
            os.write(self.flaw_write, str(error).encode("utf-8", "replace")[:4096])
            raise

    def enter_forked(self) -> None:
        """The same in a process that was forked for it."""
        self.enter()
        if self.stdin >= 0:
            os.dup2(self.stdin, 0)
        if self.by == "bubblewrap":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _prctl(option: int, argument: Any, what: str) -> None:
    _check(_libc().prctl(option, argument, 0, 0, 0), what)


# -- a mount namespace -----------------------------------------------------------------------------


def _enter_namespaces(plan: Mapping[str, Any]) -> None:
    root = os.geteuid() == 0
    _unshare(root)
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    anchor = os.fsencode(plan["anchor"])
    _mount(b"tmpfs", anchor, b"tmpfs", _MS_PLAIN, b"mode=700,size=64k")
    # root reads what has no mode for anybody; a socket nobody opens
    os.mknod(anchor + b"/file", stat.S_IFSOCK if root else stat.S_IFREG)
    for name in (b"/directory", b"/proc", b"/dev"):
        os.mkdir(anchor + name, 0o755 if name == b"/dev" else 0)
    if root:
        _make_devices(anchor + b"/dev")
    _set_read_only("/", True, _AT_RECURSIVE)
    _set_read_only("/proc", False)
    if root:
        _close_proc(anchor)
        _mount(anchor + b"/dev", b"/dev", None, _MS_BIND | _MS_REC)
    if os.path.isdir("/dev/shm"):  # noqa: S108 - as it is
        _wall("rw", b"/dev/shm", anchor)
    for kind, path in plan["mounts"]:
        try:
            _wall(kind, os.fsencode(path), anchor)
        except WallsError as error:
            if error.errno not in _GONE:
                raise
    _check(_libc().umount2(anchor, _MNT_DETACH), "umount2")
    os.chdir(plan["cwd"])  # not the directory of before, which is below the walls


def _unshare(root: bool) -> None:
    uid, gid = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNS | (0 if root else _CLONE_NEWUSER)
    _check(_libc().unshare(flags), "unshare")
    if not root:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)


def _close_proc(anchor: bytes) -> None:
    """Close what root could change; a whole /proc out of reach lets a sandbox inside mount its own
    (the kernel asks for one that nothing covers)."""
    _mount(b"/proc", anchor + b"/proc", None, _MS_BIND)
    for name in CLOSED_PROC:
        path = b"/proc/" + name.encode()
        if os.path.exists(path):
            _wall("ro", path, anchor)


def _make_devices(place: bytes) -> None:
    """A /dev for root, without what gives it the machine: a disk could be read and written as a whole."""
    for name, target in DEVICE_LINKS.items():
        os.symlink(target, place + b"/" + name.encode())
    for name in DEVICES:
        source, path = b"/dev/" + name.encode(), place + b"/" + name.encode()
        if os.path.isdir(source):
            os.mkdir(path, 0o755)
        elif os.path.exists(source):
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        else:
            continue
        _mount(source, path, None, _MS_BIND)


def _wall(kind: str, path: bytes, anchor: bytes) -> None:
    source = path
    if kind == "closed":
        source = anchor + (b"/directory" if os.path.isdir(path) else b"/file")
    _mount(source, path, None, _MS_BIND | _MS_REC)
    _set_read_only(path, kind != "rw")


def _mount(
    source: bytes | None,
    target: str | bytes,
    kind: bytes | None,
    flags: int,
    data: bytes | None = None,
) -> None:
    place = os.fsencode(target)
    result = _libc().mount(source, place, kind, ctypes.c_ulong(flags), data)
    _check(result, f"mount at {os.fsdecode(place)}")


def _set_read_only(path: str | bytes, on: bool, flags: int = 0) -> None:
    attributes = struct.pack("QQQQ", _ATTR_RDONLY if on else 0, 0 if on else _ATTR_RDONLY, 0, 0)
    place = os.fsencode(path)
    result = _libc().syscall(
        _SYS_MOUNT_SETATTR, _AT_FDCWD, place, flags, attributes, len(attributes)
    )
    _check(result, f"mount_setattr at {os.fsdecode(place)}")


def _drop_capabilities() -> None:
    """Without SETPCAP the bounding set stays; what is not permitted now comes from no exec either, as
    there are no new privileges."""
    for number in range(_LAST_CAPABILITY + 1):
        if number not in _KEPT_CAPABILITIES:
            _libc().prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    header = struct.pack("Ii", 0x20080522, 0)
    sets = ctypes.create_string_buffer(24)
    _check(_libc().capget(header, sets), "capget")
    low = sum(1 << number for number in _KEPT_CAPABILITIES)
    kept = [value & low for value in struct.unpack("6I", sets.raw)[:2]]
    _check(_libc().capset(header, struct.pack("6I", *kept, 0, 0, 0, 0)), "capset")


# -- bubblewrap ------------------------------------------------------------------------------------


def _bubblewrap(plan: Mapping[str, Any], argv: Sequence[str]) -> list[str]:
    """`bwrap` and its arguments. Always in a user namespace: its monitor, which stays outside, must be
    out of the agent's reach. The one capability that stays lets root make user namespaces inside, for
    a sandbox of the agent's own. It ignores TERM, as its monitor must outlive the agent, which gets
    its handling back."""
    words = [plan["bwrap"], "--unshare-user", "--cap-drop", "ALL"]
    words += [*(("--cap-add", "CAP_SETFCAP") if os.geteuid() == 0 else ()), "--ro-bind", "/", "/"]
    words += ["--dev-bind", "/proc", "/proc", "--dev", "/dev"]
    for name in CLOSED_PROC if os.geteuid() == 0 else ():
        words += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    for kind, path in plan["mounts"]:
        if kind != "closed":
            words += ["--bind-try" if kind == "rw" else "--ro-bind-try", path, path]
        elif os.path.isdir(path):
            words += ["--perms", "0000", "--tmpfs", path, "--remount-ro", path]
        elif os.path.exists(path):
            words += ["--ro-bind", "/dev/null", path]
    again = "import os,signal,sys; signal.signal(signal.SIGTERM, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
    own = [sys.executable, "-I", "-S", "-c", again]
    return [*words, "--chdir", plan["cwd"], "--", *own, *argv]


# -- Landlock --------------------------------------------------------------------------------------


def _ruleset(files: int, scopes: int) -> int:
    attributes = struct.pack("QQQ", files, 0, scopes)
    size = 24 if scopes else 8
    return _check(_libc().syscall(_SYS_LANDLOCK, attributes, size, 0), "landlock_create_ruleset")


def _file_rules(writable: Sequence[str], readable: Sequence[str] | None, abi: int) -> int:
    """Rules by which only what is `writable` can be changed and, unless it is None, only what is
    `readable` or writable can be read."""
    change = _WRITE_FILE | _CHANGE_TREE
    change |= (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    read = 0 if readable is None else _READ_FILE
    ruleset = _ruleset(change | read, _SCOPES if abi >= _SCOPE_ABI else 0)
    try:
        for path in writable:
            _allow(ruleset, path, change | read)
        for path in readable or ():
            _allow(ruleset, path, read)
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _GONE:
            return
        raise
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, fd)
        _check(
            _libc().syscall(_SYS_LANDLOCK + 1, ruleset, 1, rule, 0), f"landlock_add_rule for {path}"
        )
    finally:
        os.close(fd)


# -- sockets ---------------------------------------------------------------------------------------


def _refuse_sockets() -> None:
    """Let `socket` and `socketpair` fail with EACCES but for local ones, and io_uring, which makes
    sockets as well, be absent."""
    audit, *calls = _AUDIT_ARCH[os.uname().machine]
    allow, refuse, absent = 0x7FFF0000, 0x00050000 | errno.EACCES, 0x00050000 | errno.ENOSYS
    load, equal, give = 0x20, 0x15, 0x06
    x32 = 0x40000000
    program = [
        (load, 0, 0, 4),
        (equal, 1, 0, audit),
        (give, 0, 0, refuse),  # another architecture's calls: none
        (load, 0, 0, 0),
        (0x35, 0, 1, x32 if audit == 0xC000003E else 0xFFFFFFFF),
        (give, 0, 0, refuse),
        (equal, 0, 1, _IO_URING_SETUP),
        (give, 0, 0, absent),
        (equal, 2, 0, calls[0]),
        (equal, 1, 0, calls[1]),
        (give, 0, 0, allow),
        (load, 0, 0, 16),
        *(
            (equal, len(_LOCAL_FAMILIES) - index, 0, family)
            for index, family in enumerate(_LOCAL_FAMILIES)
        ),
        (give, 0, 0, refuse),
        (give, 0, 0, allow),
    ]
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    _check(_libc().prctl(_PR_SET_SECCOMP, 2, head, 0, 0), "seccomp")
