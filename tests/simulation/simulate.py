"""Simulate a year of one loop in about a minute: the real core and supervisor over a scripted
world, on virtual time.

    python -m tests.simulation.simulate --days 365 --mix default --seed 7

The world is drawn from the seed before anything runs: limits, overload, network outages, full
disks, crashes of the supervisor, reboots, suspends, wrong clocks, plan edits. Agents are drawn as
they start. Everything is counted in awake time (a suspended machine can do nothing). See
docs/simulation.md for what the figures mean."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import heapq
import json
import math
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import anyio

from codex_self_iter.core.model import EndCause, RunSpec
from codex_self_iter.errors import StorageError
from codex_self_iter.settings import Settings
from codex_self_iter.supervisor.loop import Loop
from codex_self_iter.supervisor.rounds import Ended
from codex_self_iter.testing import (
    Memory,
    MemoryStore,
    Performance,
    ScriptedAgent,
    ScriptedHost,
    ScriptedMachine,
    VirtualClock,
    answer,
    run_virtual,
    scripted_shared,
)

DAY = 86_400.0
MINUTE = 60.0
RESTART_SEC = 5.0
"""A service manager starts a crashed supervisor again after so long."""
PERSON_SEC = 3_600.0
"""Somebody comes and starts a loop again that ended with a call for help."""
GRACE_SEC = 1.0
"""Between two things that the loop does, so much time needs no reason."""
LOOK_SEC = 6.0
"""A condition of the disk is looked at every five seconds."""
POLL_SEC = 900.0
"""The loop's own polling, 3,600 times slower than in earnest. What happens in between wakes it, as
the watcher does.
"""


# -- the world -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Mix:
    """How much goes wrong. `x_day`: events a day; shares are of agent runs; pairs are ranges in
    minutes.
    """

    run_minutes: float = 24.0
    run_sigma: float = 0.7
    transient: float = 0.01
    silent: float = 0.002
    hang: float = 0.002
    false_claim: float = 0.01
    idle: float = 0.01
    limit_day: float = 0.5
    limit_minutes: tuple[float, float] = (30, 240)
    week_limit_day: float = 0.01
    blind_day: float = 0.1
    blind_minutes: tuple[float, float] = (20, 180)
    overload_day: float = 1.0
    overload_minutes: tuple[float, float] = (1, 30)
    network_day: float = 0.5
    network_minutes: tuple[float, float] = (0.5, 90)
    disk_day: float = 0.03
    disk_minutes: tuple[float, float] = (20, 120)
    crash_day: float = 0.3
    reboot_day: float = 0.07
    suspend_day: float = 0.5
    step_day: float = 0.1
    step_sec: float = 600.0
    """The wall clock is set wrong by up to so much, for up to six hours."""
    edit_day: float = 0.5


CALM = Mix(
    transient=0.002, silent=0.0, hang=0.0005, limit_day=0.1, week_limit_day=0.0, blind_day=0.0, overload_day=0.1,
    network_day=0.05, disk_day=0.0, crash_day=0.02, reboot_day=0.02, suspend_day=0.1, step_day=0.0,
)  # fmt: skip
HELL = Mix(
    transient=0.08, silent=0.02, hang=0.02, false_claim=0.05, idle=0.05, limit_day=2.0, blind_day=1.0,
    overload_day=8.0, network_day=4.0, disk_day=1.0, crash_day=12.0, reboot_day=1.0, suspend_day=3.0, step_day=2.0,
    step_sec=365 * DAY, edit_day=4.0,
)  # fmt: skip
LIMITS = dataclasses.replace(Mix(), limit_day=3.0, blind_day=1.0)
CRASHES = dataclasses.replace(Mix(), crash_day=48.0, reboot_day=2.0)
CLOCKS = dataclasses.replace(Mix(), suspend_day=6.0, step_day=6.0, step_sec=365 * DAY)
MIXES = {
    "default": Mix(),
    "calm": CALM,
    "hell": HELL,
    "limits": LIMITS,
    "crashes": CRASHES,
    "clocks": CLOCKS,
}

REFUSALS = {
    "blind": ("usage limit reached, please upgrade your plan", (3.0, 15.0)),
    "overload": ("API Error: 529 overloaded_error: Overloaded", (10.0, 60.0)),
    "network": ("error sending request: connection refused", (20.0, 90.0)),
}
LONGEST_RUN = 100.0
"""Minutes: an agent is asked for one step, and `command_timeout_sec` is two hours."""
SHORT_OUTAGE_SEC = 45.0
"""CLIs try again by themselves for about so long."""


@dataclasses.dataclass(frozen=True, order=True)
class Window:
    """A stretch of awake time in which something is out of order."""

    start: float
    end: float
    kind: str


class World:
    """Everything that happens whatever the supervisor does, drawn from the seed."""

    def __init__(self, mix: Mix, days: float, seed: int) -> None:
        """Draw it."""
        self.mix, self.horizon = mix, days * DAY
        self.random = random.Random(seed)
        pick = self.random
        self.windows: list[Window] = []
        for kind, rate, span in (
            ("limit", mix.limit_day, mix.limit_minutes),
            ("limit", mix.week_limit_day, (2 * 1440, 7 * 1440)),
            ("blind", mix.blind_day, mix.blind_minutes),
            ("overload", mix.overload_day, mix.overload_minutes),
            ("network", mix.network_day, mix.network_minutes),
            ("disk", mix.disk_day, mix.disk_minutes),
        ):
            low, high = math.log(span[0]), math.log(span[1])
            for at in self._times(rate):
                self.windows.append(
                    Window(at, at + MINUTE * math.exp(pick.uniform(low, high)), kind)
                )
        self.windows.sort()
        self.happenings: list[tuple[float, int, str, float]] = []
        for kind, rate, draw in (
            ("crash", mix.crash_day, lambda: pick.choice((0, pick.randrange(-6, 7)))),
            ("reboot", mix.reboot_day, lambda: pick.uniform(40, 240)),
            ("suspend", mix.suspend_day, lambda: pick.uniform(60, 9 * 3600)),
            ("step", mix.step_day, lambda: pick.uniform(-1, 1) * mix.step_sec),
            ("edit", mix.edit_day, lambda: 0.0),
        ):
            self.happenings += [(at, 0, kind, draw()) for at in self._times(rate)]
        self.happenings += [(at + pick.uniform(60, 6 * 3600), 1, "set right", 0.0)
                            for at, _, kind, _ in self.happenings if kind == "step"]  # fmt: skip
        for window in self.windows:
            if window.kind == "disk":
                self.happenings += [
                    (window.start, 2, "disk full", 0.0),
                    (window.end, 3, "disk free", 0.0),
                ]
        heapq.heapify(self.happenings)

    def _times(self, a_day: float) -> list[float]:
        times: list[float] = []
        at = 0.0
        while a_day > 0 and (at := at + self.random.expovariate(a_day / DAY)) < self.horizon:
            times.append(at)
        return times

    def refusing(self, at: float) -> Window | None:
        """What an agent that starts now runs into: the one that lasts longest."""
        found = [w for w in self._near(at) if w.kind != "disk" and w.start <= at < w.end]
        return max(found, key=lambda window: window.end, default=None)

    def next_cut(self, at: float, until: float) -> Window | None:
        """What ends a run that works from `at` until `until`."""
        for window in self._near(until):
            short = window.kind == "network" and window.end - window.start < SHORT_OUTAGE_SEC
            if at < window.start < until and window.kind != "disk" and not short:
                return window
        return None

    def _near(self, at: float) -> Iterator[Window]:
        """The windows that have begun by `at`; those that ended long ago are forgotten."""
        while self.windows and self.windows[0].end < at - 10 * DAY:
            self.windows.pop(0)
        for window in self.windows:
            if window.start > at:
                return
            yield window

    def slept_between(self, begin: float, end: float) -> float:
        """Seconds of suspend that lie between two moments of awake time, both to come."""
        return sum(
            size for at, _, kind, size in self.happenings if kind == "suspend" and begin < at <= end
        )


class Cast:
    """What agents do."""

    def __init__(self, world: World, clock: VirtualClock) -> None:
        """`kinds` counts what they did."""
        self.world, self.clock, self.random = world, clock, world.random
        self.kinds: Counter[str] = Counter()
        self.number = 0

    def perform(self, spec: RunSpec) -> Performance:
        """See ScriptedMachine."""
        now, over = self.clock.awake(), self.clock.awake() >= self.world.horizon
        self.number += 1
        if "-gate-" in spec.run_id:
            return self._note(
                "gate", Performance(self.random.uniform(60, 240), "F\n", exit_code=int(not over))
            )
        if over:
            done = answer("", completed=True, summary="all done")
            return self._note("last", Performance(60.0, done))
        refusing = self.world.refusing(now)
        if refusing is not None:
            return self._refused(refusing)
        return self._work(now)

    def _note(self, kind: str, part: Performance, worked: float = 0.0) -> Performance:
        self.kinds[kind] += 1
        return dataclasses.replace(part, note=(kind, worked))

    def _refused(self, window: Window, after: float = 0.0) -> Performance:
        text, (low, high) = REFUSALS.get(window.kind, ("", (3.0, 15.0)))
        if window.kind == "limit":
            rest = window.end - self.clock.awake()
            rest += self.world.slept_between(self.clock.awake(), window.end)
            text = f"Claude usage limit reached|{math.ceil(self.clock.true_wall() + rest)}"
        seconds = after + self.random.uniform(low, high)
        part = Performance(seconds, stderr=f"{text}\n", exit_code=1, changes=after > 0)
        return self._note(
            f"cut by {window.kind}" if after else f"refused: {window.kind}", part, after
        )

    def _work(self, now: float) -> Performance:
        mix, pick = self.world.mix, self.random
        seconds = MINUTE * min(
            LONGEST_RUN, pick.lognormvariate(math.log(mix.run_minutes), mix.run_sigma)
        )
        text = answer(f"step {self.number}", summary=f"did step {self.number}")
        shares = {
            "transient": mix.transient,
            "silent": mix.silent,
            "hang": mix.hang,
            "false claim": mix.false_claim,
            "idle": mix.idle,
        }
        kind = pick.choices([*shares, "work"], [*shares.values(), 1.0 - sum(shares.values())])[0]
        if kind == "transient":
            return self._note(
                kind, Performance(pick.uniform(10, 90), stderr="assertion failed\n", exit_code=1)
            )
        cut = self.world.next_cut(now, now + seconds)
        if cut is not None:
            return self._refused(cut, cut.start - now)
        if kind == "silent":
            return self._note(kind, Performance(seconds))
        if kind == "hang":
            return self._note(kind, Performance(seconds, hangs_after=pick.uniform(0, seconds)))
        if kind == "false claim":
            text = answer(f"step {self.number}", completed=True, summary="all done, I think")
        return self._note(kind, Performance(seconds, text, changes=kind != "idle"), seconds)


# -- what must hold --------------------------------------------------------------------------------


class Judge:
    """Looks at every stretch in which nothing changed: was an agent at work, or did the status say
    why not?

    Attributes:
        unexplained: (seconds, awake time, what the status said) of each stretch without a good
            reason.
        idle: seconds by what the status said.
    """

    def __init__(self, simulation: Simulation) -> None:
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


class _Store(MemoryStore):
    """Tells what the status is to be before anything else."""

    on_status: Callable[[Mapping[str, Any]], None]

    def save_status(self, status: Mapping[str, Any]) -> None:
        self.on_status(status)
        super().save_status(status)


# -- the supervisor, life after life ---------------------------------------------------------------


class Simulation:
    """One loop from its first start to its last end."""

    def __init__(
        self, world: World, workspace: str, settings: Settings, clock: VirtualClock, seed: int
    ) -> None:
        """Nothing has happened yet."""
        self.world, self.workspace, self.settings, self.clock = world, workspace, settings, clock
        self.cast = Cast(world, clock)
        self.machine = ScriptedMachine(clock, self.cast.perform)
        self.ledger = Ledger()
        self.memory = Memory(on_line=self.ledger.line)
        self.judge = Judge(self)
        self.machine.on_change = self.judge.mark
        self.random = random.Random(seed + 1)
        self.down = True
        self.disk_full, self.disk_free_since = False, 0.0
        self.ends: list[Ended] = []
        self.loop: Loop | None = None
        self.happened: Counter[str] = Counter()
        self.down_windows: list[tuple[float, float]] = []
        self._host = ScriptedHost(self.machine)
        self._scope = anyio.CancelScope()
        self._writes_to_live: int | None = None
        self._off_for = RESTART_SEC
        self._edits = 0
        self._status: Mapping[str, Any] = {"state": "starting", "reason": ""}

    async def run(self) -> None:
        """Live until the horizon, and to the proven end after it."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._let_happen)
            while True:
                ended = await self._life()
                self.judge.mark()
                if ended is not None:
                    self.ends.append(ended)
                    if self.clock.awake() >= self.world.horizon:
                        break
                self.down = True
                await anyio.sleep(self._off_for if ended is None else PERSON_SEC)
                self.judge.mark()
            tasks.cancel_scope.cancel()

    async def _life(self) -> Ended | None:
        """One supervisor process; None when it crashed."""
        self._host, self._scope = ScriptedHost(self.machine), anyio.CancelScope()
        self._writes_to_live, self._off_for = None, RESTART_SEC
        shared = scripted_shared(
            self.machine,
            host=self._host,
            rng=self.random,
            open_store=self._open_store,
            poll_sec=POLL_SEC,
            housekeeping_sec=DAY,
            free_disk_mb=lambda _path: 1 if self.disk_full else 100_000,
            on_round=self.judge.mark,
        )
        ended = None
        self.down = False
        self.loop = Loop(shared, self.settings)
        with self._scope:
            ended = await self.loop.run()
        self.loop = None
        return None if self._host.dead else ended

    def _open_store(self, path: str, workspace: str) -> MemoryStore:
        store, host = _Store(path, workspace, self.memory), self._host
        store.on_status = lambda status: self._said(host, status)
        store.before = lambda what: self._before_write(host, what)
        store.after = lambda _what: self._after_write(host)
        return store

    def _before_write(self, host: ScriptedHost, what: str) -> None:
        if what != "status" and self._writes_to_live is not None and self._writes_to_live < 0:
            self._writes_to_live += 1
            if self._writes_to_live == 0:
                self._crash()
        if host.dead:
            raise StorageError("this process is dead")
        if self.disk_full:
            raise StorageError(f"cannot write {what}: no space left on device")

    def _after_write(self, host: ScriptedHost) -> None:
        if self._writes_to_live is not None and self._writes_to_live > 0 and not host.dead:
            self._writes_to_live -= 1
            if self._writes_to_live == 0:
                self._crash()

    def _crash(self, off_for: float = RESTART_SEC) -> None:
        """kill -9, at whatever await the code is."""
        self.judge.mark()
        self.down = True
        self._off_for = off_for
        self._host.die()
        self._scope.cancel()

    def _said(self, host: ScriptedHost, status: Mapping[str, Any]) -> None:
        """What people see has changed (the log has it while the disk is full)."""
        if not host.dead:
            self.judge.mark()
            self._status = status

    def status(self) -> Mapping[str, Any]:
        """What people see."""
        if self.down:
            return {"state": "down", "reason": "the supervisor or the machine is down"}
        return self._status

    # -- what happens ------------------------------------------------------------------------------

    async def _let_happen(self) -> None:
        happenings = self.world.happenings
        while happenings:
            await anyio.sleep(max(0.0, happenings[0][0] - self.clock.awake()))
            _, _, kind, size = heapq.heappop(happenings)
            self.judge.mark()
            self.happened[kind] += 1
            _ACTS[kind](self, size)
            if self.loop is not None and self.loop.rounds is not None:
                self.loop.rounds.hint()
                if kind in ("step", "set right", "suspend"):
                    self.loop.rounds.ctx.tell()  # the supervisor's tick notices within a second
            self.judge.mark()

    def _happen_crash(self, size: float) -> None:
        if self.down:
            return
        if size == 0:
            self._crash()
        else:
            self._writes_to_live = int(size)

    def _happen_reboot(self, size: float) -> None:
        now = self.clock.awake()
        if not self.down:
            self._crash(size)
            self.down_windows.append((now, now + size))
        self.machine.reboot()

    def _happen_disk(self, full: bool) -> None:
        self.disk_full = full
        self.disk_free_since = self.clock.awake()
        if not full and self.loop is not None:
            # The loop looks at the disk every five seconds; its own clock of looks must have moved
            # on.
            heapq.heappush(self.world.happenings, (self.clock.awake() + LOOK_SEC, 4, "look", 0.0))

    def _happen_edit(self, _size: float) -> None:
        self._edits += 1
        path = os.path.join(self.workspace, "plan.md")
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(
                "# Plan\n" + "".join(f"- [ ] item {n}\n" for n in range(self._edits % 50 + 1))
            )
        os.replace(f"{path}.new", path)
        heapq.heappush(self.world.happenings, (self.clock.awake() + 1.0, 4, "look", 0.0))


