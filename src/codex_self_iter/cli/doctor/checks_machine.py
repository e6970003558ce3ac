"""Checks of the machine: Python, clock, watching, room and limits, sandbox, service."""

from __future__ import annotations

import glob
import os
import resource
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress

from codex_self_iter.cli.doctor.ask import ask
from codex_self_iter.cli.doctor.finding import Check, Context, Finding, fail, good, warn
from codex_self_iter.core.text import moment
from codex_self_iter.world.process import proctable

_OLDEST_CLOCK = 1_704_067_200.0
"""2024-01-01 UTC: a clock before it was never set."""
_SUSPENDED_SEC = 60.0
_SPARE_INOTIFY = 8
SPARE_INODES = 1000
_SPARE_FILES = 256
_SPARE_PROCESSES = 100
_TEMPORARY_MIB = 64


def python(_: Context) -> Iterator[Finding]:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield good("python", f"Python {version} ({sys.executable})")


def processes(_: Context) -> Iterator[Finding]:
    """A table of the processes that we could end."""
    what, _sep, mend = proctable.blind().rpartition(": ")
    yield fail("proc", what, mend) if what else good("proc", "processes can be found")


def clock(context: Context) -> Iterator[Finding]:
    """The wall clock, and whether this machine sleeps."""
    if context.now < _OLDEST_CLOCK:
        day = moment(context.now)[:10]
        mend = "set the clock: sudo timedatectl set-ntp true"
        yield fail("time.clock", f"the clock says {day}", mend)
    else:
        yield good("time.clock", moment(context.now))
    if os.path.isdir("/run/systemd/system"):  # elsewhere the clock is the host's matter
        answer = ask(["timedatectl", "show", "-p", "NTPSynchronized", "--value"], context)
        if answer.ok and answer.text == "no":
            what = "nothing keeps the clock right: limits and daily budgets end at a wrong hour"
            yield warn("time.sync", what, "sudo timedatectl set-ntp true")
    if hasattr(time, "CLOCK_BOOTTIME"):
        asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
        if asleep > _SUSPENDED_SEC:
            what = f"this machine has slept for {asleep / 3600:.1f} h since its boot: a loop rests with it"
            awake = "[service] inhibit_sleep = true"
            yield good("time.suspend", f"{what}, unless it is kept awake ({awake})")
        else:
            yield good("time.suspend", "this machine has not slept since its boot")


def awake(context: Context) -> Iterator[Finding]:
    """Whether the machine can be kept awake, where that is asked for."""
    from codex_self_iter.world.process.inhibitor import command  # imports much

    if not context.settings.service.inhibit_sleep:
        return
    argv, name = command(context.environ)
    answer = ask([*argv, "true"], context) if argv else None
    if answer is not None and answer.ok:
        yield good("service.inhibit_sleep", f"{name} keeps the machine awake")
        return
    why = f"{name} is not there" if answer is None else f"{name} fails: {answer.text}"
    mend = "install it" if answer is None else "ask whoever manages this machine"
    text = f"the machine may sleep while a run is on: {why}"
    yield warn("service.inhibit_sleep", text, f"{mend}, or take [service] inhibit_sleep out")


def metrics(context: Context) -> Iterator[Finding]:
    """Whether the numbers for machines can be written, where that is asked for."""
    from codex_self_iter.metrics import EXTRA
    from codex_self_iter.world.installed import lack  # looks through the installation

    template = context.settings.metrics_file
    if not template:
        return
    place = os.path.dirname(os.path.expanduser(template))
    if flaw := lack(*EXTRA):
        what, _, mend = flaw.partition(": ")
        yield warn("metrics_file", f"nothing is written to {template}: it {what}", mend)
    elif not os.path.isdir(place):
        text = f"nothing is written to {template}: {place} is not there"
        yield warn("metrics_file", text, f"make it: mkdir -p {shlex.quote(place)}")
    elif not os.access(place, os.W_OK | os.X_OK):
        text = f"nothing is written to {template}: {place} cannot be written to"
        yield warn("metrics_file", text, "let this user write there, or name another directory")
    else:
        yield good("metrics_file", f"numbers for machines go to {template}")


def inotify(_: Context) -> Iterator[Finding]:
    """Enough inotify instances for a watcher; without one, changes are seen by polling."""
    most = _number("/proc/sys/fs/inotify/max_user_instances")
    watches = _number("/proc/sys/fs/inotify/max_user_watches")
    if most is None:
        return
    used = _inotify_instances()
    text = f"{used} of {most} inotify instances in use, {watches} watches allowed"
    if most - used < _SPARE_INOTIFY:
        mend = f"sudo sysctl fs.inotify.max_user_instances={max(512, most * 2)}"
        yield warn("inotify", f"{text}: changes may only be seen by polling", mend)
    else:
        yield good("inotify", text)


def temporary(context: Context) -> Iterator[Finding]:
    """A directory for temporary files that takes some."""
    place = next(filter(None, map(context.environ.get, ("TMPDIR", "TEMP", "TMP"))), "/tmp")  # noqa: S108
    mend = f"make room in it, or set TMPDIR (now {place})"
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
            file.flush()
        space = os.statvfs(place)
    except OSError as error:
        yield warn("tmp", f"no temporary file can be made in {place}: {error.strerror}", mend)
        return
    free = space.f_bavail * space.f_frsize / 2**20
    if free < _TEMPORARY_MIB:
        yield warn("tmp", f"only {free:.0f} MiB are free in {place}", mend)
    elif space.f_files and space.f_favail < SPARE_INODES:
        yield warn("tmp", f"only {space.f_favail} inodes are free in {place}", mend)
    else:
        yield good("tmp", f"{place} takes temporary files")


