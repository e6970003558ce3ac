"""The pool: the bounded set of agent runs that one supervisor may have alive at once.

First come, first served within a priority. A waiter that is passed over by later ones gains a step
of priority every few times, so nobody starves. A waiter whose agent is at its own limit does not
hold up those behind it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

PASSES_PER_STEP = 4
"""Being passed over this often is worth one step of priority."""


@dataclasses.dataclass(eq=False, slots=True)
class _Ticket:
    key: str
    priority: int
    owner: str
    granted: anyio.Event
    passed: int = 0

    @property
    def rank(self) -> int:
        return self.priority + self.passed // PASSES_PER_STEP


class Pool:
    """Slots for agent runs. Belongs to one event loop."""

    def __init__(
        self,
        max_agents: int,
        per_agent: Mapping[str, int] | None = None,
        hold: Callable[[], str] = lambda: "",
    ) -> None:
        """At most `max_agents` runs, at most `per_agent[name]` of an agent; below 1: no limit.

        `hold` says why no run may start beside others (memory), or ""; one alone is never held."""
        self._hold = hold
        self._max = max_agents
        self._per_agent = dict(per_agent or {})
        self._waiting: list[_Ticket] = []  # in order of arrival
        self._held: list[_Ticket] = []

    @property
    def slots(self) -> int:
        """How many there are; 0: no limit."""
        return max(0, self._max)

    @property
    def in_use(self) -> int:
        """Number of slots taken now."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Number of waiters."""
        return len(self._waiting)

    @asynccontextmanager
    async def slot(
        self, key: str, priority: int = 0, owner: str = "", *, at_once: bool = False
    ) -> AsyncIterator[None]:
        """Hold a slot for a run of agent `key`; higher `priority` first; `owner` is for status.

        `at_once`: the run is alive already, room or not."""
        ticket = _Ticket(key, priority, owner, anyio.Event())
        if at_once:
            self._held.append(ticket)
            ticket.granted.set()
        else:
            self._waiting.append(ticket)
            self._grant()
        try:
            await ticket.granted.wait()
            yield
        finally:
            (self._held if ticket in self._held else self._waiting).remove(ticket)
            self._grant()

    def resize(self, max_agents: int, per_agent: Mapping[str, int] | None = None) -> None:
        """New limits. Runs beyond a smaller limit go on; no new one starts until there is room."""
        self._max = max_agents
        self._per_agent = dict(per_agent or {})
        self._grant()

    def look(self) -> None:
        """Look again whether what `hold` told is over."""
        if self._waiting:
            self._grant()

    def waiting_for(self, owner: str) -> str:
        """What `owner` waits for, in words for `status`; "" if it does not wait."""
        ticket = next((ticket for ticket in self._waiting if ticket.owner == owner), None)
        if ticket is None:
            return ""
        before = self._waiting[: self._waiting.index(ticket)]
        ahead = sum(other.rank > ticket.rank for other in self._waiting)
        ahead += sum(other.rank == ticket.rank for other in before)
        holders = ", ".join(sorted({held.owner or held.key for held in self._held}))
        if self._has_room(ticket):
            return "a slot of the pool"
        held = self._hold() if self._held else ""
        if held:
            what = f"a slot of the pool ({held}"
        elif self._max >= 1 and len(self._held) >= self._max:
            what = f"a slot of the pool ({len(self._held)} of {self._max} taken by {holders}"
        else:
            taken = sum(held.key == ticket.key for held in self._held)
            limit = self._per_agent[ticket.key]
            what = f"a slot for {ticket.key} ({taken} of {limit} taken by {holders}"
        return f"{what}; {ahead} ahead)"

    def _has_room(self, ticket: _Ticket) -> bool:
        limit = self._per_agent.get(ticket.key, 0)
        if self._held and self._hold():
            return False
        if self._max >= 1 and len(self._held) >= self._max:
            return False
        return limit < 1 or Counter(held.key for held in self._held)[ticket.key] < limit

    def _grant(self) -> None:
        """Give free slots away: highest rank first, among equals the longest waiting."""
        while ready := [ticket for ticket in self._waiting if self._has_room(ticket)]:
            chosen = max(ready, key=lambda ticket: ticket.rank)  # max keeps the first of equals
            for ticket in ready[: ready.index(chosen)]:
                ticket.passed += 1
            self._waiting.remove(chosen)
            self._held.append(chosen)
            chosen.granted.set()