_ACTS: dict[str, Callable[[Simulation, float], None]] = {
    "crash": Simulation._happen_crash,
    "reboot": Simulation._happen_reboot,
    "suspend": lambda simulation, size: simulation.clock.suspend(size),
    "step": lambda simulation, size: simulation.clock.step_wall(size),
    "set right": lambda simulation, _size: simulation.clock.set_right(),
    "disk full": lambda simulation, _size: simulation._happen_disk(full=True),
    "disk free": lambda simulation, _size: simulation._happen_disk(full=False),
    "edit": Simulation._happen_edit,
    "look": lambda _simulation, _size: None,
}


# -- the sum of it ---------------------------------------------------------------------------------

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


def _sum_up(simulation: Simulation, out_of_order: list[Stretch], seed: int) -> Result:
    world, machine, ledger = simulation.world, simulation.machine, simulation.ledger
    horizon = world.horizon
    unavailable = [
        (start, min(end, horizon)) for start, end in (*out_of_order, *simulation.down_windows)
    ]
    agents = [agent for agent in machine.history if agent.performance.note[0] != "gate"]
    productive = [_worked(agent, horizon) for agent in agents if _counts(agent, ledger)]
    answered = [
        _worked(a, horizon) for a in agents if _counts(a, ledger) and a.performance.exit_code == 0
    ]
    best = horizon - total(union(unavailable))
    faults = list(ledger.faults)
    faults += [f"two agents at once: {one} and {two}" for one, two in machine.overlaps]
    missing = {agent.spec.run_id for agent in agents} - ledger.taken
    faults += [f"no journal line for run {run_id}" for run_id in sorted(missing)]
    if ledger.last != simulation.memory.lines[-1]["iteration"]:
        faults.append("the journal's end is not the last line written")
    return Result(
        seed=seed,
        days=horizon / DAY,
        best=best,
        productive=total(union(productive)) - common(productive, unavailable),
        answered=total(union(answered)) - common(answered, unavailable),
        iterations=ledger.last,
        runs=len(agents),
        kinds=dict(sorted(simulation.cast.kinds.items())),
        verdicts=dict(sorted(ledger.verdicts.items())),
        happened=dict(sorted(simulation.happened.items())),
        idle=dict(sorted(simulation.judge.idle.items(), key=lambda item: -item[1])),
        unexplained=simulation.judge.unexplained,
        faults=faults,
        ends=[f"{ended.state} ({ended.code}): {ended.reason}" for ended in simulation.ends],
    )


