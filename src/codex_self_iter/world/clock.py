"""Time as an object, and what tells a suspend and a set wall clock from time that really passed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time

import anyio

from codex_self_iter.world import ports

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


@functools.cache
def _uptime_file() -> int:
    """Descriptor of the kernel's own statement, -1 where there is none."""
    with contextlib.suppress(OSError):
        return os.open("/proc/uptime", os.O_RDONLY | os.O_CLOEXEC)
    return -1


def uptime() -> float:
    """Seconds since boot, suspend included; to 10 ms where /proc/uptime is read.

    What the kernel writes down, not what a clock function returns: a preloaded library, or whatever
    else shifts the clocks of a process, does not reach it. So two processes of one boot always
    agree on it."""
    if _uptime_file() >= 0:
        with contextlib.suppress(OSError, ValueError, IndexError):
            return float(os.pread(_uptime_file(), 64, 0).split()[0])
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


class SystemClock:
    """The machine's clocks (ports.Clock)."""

    def monotonic(self) -> float:
        """Seconds that never jump and stand still in suspend."""
        return time.monotonic()

    def wall(self) -> float:
        """Unix seconds; may jump."""
        return time.time()

    def boottime(self) -> float:
        """Like `monotonic`, but goes on in suspend where the system has such a clock."""
        return uptime()

    async def sleep(self, seconds: float) -> None:
        """Wait, on the monotonic clock; negative is no wait."""
        await anyio.sleep(max(0.0, seconds))


@dataclasses.dataclass(frozen=True, slots=True)
class ClockReading:
    """The three clocks at (nearly) one moment, in seconds."""

    monotonic: float
    wall: float
    boottime: float


@dataclasses.dataclass(frozen=True, slots=True)
class ClockJump:
    """What happened between two readings.

    Attributes:
        suspended_sec: how long the machine slept; 0 if it did not.
        wall_step_sec: by how much the wall clock was set forward (or back, negative) beyond the
        time that passed."""

    suspended_sec: float
    wall_step_sec: float

    def __bool__(self) -> bool:
        return bool(self.suspended_sec or self.wall_step_sec)


def read_clock(clock: ports.Clock) -> ClockReading:
    """Read all three clocks."""
    return ClockReading(clock.monotonic(), clock.wall(), clock.boottime())


def clock_jump(
    before: ClockReading, after: ClockReading, *, tolerance_sec: float = 1.0
) -> ClockJump:
    """Compare two readings. Differences below `tolerance_sec` are slewing or scheduling."""
    awake = after.monotonic - before.monotonic
    suspended = (after.boottime - before.boottime) - awake
    suspended = suspended if suspended >= tolerance_sec else 0.0
    step = (after.wall - before.wall) - awake - suspended
    return ClockJump(suspended, step if abs(step) >= tolerance_sec else 0.0)
