"""One loop over the scripted world, supervisor after supervisor, to its proven end."""

from __future__ import annotations

import heapq
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from codex_self_iter.core.runs import EndCause
from codex_self_iter.errors import StorageError
from codex_self_iter.settings import Settings
from codex_self_iter.supervisor.loop import Loop
from codex_self_iter.supervisor.rounds import Ended
from codex_self_iter.testing import (
    Memory,
    MemoryStore,
    ScriptedAgent,
    ScriptedHost,
    ScriptedMachine,
    VirtualClock,
    run_virtual,
    scripted_shared,
)
from tests.simulation.cast import Cast
from tests.simulation.ledger import LOOK_SEC, Judge, Ledger, Result, Stretch, common, total, union
from tests.simulation.world import DAY, Mix, World

RESTART_SEC = 5.0
"""A service manager starts a crashed supervisor again after so long."""
PERSON_SEC = 3_600.0
"""Somebody comes and starts a loop again that ended with a call for help."""
POLL_SEC = 900.0
"""The loop's own polling, 3,600 times slower than in earnest. What happens in between wakes it, as
the watcher does."""


class _Store(MemoryStore):
    """Tells what the status is to be before anything else."""

    on_status: Callable[[Mapping[str, Any]], None]

    def save_status(self, status: Mapping[str, Any]) -> None:
        self.on_status(status)
        super().save_status(status)


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
