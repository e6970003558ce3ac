"""One task that looks at the control files of all loops in turn.

A timer and a wake-up of the event loop cost more than the look itself, so many loops share them:
whoever is due at about the same time is looked at in one go. A look that raises ends its own loop
and no other."""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

import anyio
import anyio.lowlevel

from codex_self_iter.world.ports import Clock

TOGETHER_SEC = 0.02
"""Looks that are due within so short a time of each other share one wake-up."""
BREATH = 20
"""After so many looks the event loop gets its turn."""


class Looker(Protocol):
    """Who is to look now and then."""

    def look(self) -> float:
        """Look; returns the seconds until the next look."""

    def fail(self, error: Exception) -> None:
        """The look has raised; there will be no other."""


class Poller:
    """See the module. `run` it in one task; loops come and go through `watching`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[Looker, float] = {}
        self._queue: list[tuple[float, int, Looker]] = []
        self._count = itertools.count()
        self._wake = anyio.Event()

    @contextlib.contextmanager
    def watching(self, looker: Looker) -> Iterator[Callable[[], None]]:
        """Have it look for as long as the block lasts; gives what makes it look at once."""

        def hint() -> None:
            if looker in self._due:
                self._at(looker, self._clock.monotonic())

        self._due[looker] = 0.0
        hint()
        try:
            yield hint
        finally:
            del self._due[looker]

    def _at(self, looker: Looker, when: float) -> None:
        """Look at this time; an earlier appointment of the same loop is void."""
        self._due[looker] = when
        heapq.heappush(self._queue, (when, next(self._count), looker))
        if self._queue[0][2] is looker:
            self._wake.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            for number, looker in enumerate(self._take(), 1):
                self._look(looker)
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

    def _take(self) -> list[Looker]:
        """Those that are due, or will be in a moment."""
        until, found = self._clock.monotonic() + TOGETHER_SEC, []
        while self._queue and self._queue[0][0] <= until:
            when, _, looker = heapq.heappop(self._queue)
            if self._due.get(looker) == when:
                found.append(looker)
        return found

    def _look(self, looker: Looker) -> None:
        if looker not in self._due:
            return  # it ended while others were looked at
        try:
            pause = looker.look()
        except Exception as error:
            looker.fail(error)
            return
        self._at(looker, self._clock.monotonic() + pause)
