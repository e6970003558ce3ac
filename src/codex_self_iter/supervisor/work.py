"""What a loop has under way: reading inputs, one agent run, the gates, or keeping a result. One at
a time.

Each ends by posting one event. `abort` makes it end early; the event comes all the same.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio

from codex_self_iter.core import events as ev
from codex_self_iter.core.commands import Keep
from codex_self_iter.core.model import (
    AgentReport,
    EndCause,
    Role,
    RunIdentity,
    RunOutcome,
    RunSample,
    RunSpec,
)
from codex_self_iter.core.state import LoopState, OpenRun
from codex_self_iter.supervisor import gates, notify, runs
from codex_self_iter.supervisor.tree import Tree

if TYPE_CHECKING:
    from codex_self_iter.supervisor.loop import Loop
    from codex_self_iter.world.ports import RunHandle


class Work:
    """The one thing that a loop has under way."""

    def __init__(self, loop: Loop) -> None:
        """Nothing is under way yet."""
        self.loop = loop
        self.tree = Tree(loop)
        self.handle: RunHandle | None = None
        self.directory = ""
        self.adopted: RunHandle | None = None
        self.aborting = ""
        self._spawning = False
        self._scope: anyio.CancelScope | None = None

    # -- what it is doing --------------------------------------------------------------------------

    @property
    def identity(self) -> RunIdentity | None:
        """Who the present run's processes are."""
        return self.handle.identity if self.handle is not None else None

    def sample(self) -> RunSample | None:
        """The monitor's latest look at the present run."""
        return self.handle.sample() if self.handle is not None else None

    @property
    def under_way(self) -> bool:
        """True while something is on that will report its end."""
        return self._scope is not None

    def waiting_for(self) -> str:
        """Why a run that is due has not started: a place in the pool, else ""."""
        return self.loop.shared.pool.waiting_for(self.loop.name) or ""

    # -- commands ----------------------------------------------------------------------------------

    def prepare(self, role: Role) -> None:
        """Read the inputs of the next run; posts Prepared (or Block)."""
        self._begin(lambda: runs.prepare(self, role))

    def start_run(self, run: OpenRun) -> None:
        """Start an agent run; posts RunEnded."""
        self._begin(lambda: runs.agent_run(self, run), lambda: self.never_started(run))

    def run_gates(self, iteration: int) -> None:
        """Run the verification commands; posts GatesEnded."""
        self._begin(
            lambda: gates.run_all(self, iteration),
            lambda: self.loop.post(ev.GatesEnded((), aborted=True)),
        )

    def keep(self, command: Keep) -> None:
        """Commit and checkpoint; posts Kept."""
        self._begin(lambda: self.tree.keep(command))

    def never_started(self, run: OpenRun) -> None:
        """Report a run that was called off before it started."""
        outcome = RunOutcome(run.run_id, EndCause.REQUEST, None, None, run.started_at, 0.0)
        self.loop.post(ev.RunEnded(run.run_id, outcome, AgentReport("", False), changed=False))

    def cannot_start(self, run: OpenRun, reason: str) -> None:
        """Hold the loop until its files can be written; the iteration stays open and its run is
        tried again.
        """
        self.loop.control.hold_start(reason)
        outcome = RunOutcome(run.run_id, EndCause.REQUEST, None, None, run.started_at, 0.0)
        self.loop.post(
            ev.RunEnded(
                run.run_id, outcome, AgentReport("", False), changed=False, not_started=True
            )
        )

    def abort(self, reason: str) -> None:
        """End what is under way. A spawn is never interrupted: the run is ended as soon as it
        stands.
        """
        self.aborting = reason
        if self.handle is not None:
            self.loop.tasks.start_soon(self._end, self.handle)
        elif not self._spawning and self._scope is not None:
            self._scope.cancel()

    async def _end(self, handle: RunHandle) -> None:
        with anyio.CancelScope(shield=True):
            await handle.end(EndCause.REQUEST)

    def skip_grace(self) -> None:
        """Somebody is in a hurry: KILL now."""
        if self.handle is not None:
            self.loop.tasks.start_soon(self._end_at_once, self.handle)

    async def _end_at_once(self, handle: RunHandle) -> None:
        with anyio.CancelScope(shield=True):
            await handle.end(EndCause.REQUEST, grace_sec=0.0)

    # -- machinery ---------------------------------------------------------------------------------

    def _begin(
        self, work: Callable[[], Awaitable[None]], called_off: Callable[[], None] | None = None
    ) -> None:
        self.aborting = ""
        self.loop.tasks.start_soon(self._guarded, work, called_off)

    async def _guarded(
        self, work: Callable[[], Awaitable[None]], called_off: Callable[[], None] | None
    ) -> None:
        with anyio.CancelScope() as scope:
            self._scope = scope
            if self.aborting and called_off is not None:
                scope.cancel()
            await work()
        self._scope = None
        if scope.cancelled_caught and called_off is not None:
            called_off()

    async def run_process(self, spec: RunSpec, adopted: RunHandle | None = None) -> RunOutcome:
        """Start (or take over) a process and wait until nothing of it is left. Never leaves it
        behind.
        """
        self._spawning = True
        try:
            handle = adopted or await self.loop.shared.host.start(spec)
            self.handle, self.directory = handle, spec.directory
        finally:
            self._spawning = False
        try:
            if self.aborting:
                return await handle.end(EndCause.REQUEST)
            self.loop.save_status()
            return await handle.wait()
        finally:
            self.handle = None

    async def find_orphan(self, *, kill: bool) -> ev.Trace:
        """Look for what the last supervisor left; returns the trace for `Boot`."""
        return await runs.find_orphan(self, kill=kill)

    async def end_strays(self) -> None:
        """End what still works here and is not the adopted run: its record may be gone with the
        state directory.
        """
        keep = self.adopted.identity.run_id if self.adopted else ""
        ended = await self.loop.shared.host.sweep_strays(str(self.loop.paths.workspace), keep)
        if ended:
            self.loop.log.warning("strays.ended", processes=ended)

    async def end_everything(self) -> None:
        """End whatever is still under way (the loop is ending)."""
        handle = self.handle
        if handle is not None:
            await handle.end(EndCause.REQUEST)

    def notify(self, event: str, text: str, state: LoopState) -> None:
        """Run the person's notification command, if the event is among those asked for."""
        settings = self.loop.settings.notify
        if settings.command and event in settings.events:
            payload: dict[str, Any] = {
                "event": event,
                "text": text,
                "loop": self.loop.name,
                "workspace": str(self.loop.paths.workspace),
                "iteration": state.iteration,
                "state": state.state.value,
            }
            self.loop.tasks.start_soon(notify.send, self.loop, tuple(settings.command), payload)

    def run_lock_path(self) -> str:
        """The file that every run inherits locked."""
        return os.path.join(str(self.loop.paths.state_dir), "run.lock")
