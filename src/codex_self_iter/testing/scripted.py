"""A machine with scripted agents, and the process host of one supervisor on it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel

from codex_self_iter.core.runs import EndCause, RunIdentity, RunOutcome, RunSample, RunSpec
from codex_self_iter.testing.clock import VirtualClock

__all__ = [
    "Performance",
    "ScriptedAgent",
    "ScriptedHost",
    "ScriptedMachine",
    "ScriptedRun",
    "answer",
]


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
        note: for the script's own book-keeping."""

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
    block = {
        "next_goal": next_goal,
        "summary": "did something",
        "stop": False,
        "completed": False,
    } | fields
    return f"```json\n{json.dumps(block)}\n```\n"


class ScriptedAgent:
    """One run's processes, as the machine knows them. Times are those of `VirtualClock.awake`."""

    def __init__(
        self, machine: ScriptedMachine, spec: RunSpec, performance: Performance, number: int
    ) -> None:
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
            clock.wall(),
            clock.monotonic(),
        )

    def _natural_end(self) -> tuple[float, EndCause]:
        """When and by what it ends if nobody interferes."""
        part, limits = self.performance, self.spec.limits
        hang = part.hangs_after
        own = math.inf if hang is not None else self.started + part.seconds
        idle = (
            self.started + hang + limits.idle_sec
            if hang is not None and limits.idle_sec
            else math.inf
        )
        wall = self.started + limits.wall_sec if limits.wall_sec else math.inf
        return min(
            (own, EndCause.EXIT), (idle, EndCause.IDLE_TIMEOUT), (wall, EndCause.WALL_TIMEOUT)
        )

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
        self.machine.content[self.spec.cwd] = (
            self.machine.content.get(self.spec.cwd, 0) + part.changes
        )
        if by_itself:
            for name, text in (("stdout.log", part.stdout), ("stderr.log", part.stderr)):
                _write(self.spec.directory, name, text)
        if cause is not EndCause.LOST:
            _write(
                self.spec.directory, "exit.json", json.dumps({"exit_code": self.outcome.exit_code})
            )
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
        on_change: called when an agent has started or ended."""

    def __init__(self, clock: VirtualClock, script: Script) -> None:
        """`script` says what each run does; it is asked when the run starts."""
        self.clock, self.script = clock, script
        self.history: list[ScriptedAgent] = []
        self.overlaps: list[tuple[str, str]] = []
        self.content: dict[str, int] = {}
        self.on_change: Callable[[], None] = lambda: None
        self._agents: dict[str, ScriptedAgent] = {}
        self._living: list[ScriptedAgent] = []

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
        self._living.append(agent)
        self.on_change()
        return agent

    def find(self, run_id: str) -> ScriptedAgent | None:
        """The agent of a run, alive or not."""
        return self._agents.get(run_id)

    def alive(self, workspace: str | None = None) -> list[ScriptedAgent]:
        """Agents that are alive now (in one workspace)."""
        self._living = [agent for agent in self._living if not agent.settle()]
        return [agent for agent in self._living if workspace in (None, agent.spec.cwd)]

    def reboot(self) -> None:
        """Power off and on: no agent survives, none has left an exit status."""
        for agent in self.alive():
            agent.kill(EndCause.LOST)
        self.clock.reboot()


class ScriptedRun:
    """ports.RunHandle of a scripted agent."""

    def __init__(self, host: ScriptedHost, agent: ScriptedAgent) -> None:
        self._host, self.agent = host, agent

    @property
    def identity(self) -> RunIdentity:
        return self.agent.identity

    def sample(self) -> RunSample:
        agent, now = self.agent, self.agent.machine.clock.awake()
        hang = agent.performance.hangs_after
        idle = max(0.0, now - agent.started - hang) if hang is not None else 0.0
        return RunSample(now - agent.started, 0.0, 0.0, 2**20, 1, None, idle, 0)

    async def wait(self) -> RunOutcome:
        agent = self.agent
        while not agent.settle():
            with anyio.move_on_after(agent.due - agent.machine.clock.awake()):
                await agent.changed.wait()
        assert agent.outcome is not None
        return agent.outcome

    async def end(
        self, cause: EndCause = EndCause.REQUEST, *, grace_sec: float | None = None
    ) -> RunOutcome:
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
        self.machine = machine
        machine.alive()  # what ended while no supervisor was there has left its files
        self.dead = False
        self._runs: list[ScriptedRun] = []

    def die(self) -> None:
        """kill -9 of the supervisor: what its code still does has no effect, its agents live on."""
        self.dead = True

    async def start(self, spec: RunSpec) -> ScriptedRun:
        if self.dead:
            await anyio.sleep_forever()
        run = ScriptedRun(self, self.machine.start(spec))
        self._runs = [other for other in self._runs if other.agent.outcome is None] + [run]
        await anyio.lowlevel.cancel_shielded_checkpoint()
        return run

    async def adopt(self, spec: RunSpec, identity: RunIdentity | None) -> ScriptedRun | None:  # noqa: ARG002
        await anyio.lowlevel.checkpoint()
        agent = self.machine.find(spec.run_id)
        return ScriptedRun(self, agent) if agent is not None else None

    async def sweep(self, spec: RunSpec, identity: RunIdentity | None) -> int:  # noqa: ARG002
        await anyio.lowlevel.checkpoint()
        agent = self.machine.find(spec.run_id)
        if self.dead or agent is None or agent.settle():
            return 0
        agent.kill(EndCause.REQUEST)
        return 1

    async def sweep_strays(self, workspace: str, keep: str) -> int:  # noqa: ARG002
        """See ports.ProcessHost: a scripted agent is always found by its run."""
        await anyio.lowlevel.checkpoint()
        return 0

    async def aclose(self) -> None:
        for run in self._runs:
            await run.end()
