"""A scripted world for tests and simulations: days of the real loop in milliseconds.

`VirtualEventLoop` is asyncio on virtual time: when nothing is ready it jumps to the next timer. `VirtualClock` is a
machine's clocks on it: suspends, reboots and wall-clock steps are calls. `ScriptedMachine` keeps agents as a machine
does, whatever happens to supervisors: each `ScriptedHost` is the process host of one supervisor process, and one that
`die`s leaves its agents behind for the next to adopt. What an agent does is a `Performance`.

    async def main() -> None:
        machine = ScriptedMachine(VirtualClock(), lambda spec: Performance(600.0, answer("go on")))
        await Loop(scripted_shared(machine), settings).run()

    run_virtual(main)
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import os
import random
import selectors
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, TypeVarTuple

import anyio
import anyio.lowlevel
import anyio.to_thread

from codex_self_iter.core.model import EndCause, RunIdentity, RunOutcome, RunSample, RunSpec, Snapshot
from codex_self_iter.supervisor.shared import Shared
from codex_self_iter.world.pool import Pool
from codex_self_iter.world.store import StateDirectory

__all__ = [
    "Performance",
    "ScriptedAgent",
    "ScriptedHost",
    "ScriptedMachine",
    "ScriptedRun",
    "ScriptedStore",
    "ScriptedWorkTree",
    "SilentLog",
    "VirtualClock",
    "VirtualEventLoop",
    "answer",
    "run_inline",
    "run_virtual",
    "scripted_shared",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STUCK_SEC = 10.0
"""Real seconds without a timer, a thread or a file event after which a virtual loop gives up."""


# -- time --------------------------------------------------------------------------------------------------------


class VirtualEventLoop(asyncio.SelectorEventLoop):
    """asyncio on virtual time. It stands still while a worker thread of a watched limiter is busy."""

    def __init__(self) -> None:
        """Time begins at 0."""
        self._now = 0.0
        self._limiters: set[anyio.CapacityLimiter] = set()
        super().__init__(_Selector(self))

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
        """The machine has just slept: boot time and wall clock went on, the monotonic clock did not."""
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
        """See ports.Clock."""
        return self._loop.time() - self._up_since

    def wall(self) -> float:
        """See ports.Clock."""
        return self.true_wall() + self._step

    def boottime(self) -> float:
        """See ports.Clock."""
        return self.monotonic() + self._slept

    async def sleep(self, seconds: float) -> None:
        """See ports.Clock."""
        await anyio.sleep(max(0.0, seconds))


def run_virtual(main: Callable[[], Awaitable[T]]) -> T:
    """Run an asynchronous function on a fresh virtual event loop."""
    return anyio.run(main, backend="asyncio", backend_options={"loop_factory": VirtualEventLoop})


async def run_inline(function: Callable[[*Ts], T], /, *args: *Ts) -> T:
    """`Shared.in_thread` without a thread: the same order of events each time."""
    await anyio.lowlevel.checkpoint()
    return function(*args)


# -- agents ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Performance:
    """What one run does.

    Attributes:
        seconds: from its start to its own end.
        stdout: what it has printed by then; stderr likewise.
        exit_code: None when `signal` ends it.
        changes: it changes the workspace's content.
        hangs_after: seconds after which it shows no sign of life any more and never ends by itself.
        deaf: it ends only when the grace is over.
        spawn_error: it cannot even be started.
        note: for the script's own book-keeping.
    """

    seconds: float = 60.0
    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = 0
    signal: int | None = None
    changes: bool = True
    hangs_after: float | None = None
    deaf: bool = False
    spawn_error: str = ""
    note: Any = None


def answer(next_goal: str = "go on", **fields: Any) -> str:
    """An agent's final message with a control block; `fields` are its other keys."""
    block = {"next_goal": next_goal, "summary": "did something", "stop": False, "completed": False} | fields
    return f"```json\n{json.dumps(block)}\n```\n"


