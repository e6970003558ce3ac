"""Keeping the state directory within `[output]`: old runs and prompts go, oldest first."""

from __future__ import annotations

import anyio

from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor.context import Context
from codex_self_iter.world.state.retention import Retention

FIRST_SEC = 2.0
"""After the start, so that status has a figure soon and a short run is not held up."""


class Housekeeping:
    """The passes of one start."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        # one for all: it remembers the sizes of what no longer changes
        self._retention = Retention(ctx.store.root)
        self._at_work = anyio.Lock()
        self._done = False

    async def run(self) -> None:
        """Prune and measure for ever."""
        shared = self._ctx.shared
        await shared.clock.sleep(FIRST_SEC)
        while True:
            await self._pass()
            await shared.clock.sleep(shared.housekeeping_sec * (1.0 + shared.rng.random()))

    async def finish(self) -> None:
        """Do it now if this start was too short for it. What it takes is bounded by `prune`."""
        if not self._done:
            await self._pass(again=False)

    async def _pass(self, *, again: bool = True) -> None:
        async with self._at_work:
            if again or not self._done:
                await _once(self._ctx, self._retention)
            self._done = True


async def _once(ctx: Context, retention: Retention) -> None:
    output = ctx.settings.output
    retention.bound(
        keep_runs=output.keep_runs,
        keep_days=float(output.keep_days),
        max_state_mb=float(output.max_state_mb),
    )
    run = ctx.state.open.run if ctx.state.open else None
    try:
        if await ctx.shared.in_thread(ctx.store.journal.rotate):
            ctx.log.info("journal.rotated")
        pruned = await ctx.shared.in_thread(retention.prune, {run.label} if run else set())
        ctx.state_mb = await ctx.shared.in_thread(retention.usage_mb)
    except StorageError as error:
        ctx.log.debug("retention.failed", error=str(error))
        return
    if pruned.removed:
        freed = round(pruned.freed_bytes / 2**20, 1)
        ctx.log.info("retention.pruned", runs=len(pruned.removed), mb=freed)
    warning = f"the state directory is larger than [output] max_state_mb = {output.max_state_mb}"
    if pruned.over:
        ctx.warnings.tell("max_state_mb", warning)
    else:
        ctx.warnings.clear("max_state_mb")
