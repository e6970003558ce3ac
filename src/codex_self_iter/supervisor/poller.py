"""One task that looks at the control files of all loops in turn.

A timer and a wake-up of the event loop cost more than the look itself, so many loops share them:
whoever is due at about the same time is looked at in one go. A look that raises ends its own loop
and no other."""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from codex_self_iter.supervisor.control import Control
    from codex_self_iter.world.ports import Clock

TOGETHER_SEC = 0.02
"""Looks that are due within so short a time of each other share one wake-up."""
BREATH = 20
"""After so many looks the event loop gets its turn."""


class Poller:
    """See the module. `run` it in one task; loops come and go through `watching`."""

    def __init__(self, clock: Clock) -> None:
        """Nobody is looked at yet."""
        self._clock = clock
        self._due: dict[Control, float] = {}
        self._queue: list[tuple[float, int, Control]] = []
        self._count = itertools.count()
        self._wake = anyio.Event()

    @contextlib.contextmanager
    def watching(self, control: Control) -> Iterator[None]:
        """Look at these files for as long as the block lasts."""
        control.on_hint = lambda: self._at(control, self._clock.monotonic())
        control.on_hint()
        try:
            yield
        finally:
            del self._due[control]
            control.on_hint = lambda: None

    def _at(self, control: Control, when: float) -> None:
        """Look at this time; an earlier appointment of the same loop is void."""
        self._due[control] = when
        heapq.heappush(self._queue, (when, next(self._count), control))
        if self._queue[0][2] is control:
            self._wake.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            for number, control in enumerate(self._take(), 1):
                self._look(control)
                if number % BREATH == 0:
                    await anyio.lowlevel.checkpoint()
            self._wake = anyio.Event()
            pause = self._queue[0][0] - self._clock.monotonic() if self._queue else None
            if pause is None:
                await self._wake.wait()
            elif pause > 0:
                with anyio.move_on_after(pause):
                    await self._wake.wait()
            else:
                await anyio.lowlevel.checkpoint()

    def _take(self) -> list[Control]:
        """Those that are due, or will be in a moment."""
        until, found = self._clock.monotonic() + TOGETHER_SEC, []
        while self._queue and self._queue[0][0] <= until:
            when, _, control = heapq.heappop(self._queue)
            if self._due.get(control) == when:
                found.append(control)
        return found

    def _look(self, control: Control) -> None:
        if control not in self._due:
            return  # it ended while others were looked at
        loop = control.loop
        try:
            control.look()
        except Exception as error:
            loop.fail(error)
            return
        loop.retry()
        self._at(control, self._clock.monotonic() + control.patience())
