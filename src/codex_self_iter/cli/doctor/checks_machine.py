"""Checks of the machine: Python, clock, watching, sandbox, service."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

from codex_self_iter.cli.doctor.ask import ask
from codex_self_iter.cli.doctor.finding import Check, Context, Finding, fail, good, warn
from codex_self_iter.world.process import proctable

_OLDEST_CLOCK = 1_704_067_200.0
"""2024-01-01 UTC: a clock before it was never set."""
_SUSPENDED_SEC = 60.0
_SPARE_INOTIFY = 8


def python(_: Context) -> Iterator[Finding]:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036 - a packager may have lifted the bound
        yield fail("python", f"Python {version} is too old", "install Python 3.11 or later")
    else:
        yield good("python", f"Python {version} ({sys.executable})")


def processes(_: Context) -> Iterator[Finding]:
    """A table of the processes that we could end."""
    what, _sep, mend = proctable.blind().rpartition(": ")
    yield fail("proc", what, mend) if what else good("proc", "processes can be found")


def clock(context: Context) -> Iterator[Finding]:
    """The wall clock, and whether this machine sleeps."""
    if context.now < _OLDEST_CLOCK:
        day = time.strftime("%Y-%m-%d", time.gmtime(context.now))
        mend = "set the clock: sudo timedatectl set-ntp true"
        yield fail("time.clock", f"the clock says {day}", mend)
    else:
        yield good("time.clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(context.now)))
    if hasattr(time, "CLOCK_BOOTTIME"):
        asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
        if asleep > _SUSPENDED_SEC:
            mend = "keep it awake: systemd-inhibit --what=sleep:idle codex-self-iter run"
            what = f"this machine has slept for {asleep / 3600:.1f} h since its boot"
            yield warn("time.suspend", what, mend)
        else:
            yield good("time.suspend", "this machine has not slept since its boot")


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


def sandbox(context: Context) -> Iterator[Finding]:
    """Whether an agent's own sandbox can work here (unprivileged user namespaces on Linux)."""
    if not sys.platform.startswith("linux") or context.settings.agent_mode != "safe":
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


CHECKS: tuple[Check, ...] = (python, processes, clock, inotify, sandbox, linger)
