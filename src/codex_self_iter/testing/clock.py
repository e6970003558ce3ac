"""Virtual time: an event loop that jumps, and a machine's clocks on it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.lowlevel
import anyio.to_thread

__all__ = ["VirtualClock", "VirtualEventLoop", "run_inline", "run_virtual"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

RESOLUTION_SEC = 1e-6
"""Timers that are nearer to each other come together."""
STUCK_SEC = 10.0
"""Real seconds without a timer, a thread or a file event after which a virtual loop gives up."""


class VirtualEventLoop(asyncio.SelectorEventLoop):
    """asyncio on virtual time, which stands still while a watched limiter's thread is busy."""

    def __init__(self) -> None:
        self._now = 0.0
        self._limiters: set[anyio.CapacityLimiter] = set()
        super().__init__(_Selector(self))
        # asyncio's nanosecond is less than two neighbouring numbers differ by after 194 days (2**24
        # seconds): a timer that is due would never be called, and this clock never go on
        self._clock_resolution = RESOLUTION_SEC

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def stand_still_for(self, limiter: anyio.CapacityLimiter) -> None:
        """Never jump while one of this limiter's threads works: it takes no virtual time."""
        self._limiters.add(limiter)

    def patience(self, wanted: float | None) -> float | None:
        """How long the selector may really wait; jumps when time is all that is waited for."""
        if any(limiter.borrowed_tokens for limiter in self._limiters):
            return None
        if wanted is None:
            return STUCK_SEC
        self._now += wanted
        return 0.0


class _Selector(selectors.DefaultSelector):
    """Asks the loop before it waits."""

    def __init__(self, loop: VirtualEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        ready = super().select(self._loop.patience(timeout))
        if not ready and timeout is None:
            raise RuntimeError(
                "nothing is left to wait for: a task waits for something that will never happen"
            )
        return ready


class VirtualClock:
    """A machine's clocks (ports.Clock) on the running virtual event loop."""

    def __init__(self, wall: float = 1_750_000_000.0) -> None:
        """The machine is switched on now, at `wall`. To be made inside the event loop."""
        self._loop = asyncio.get_running_loop()
        if isinstance(self._loop, VirtualEventLoop):
            self._loop.stand_still_for(anyio.to_thread.current_default_thread_limiter())
        self._wall = wall - self._loop.time()
        self._step = 0.0
        self._boots = 0
        self.reboot()

    def reboot(self) -> None:
        """The machine starts again: a new boot id, and its uptime begins anew."""
        self._boots += 1
        self._up_since = self._loop.time() - 10.0
        self._slept = 0.0

    @property
    def boot_id(self) -> str:
        """Names the present boot."""
        return f"boot-{self._boots}"

    def suspend(self, seconds: float) -> None:
        """The machine has slept: boot time and wall clock went on, the monotonic clock did not."""
        self._slept += seconds
        self._wall += seconds

    def step_wall(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self._step += seconds

    def set_right(self) -> None:
        """The wall clock is set to the true time."""
        self._step = 0.0

    def awake(self) -> float:
        """Seconds that were lived through since the loop began, suspends left out."""
        return self._loop.time()

    def true_wall(self) -> float:
        """Unix seconds by a clock that nobody sets."""
        return self._loop.time() + self._wall

    def monotonic(self) -> float:
        return self._loop.time() - self._up_since

    def wall(self) -> float:
        return self.true_wall() + self._step

    def boottime(self) -> float:
        return self.monotonic() + self._slept

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(0.0, seconds))


def run_virtual(main: Callable[[], Awaitable[T]]) -> T:
    """Run an asynchronous function on a fresh virtual event loop."""
    return anyio.run(main, backend="asyncio", backend_options={"loop_factory": VirtualEventLoop})


async def run_inline(function: Callable[[*Ts], T], /, *args: *Ts) -> T:
    """`Shared.in_thread` without a thread: the same order of events each time."""
    await anyio.lowlevel.checkpoint()
    return function(*args)