def home(context: Context) -> Iterator[Finding]:
    """A home directory in which agents keep sessions and logins."""
    path = context.environ.get("HOME", "")
    if not path:
        what = "HOME is not set: agents do not find their login"
        yield warn("home", what, "set HOME; in a unit: Environment=HOME=…")
    elif not os.path.isdir(path):
        what = f"the home directory {path} does not exist: agents cannot keep their sessions"
        yield warn("home", what, f"mkdir -p {shlex.quote(path)}")
    elif not os.access(path, os.W_OK | os.X_OK):
        what = f"the home directory {path} cannot be written: agents cannot keep their sessions"
        yield warn("home", what, "mend its permissions, or set HOME to a directory of yours")
    else:
        yield good("home", f"{path} can be written")


def limits(_: Context) -> Iterator[Finding]:
    """How many files and processes an agent may have."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= files < _SPARE_FILES:  # -1: no limit
        what = f"a process may open only {files} files"
        yield warn("limits.files", what, "ulimit -n 1024; in a unit: LimitNOFILE=1024")
    else:
        yield good(
            "limits.files", f"a process may open {files if files >= 0 else 'any number of'} files"
        )
    most, used, where = min(
        _process_bounds(), default=(0, 0, ""), key=lambda bound: bound[0] - bound[1]
    )
    text = f"{used} of {most} processes of {where} are in use" if where else "no bound of processes"
    if where and most - used < _SPARE_PROCESSES:
        mend = "raise it (ulimit -u 4096, TasksMax=, docker run --pids-limit)"
        yield warn("limits.processes", text, mend)
    else:
        yield good("limits.processes", text)


def _process_bounds() -> Iterator[tuple[int, int, str]]:
    """(most, in use, whose): of this user, unless it is root, and of this control group."""
    most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if most >= 0 and os.geteuid() != 0:
        yield most, _owned(), "this user"
    with suppress(OSError, ValueError), open("/proc/self/cgroup", encoding="utf-8") as file:
        group = file.read().rpartition("0::")[2].strip()
        there = f"/sys/fs/cgroup{group}"
        bound, now = _number(f"{there}/pids.max"), _number(f"{there}/pids.current")
        if bound is not None and now is not None:
            yield bound, now, "this control group"


def _owned() -> int:
    """Threads of this user's processes: they are what the limit counts."""
    count = 0
    for directory in glob.glob("/proc/[0-9]*"):
        with suppress(OSError):
            if os.stat(directory).st_uid == os.geteuid():
                count += len(os.listdir(f"{directory}/task"))
    return count


def sandbox(context: Context) -> Iterator[Finding]:
    """Whether an agent's own sandbox can work here (unprivileged user namespaces on Linux)."""
    if not sys.platform.startswith("linux"):
        return
    for key, bad, right in (
        ("kernel.unprivileged_userns_clone", 0, 1),
        ("user.max_user_namespaces", 0, 15000),
        ("kernel.apparmor_restrict_unprivileged_userns", 1, 0),
    ):
        if _number(f"/proc/sys/{key.replace('.', '/')}") == bad and os.geteuid() != 0:
            name = key.rpartition(".")[2]
            what = f"{name} = {bad}: an agent's own sandbox may refuse to start"
            mend = f'sudo sysctl {key}={right}, or agent_mode = "bypass" in a container'
            yield warn("sandbox", what, mend)
            return
    unshare = shutil.which("unshare", path=context.environ.get("PATH"))
    answer = ask([unshare, "-Ur", "true"], context) if unshare else None
    if answer is not None and not answer.ok:
        mend = 'allow unprivileged user namespaces, or agent_mode = "bypass" in a container'
        what = f"user namespaces do not work here: {answer.text or answer.code}"
        yield warn("sandbox", what, mend)
    else:
        found = "user namespaces work" if unshare else "nothing speaks against user namespaces"
        yield good("sandbox", found)


def linger(context: Context) -> Iterator[Finding]:
    """A systemd user service ends with the last login unless lingering is on."""
    own = os.path.join(context.environ.get("HOME", "~"), ".config")
    home = os.path.expanduser(context.environ.get("XDG_CONFIG_HOME") or own)
    units = glob.glob(f"{glob.escape(home)}/systemd/user/codex-self-iter*.service")
    if not units or not os.path.isdir("/run/systemd/system"):
        return
    import pwd

    user = pwd.getpwuid(os.geteuid()).pw_name
    if os.path.exists(f"/var/lib/systemd/linger/{user}"):
        yield good("service.linger", f"the user service of {user} goes on after logout")
    else:
        what = f"the user service of {user} ends when you log out and does not start at boot"
        yield warn("service.linger", what, f"loginctl enable-linger {user}")


def _number(path: str) -> int | None:
    """The number in a kernel file, or None."""
    with suppress(OSError, ValueError), open(path, encoding="ascii") as file:
        return int(file.read())
    return None


def _inotify_instances() -> int:
    """How many inotify instances this user's processes hold, as far as we may see."""
    count = 0
    for directory in glob.glob("/proc/[0-9]*/fd"):
        with suppress(OSError):
            if os.stat(os.path.dirname(directory)).st_uid == os.geteuid():
                count += sum(map(_is_inotify, glob.glob(f"{directory}/*")))
    return count


def _is_inotify(path: str) -> bool:
    with suppress(OSError):
        return os.readlink(path) == "anon_inode:inotify"
    return False


CHECKS: tuple[Check, ...] = (
    python, processes, clock, awake, metrics, inotify, temporary, home, limits, linger
)  # fmt: skip