class ScriptedAgent:
    """One run's processes, as the machine knows them. Times are those of `VirtualClock.awake`."""

    def __init__(
        self, machine: ScriptedMachine, spec: RunSpec, performance: Performance, number: int
    ) -> None:
        """It starts now."""
        clock = machine.clock
        self.machine, self.spec, self.performance = machine, spec, performance
        self.started = clock.awake()
        self.ended: float | None = None
        self.outcome: RunOutcome | None = None
        self.changed = anyio.Event()
        self.due, self.cause = self._natural_end()
        self.identity = RunIdentity(
            spec.run_id,
            clock.boot_id,
            number,
            number,
            number + 1,
            number + 1,
            0,
            clock.wall(),
            clock.monotonic(),
        )

    def _natural_end(self) -> tuple[float, EndCause]:
        """When and by what it ends if nobody interferes."""
        part, limits = self.performance, self.spec.limits
        hang = part.hangs_after
        own = math.inf if hang is not None else self.started + part.seconds
        idle = self.started + hang + limits.idle_sec if hang is not None and limits.idle_sec else math.inf
        wall = self.started + limits.wall_sec if limits.wall_sec else math.inf
        return min((own, EndCause.EXIT), (idle, EndCause.IDLE_TIMEOUT), (wall, EndCause.WALL_TIMEOUT))

    def settle(self) -> bool:
        """Let its end come about if it is due; True once it has ended."""
        if self.outcome is None and self.machine.clock.awake() >= self.due:
            self._end(self.due, self.cause)
        return self.outcome is not None

    def kill(self, cause: EndCause) -> None:
        """It is ended from outside, now."""
        if not self.settle():
            self._end(self.machine.clock.awake(), cause)

    def _end(self, at: float, cause: EndCause) -> None:
        part, by_itself = self.performance, cause is EndCause.EXIT
        self.ended, self.cause, self.due = at, cause, at
        self.outcome = RunOutcome(
            run_id=self.spec.run_id,
            cause=cause,
            exit_code=part.exit_code if by_itself else None,
            signal=part.signal if by_itself else None if cause is EndCause.LOST else 15,
            started_at=self.identity.started_at,
            duration_sec=at - self.started,
        )
        self.machine.content[self.spec.cwd] = self.machine.content.get(self.spec.cwd, 0) + part.changes
        if by_itself:
            for name, text in (("stdout.log", part.stdout), ("stderr.log", part.stderr)):
                _write(self.spec.directory, name, text)
        self.changed.set()
        self.machine.on_change()


