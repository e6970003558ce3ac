"""What must hold, and what a simulation came to."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from codex_self_iter.testing import ScriptedMachine, VirtualClock
from tests.simulation.world import World

GRACE_SEC = 1.0
"""Between two things that the loop does, so much time needs no reason."""
LOOK_SEC = 6.0
"""A condition of the disk is looked at every five seconds."""


class Judged(Protocol):
    """What a judge looks at."""

    world: World
    clock: VirtualClock
    machine: ScriptedMachine
    down: bool
    disk_full: bool
    disk_free_since: float

    def status(self) -> Mapping[str, Any]:
        """What people see."""


class Judge:
    """Looks at every stretch in which nothing changed: was an agent at work, or did the status say
    why not?

    Attributes:
        unexplained: (seconds, awake time, what the status said) of each stretch without a good
            reason.
        idle: seconds by what the status said."""

    def __init__(self, simulation: Judged) -> None:
        """Begins now."""
        self._simulation = simulation
        self._since = 0.0
        self._busy = False
        self._seen: dict[tuple[Any, ...], float] = {}
        self.unexplained: list[tuple[float, float, str]] = []
        self.idle: dict[str, float] = {}

    def mark(self) -> None:
        """Something has changed just now: judge the stretch that ends here."""
        simulation = self._simulation
        now = simulation.clock.awake()
        if now > self._since:
            if self._busy:
                self._seen.clear()
            else:
                self._judge(min(now, simulation.world.horizon) - self._since)
            self._since = now
        # An agent that is due this very moment has worked until now.
        self._busy = any(agent.outcome is None for agent in simulation.machine.history[-2:])

    def _judge(self, length: float) -> None:
        if length <= 0:
            return
        status = self._simulation.status()
        said = f"{status['state']}: {_sort(str(status['reason']))}"
        missing = self._missing(status, length)
        self.idle[said] = self.idle.get(said, 0.0) + length
        if missing > GRACE_SEC:
            last = self.unexplained[-1] if self.unexplained else (0.0, -1.0, "")
            if last[1] + last[0] >= self._since - GRACE_SEC and last[2] == said:
                self.unexplained[-1] = (self._since + length - last[1], last[1], said)
            else:
                self.unexplained.append((missing, self._since + length - missing, said))

    def _missing(self, status: Mapping[str, Any], length: float) -> float:
        """How many of the last `length` seconds the status does not explain."""
        simulation = self._simulation
        if simulation.down:
            return 0.0
        wait = status.get("wait")
        if wait is not None:
            clock = simulation.clock
            key = (wait["kind"], wait["length_sec"], wait["reason"])
            first = self._seen.setdefault(key, clock.true_wall() - length)
            late = clock.true_wall() - first - float(wait["length_sec"])
            until = datetime.fromisoformat(wait["until"].replace("Z", "+00:00")).timestamp()
            return min(length, max(0.0, late, clock.wall() - until))
        self._seen.clear()
        if status["state"] == "blocked":
            free_for = (
                0.0
                if simulation.disk_full
                else simulation.clock.awake() - simulation.disk_free_since
            )
            return min(length, max(0.0, free_for - LOOK_SEC))
        return length


def _sort(reason: str) -> str:
    """The reason without figures."""
    return "".join("#" if char.isdigit() else char for char in reason)[:60]


@dataclasses.dataclass
class Ledger:
    """The journal as it was written: numbers, and which runs the loop took the result of."""

    last: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)
    taken: set[str] = dataclasses.field(default_factory=set)
    verdicts: Counter[str] = dataclasses.field(default_factory=Counter)

    def line(self, record: Mapping[str, Any]) -> None:
        """One line was appended."""
        if record["iteration"] != self.last + 1:
            self.faults.append(f"journal line {record['iteration']} follows {self.last}")
        self.last = record["iteration"]
        self.verdicts[record["verdict"]] += 1
        self.taken |= {run["run_id"] for run in record["runs"]}


Stretch = tuple[float, float]


def union(stretches: list[Stretch]) -> list[Stretch]:
    """The same seconds, without overlaps, in order."""
    joined: list[Stretch] = []
    for start, end in sorted(stretches):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif end > start:
            joined.append((start, end))
    return joined


def total(stretches: list[Stretch]) -> float:
    """Seconds in all."""
    return sum(end - start for start, end in stretches)


def common(one: list[Stretch], two: list[Stretch]) -> float:
    """Seconds that two lists share."""
    one, two = union(one), union(two)
    return total(one) + total(two) - total(union(one + two))


@dataclasses.dataclass
class Result:
    """What a simulation came to. Seconds are awake seconds."""

    seed: int
    days: float
    best: float
    productive: float
    answered: float
    iterations: int
    runs: int
    kinds: dict[str, int]
    verdicts: dict[str, int]
    happened: dict[str, int]
    idle: dict[str, float]
    unexplained: list[tuple[float, float, str]]
    faults: list[str]
    ends: list[str]

    @property
    def goodput(self) -> float:
        """Productive time ÷ the best possible with perfect knowledge."""
        return self.productive / self.best if self.best else 1.0

    @property
    def longest_unexplained(self) -> float:
        """Seconds of the longest stretch without a stated reason."""
        return max((length for length, _, _ in self.unexplained), default=0.0)