def _counts(agent: ScriptedAgent, ledger: Ledger) -> bool:
    """It worked, ended by itself, and the loop took its result."""
    return (
        agent.cause is EndCause.EXIT
        and agent.performance.note[1] > 0
        and agent.spec.run_id in ledger.taken
    )


def _worked(agent: ScriptedAgent, horizon: float) -> Stretch:
    return min(agent.started, horizon), min(agent.started + agent.performance.note[1], horizon)


def simulate(
    mix: Mix,
    days: float,
    seed: int,
    *,
    make_clock: Callable[[], VirtualClock] = VirtualClock,
    **overrides: Any,
) -> Result:
    """Simulate one loop; `overrides` are settings."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

    async def main(workspace: str) -> Result:
        world = World(mix, days, seed)
        out_of_order = [(window.start, window.end) for window in world.windows]
        given: dict[str, Any] = {
            "workspace": workspace,
            "agent": "command",
            "agent_command_template": "sh {prompt_file}",
            "max_stagnation": 0,
            "git": {"checkpoints": False},
            "verify": {"commands": ["make check"]},
        }
        simulation = Simulation(
            world, workspace, Settings(**(given | overrides)), make_clock(), seed
        )
        await simulation.run()
        return _sum_up(simulation, out_of_order, seed)

    with tempfile.TemporaryDirectory(prefix="simulate-", dir=shm) as workspace:
        with open(os.path.join(workspace, "plan.md"), "w", encoding="utf-8") as file:
            file.write("# Plan\n- [ ] everything\n")
        return run_virtual(lambda: main(workspace))


def show(result: Result, name: str) -> str:
    """The result in words."""
    lines = [
        f"mix {name}, {result.days:g} days, seed {result.seed}",
        f"goodput              {result.goodput:.4f}  ({result.productive / 3600:.1f} h of {result.best / 3600:.1f} h)",
        f"answered runs alone  {result.answered / result.best:.4f}",
        f"longest unexplained  {result.longest_unexplained:.1f} s ({len(result.unexplained)} stretches)",
        f"iterations           {result.iterations} ({result.runs} agent runs)",
        f"broken invariants    {len(result.faults)}",
        f"verdicts             {_counted(result.verdicts)}",
        f"agents               {_counted(result.kinds)}",
        f"happenings           {_counted(result.happened)}",
        f"ends                 {'; '.join(result.ends[-3:])} ({len(result.ends)})",
        "without an agent, by what the status said:",
    ]
    lines += [
        f"  {seconds / 3600:8.2f} h  {said}" for said, seconds in list(result.idle.items())[:12]
    ]
    lines += [
        f"UNEXPLAINED {length:.1f} s at {at:.1f}: {said}"
        for length, at, said in result.unexplained[:10]
    ]
    lines += [f"BROKEN {fault}" for fault in result.faults[:10]]
    return "\n".join(lines)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key} {count}" for key, count in counts.items())


def main() -> int:
    """Exit 0 when nothing is unexplained and no invariant broken."""
    parser = argparse.ArgumentParser(description="Simulate a loop over a scripted world.")
    parser.add_argument("--days", type=float, default=365.0)
    parser.add_argument("--mix", choices=[*MIXES, "all"], default="default")
    parser.add_argument(
        "--seed", type=int, default=None, help="a run with the same seed is the same run"
    )
    parser.add_argument("--on-orphan", choices=["adopt", "kill"], default="adopt")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    # the book-keeping is kept anyway; looking through it takes time
    gc.set_threshold(100_000, 50, 50)
    bad = False
    for name in MIXES if given.mix == "all" else [given.mix]:
        begun = time.monotonic()
        result = simulate(MIXES[name], given.days, seed, on_orphan=given.on_orphan)
        print(json.dumps(dataclasses.asdict(result)) if given.json else show(result, name))
        print(f"real time {time.monotonic() - begun:.1f} s\n", file=sys.stderr)
        bad = bad or bool(result.unexplained or result.faults)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