def _write(directory: str, name: str, text: str) -> None:
    os.makedirs(directory, 0o700, exist_ok=True)
    with open(
        os.open(os.path.join(directory, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
    ) as file:
        file.write(text)


Script = Callable[[RunSpec], Performance]


class ScriptedMachine:
    """Agents, and what they did to workspaces. Outlives every supervisor.

    Attributes:
        history: every agent that was ever started, in order.
        overlaps: pairs of run ids that were alive in one workspace at the same time.
        content: workspace -> a number that moves with every change.
        on_change: called when an agent has started or ended.
    """

    def __init__(self, clock: VirtualClock, script: Script) -> None:
        """`script` says what each run does; it is asked when the run starts."""
        self.clock, self.script = clock, script
        self.history: list[ScriptedAgent] = []
        self.overlaps: list[tuple[str, str]] = []
        self.content: dict[str, int] = {}
        self.on_change: Callable[[], None] = lambda: None
        self._agents: dict[str, ScriptedAgent] = {}

    def start(self, spec: RunSpec) -> ScriptedAgent:
        """A run's processes come to life."""
        self.overlaps += [(agent.spec.run_id, spec.run_id) for agent in self.alive(spec.cwd)]
        performance = self.script(spec)
        agent = ScriptedAgent(self, spec, performance, 10_000 + 2 * len(self.history))
        if performance.spawn_error:
            agent.outcome = RunOutcome(
                spec.run_id,
                EndCause.SPAWN_FAILED,
                None,
                None,
                self.clock.wall(),
                0.0,
                error=performance.spawn_error,
            )
            agent.ended = agent.started
        else:
            _write(spec.directory, "identity.json", json.dumps(agent.identity.to_json()))
        self.history.append(agent)
        self._agents[spec.run_id] = agent
        self.on_change()
        return agent

    def find(self, run_id: str) -> ScriptedAgent | None:
        """The agent of a run, alive or not."""
        return self._agents.get(run_id)

    def alive(self, workspace: str | None = None) -> list[ScriptedAgent]:
        """Agents that are alive now (in one workspace)."""
        self._agents = {
            key: one for key, one in self._agents.items() if not one.settle() or self._recent(one)
        }
        return [
            agent
            for agent in self._agents.values()
            if agent.outcome is None and workspace in (None, agent.spec.cwd)
        ]

    def _recent(self, agent: ScriptedAgent) -> bool:
        """What ended long ago is only history; a recorded end is asked for soon or never."""
        return agent.ended is not None and len(self.history) - self.history.index(agent, -50) < 50

    def reboot(self) -> None:
        """Power off and on: no agent survives, none has left an exit status."""
        for agent in self.alive():
            agent.kill(EndCause.LOST)
        self.clock.reboot()


class ScriptedRun:
    """ports.RunHandle of a scripted agent."""

    def __init__(self, host: ScriptedHost, agent: ScriptedAgent) -> None:
        """Made by the host."""
        self._host, self.agent = host, agent

    @property
    def identity(self) -> RunIdentity:
        """See ports.RunHandle."""
        return self.agent.identity

    def sample(self) -> RunSample:
        """See ports.RunHandle."""
        agent, now = self.agent, self.agent.machine.clock.awake()
        hang = agent.performance.hangs_after
        idle = max(0.0, now - agent.started - hang) if hang is not None else 0.0
        return RunSample(now - agent.started, 0.0, 0.0, 2**20, 1, None, idle, 0)

    async def wait(self) -> RunOutcome:
        """See ports.RunHandle."""
        agent = self.agent
        while not agent.settle():
            with anyio.move_on_after(agent.due - agent.machine.clock.awake()):
                await agent.changed.wait()
        assert agent.outcome is not None
        return agent.outcome

    async def end(self, cause: EndCause = EndCause.REQUEST, *, grace_sec: float | None = None) -> RunOutcome:
        """See ports.RunHandle. Of a dead supervisor's host: nothing happens."""
        if self._host.dead:
            return RunOutcome(self.agent.spec.run_id, EndCause.LOST, None, None, 0.0, 0.0)
        grace = self.agent.spec.limits.kill_grace_sec if grace_sec is None else grace_sec
        with anyio.CancelScope(shield=True):
            if self.agent.performance.deaf:
                with anyio.move_on_after(grace):
                    await self.wait()
            self.agent.kill(cause)
        return await self.wait()


class ScriptedHost:
    """ports.ProcessHost of one supervisor process on a scripted machine."""

    def __init__(self, machine: ScriptedMachine) -> None:
        """It has started nothing yet."""
        self.machine = machine
        self.dead = False
        self._runs: list[ScriptedRun] = []

    def die(self) -> None:
        """kill -9 of the supervisor: whatever its code still does has no effect, and its agents live on."""
        self.dead = True

    async def start(self, spec: RunSpec) -> ScriptedRun:
        """See ports.ProcessHost."""
        if self.dead:
            await anyio.sleep_forever()
        run = ScriptedRun(self, self.machine.start(spec))
        self._runs = [other for other in self._runs if other.agent.outcome is None] + [run]
        await anyio.lowlevel.cancel_shielded_checkpoint()
        return run

    async def adopt(self, spec: RunSpec, identity: RunIdentity | None) -> ScriptedRun | None:  # noqa: ARG002
        """See ports.ProcessHost."""
        await anyio.lowlevel.checkpoint()
        agent = self.machine.find(spec.run_id)
        return ScriptedRun(self, agent) if agent is not None else None

    async def sweep(self, spec: RunSpec, identity: RunIdentity | None) -> int:  # noqa: ARG002
        """See ports.ProcessHost."""
        await anyio.lowlevel.checkpoint()
        agent = self.machine.find(spec.run_id)
        if self.dead or agent is None or agent.settle():
            return 0
        agent.kill(EndCause.REQUEST)
        return 1

    async def aclose(self) -> None:
        """See ports.ProcessHost."""
        for run in self._runs:
            await run.end()


# -- files -------------------------------------------------------------------------------------------------------


class ScriptedWorkTree:
    """ports.WorkTree of a scripted machine: no git, content is a number."""

    repository: object | None = None

    def __init__(self, machine: ScriptedMachine, workspace: str) -> None:
        """See Shared.open_work_tree."""
        self._machine, self._workspace = machine, workspace

    async def snapshot(self, previous: Snapshot | None) -> Snapshot:  # noqa: ARG002
        """See ports.WorkTree."""
        await anyio.lowlevel.checkpoint()
        self._machine.alive(self._workspace)
        return Snapshot("", "", {"work": str(self._machine.content.get(self._workspace, 0))})

    async def committed(self, old_head: str, new_head: str) -> Mapping[str, tuple[str, str]]:  # noqa: ARG002
        """See ports.WorkTree."""
        return {}


class ScriptedStore(StateDirectory):
    """A real state directory that asks before every write: `before(what)` may raise StorageError."""

    before: Callable[[str], None] = staticmethod(lambda _what: None)

    def save_runtime(self, runtime: Mapping[str, Any]) -> None:
        """See ports.StateStore."""
        self.before("runtime")
        super().save_runtime(runtime)

    def save_status(self, status: Mapping[str, Any]) -> None:
        """See ports.StateStore."""
        self.before("status")
        super().save_status(status)

    def append_journal(self, record: Mapping[str, Any]) -> None:
        """See ports.StateStore."""
        self.before("journal")
        super().append_journal(record)

    def save_prompt(
        self, iteration: int, role: str, text: str, attempt: int = 1, *, redact: bool = True
    ) -> str:
        """See StateDirectory."""
        self.before("prompt")
        return super().save_prompt(iteration, role, text, attempt, redact=redact)

    def run_directory(self, iteration: int, label: str, attempt: int = 1) -> str:
        """See StateDirectory."""
        self.before("run directory")
        return super().run_directory(iteration, label, attempt)


class SilentLog:
    """A structlog logger that keeps the names of its events and prints nothing."""

    def __init__(self) -> None:
        """`events` has (level, event, fields), oldest first, the last thousand."""
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def bind(self, **_fields: Any) -> SilentLog:
        """The same logger."""
        return self

    def __getattr__(self, level: str) -> Callable[..., None]:
        """A method for each level."""
        if level.startswith("__"):
            raise AttributeError(level)

        def write(event: str, **fields: Any) -> None:
            self.events.append((level, event, fields))
            del self.events[:-1000]

        return write


def scripted_shared(machine: ScriptedMachine, *, seed: int = 0, **changes: Any) -> Shared:
    """What a supervisor shares, on a scripted machine; `changes` are fields of `Shared`."""
    given: dict[str, Any] = {
        "host": ScriptedHost(machine),
        "pool": Pool(2),
        "clock": machine.clock,
        "boot_id": machine.clock.boot_id,
        "log": SilentLog(),
        "environ": {"PATH": os.defpath},
        "rng": random.Random(seed),
        "in_thread": run_inline,
        "open_store": ScriptedStore,
        "open_work_tree": lambda workspace, _state_dir, _timeout: ScriptedWorkTree(machine, workspace),
        "free_disk_mb": lambda _path: 100_000,
    }
    return Shared(**(given | changes))
