"""A real loop on a scripted machine, for the tests of this directory."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio

from codex_self_iter.core.runs import RunSpec
from codex_self_iter.settings import Settings
from codex_self_iter.supervisor.loop import Loop
from codex_self_iter.supervisor.rounds import Ended, Rounds
from codex_self_iter.testing import (
    Performance,
    ScriptedHost,
    ScriptedMachine,
    VirtualClock,
    answer,
    scripted_shared,
)

HOUR, DAY, YEAR = 3600.0, 86_400.0, 365 * 86_400.0
POLL_SEC = 100.0
OVERLOADED = Performance(10.0, stderr="API Error: 529 overloaded\n", exit_code=1, changes=False)
WORK = Performance(7000.0, answer())


def settings(workspace: Path, **values: Any) -> Settings:
    """Settings of a loop in a fresh directory."""
    workspace.mkdir(parents=True, exist_ok=True)
    plan = workspace / "plan.md"
    if not plan.exists():
        plan.write_text("- [ ] something\n")
    given: dict[str, Any] = {
        "workspace": workspace,
        "agent": "command",
        "agent_command_template": "sh {prompt_file}",
        "max_stagnation": 0,
        "git": {"checkpoints": False},
    }
    return Settings(**(given | values))


def in_turn(*parts: Performance, then: Performance = WORK) -> Callable[[RunSpec], Performance]:
    """A script: these, one after the other, then always the last."""
    left = list(parts)
    return lambda _spec: left.pop(0) if left else then


class Life:
    """One supervisor process with one loop, from its start until it is killed or has ended."""

    def __init__(self, machine: ScriptedMachine, given: Settings, **shared: Any) -> None:
        self.machine = machine
        self.host = ScriptedHost(machine)
        # Looking four times a second, as in earnest, would make a virtual day cost a minute.
        shared = {"poll_sec": POLL_SEC, "housekeeping_sec": DAY} | shared
        self.shared = scripted_shared(machine, host=self.host, **shared)
        self.loop = Loop(self.shared, given)
        self.ended: Ended | None = None

    @contextlib.asynccontextmanager
    async def alive(self) -> AsyncIterator[Loop]:
        """kill -9 at the end of the block, unless it has ended by then."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run)
            await self.loop.ready.wait()
            yield self.loop
            self.host.die()
            tasks.cancel_scope.cancel()

    @property
    def rounds(self) -> Rounds:
        """The loop that holds its lock."""
        assert self.loop.rounds is not None
        return self.loop.rounds

    async def _run(self) -> None:
        self.ended = await self.loop.run()

    def journal(self) -> list[dict[str, Any]]:
        """The journal as it is on disk."""
        path = Path(self.rounds.ctx.store.path) / "logs" / "iterations.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def status(self) -> dict[str, Any]:
        """`status.json` as it is on disk."""
        found: dict[str, Any] = json.loads(
            (Path(self.rounds.ctx.store.path) / "status.json").read_text()
        )
        return found


def machine(script: Callable[[RunSpec], Performance]) -> ScriptedMachine:
    """A machine that has just been switched on."""
    return ScriptedMachine(VirtualClock(), script)


def starts(made: ScriptedMachine) -> list[float]:
    """When each agent was started, in awake seconds."""
    return [agent.started for agent in made.history]
