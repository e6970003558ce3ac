"""When `status.json` is written, and from what."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import anyio

from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor import exporting
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.metrics_file import MetricsFile
from codex_self_iter.supervisor.outbox import Outbox
from codex_self_iter.supervisor.senses import Senses
from codex_self_iter.supervisor.work import Work
from codex_self_iter.views import status as view

STATUS_SEC = 0.2
"""Shortest time between two writes: a fast loop does not pay for states nobody can see."""


class Status:
    """Writes `status.json` of one loop; one that cannot be written is no reason for anything."""

    def __init__(self, ctx: Context, work: Work, outbox: Outbox, senses: Senses) -> None:
        self._ctx, self._work, self._outbox, self._senses = ctx, work, outbox, senses
        self._started_at = ctx.shared.clock.wall()
        self._at = 0.0
        self._last = False
        self._lock = anyio.Lock()
        self._metrics = MetricsFile(ctx)
        self._exported_at, self._exported_to = float("-inf"), ""

    async def keep(self) -> None:
        """Write what changed, for ever; changes that follow each other at once go together."""
        while True:
            await self._ctx.changed.wait()
            self._ctx.changed = anyio.Event()
            async with self._lock:
                if not self._last:
                    self._stamp()
                    await self._save_beside(self._content())
            await self._ctx.shared.clock.sleep(STATUS_SEC)

    async def write_last(self) -> None:
        """Write the last one: it must not be overtaken by an earlier one."""
        async with self._lock:
            self._last = True
            await self._save_beside(self._content())

    def write(self) -> None:
        """Write it now."""
        self._stamp()
        self._save(self._content())

    def heartbeat(self) -> None:
        """Write it again when it is due; of an idle loop that is its time, and costs less than a
        thread would."""
        shared = self._ctx.shared
        if shared.clock.monotonic() - self._at < shared.heartbeat_sec:
            return
        due = self._metrics.due or self._export_due
        if self._work.under_way or self._lock.locked() or due:
            self._ctx.tell()
        elif not self._last:
            self.write()

    async def _save_beside(self, status: Mapping[str, Any]) -> None:
        """Write it in a thread, and the numbers for machines if they are due."""
        await self._ctx.shared.in_thread(self._save, status)
        if self._last or self._metrics.due:
            await self._metrics.write(status, last=self._last)
        if self._last or self._export_due:
            self._exported_at = self._ctx.shared.clock.monotonic()
            self._exported_to = self._ctx.settings.otlp
            exporting.numbers(self._ctx, status, last=self._last)

    @property
    def _export_due(self) -> bool:
        address = self._ctx.settings.otlp
        age = self._ctx.shared.clock.monotonic() - self._exported_at
        return bool(address) and (age >= exporting.EVERY_SEC or address != self._exported_to)

    def _stamp(self) -> None:
        self._at = self._ctx.shared.clock.monotonic()

    def _save(self, status: Mapping[str, Any]) -> None:
        try:
            self._ctx.store.save_status(status)
        except StorageError as error:
            self._ctx.log.debug("status.not_written", error=str(error))

    def _content(self) -> dict[str, Any]:
        ctx, work, senses = self._ctx, self._work, self._senses
        pool = ctx.shared.pool
        facts = view.Facts(
            pid=os.getpid(),
            workspace=str(ctx.paths.workspace),
            state_dir=str(ctx.paths.state_dir),
            name=ctx.name,
            mode=ctx.settings.mode,
            agent=ctx.policy.agents[ctx.policy.roles[0]][0].name,
            started_at=self._started_at,
            config=ctx.settings.given_file,
            log=os.path.join(str(ctx.paths.state_dir), "logs", "supervisor.log"),
            plan=ctx.plan.progress(),
            plan_path=ctx.plan.path,
            identity=work.identity,
            sample=work.sample(),
            wall_limit_sec=float(ctx.settings.command_timeout_sec),
            waiting_for=work.waiting_for(),
            retrying=work.retrying,
            held_by=self._held_by(),
            recent=list(ctx.recent),
            state_mb=ctx.state_mb,
            free_mb=ctx.free_mb,
            stored=ctx.stored,
            notes=ctx.notes,
            pool=(pool.slots, pool.in_use, pool.waiting),
            warnings=list(ctx.warnings)[-20:],
            lanes=ctx.lanes,
            stop_file=senses.stop_path,
            global_stop_file=senses.global_stop_path,
            pause_file=senses.pause_path,
        )
        return view.status(ctx.state, facts, ctx.shared.moment())

    def _held_by(self) -> str:
        """Why what was decided cannot begin: its state could not be written; else ""."""
        held = self._outbox.held and not self._work.under_way and not self._ctx.state.finished
        return self._ctx.state.blocked_by.get("storage", "") if held else ""
