"""Keeping the state directory within `[output]`: old runs and prompts go, oldest first."""

from __future__ import annotations

from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor.context import Context
from codex_self_iter.world.state.retention import Retention

FIRST_SEC = 2.0
"""After the start, so that status has a figure soon and a short run is not held up."""


async def run(ctx: Context) -> None:
    """Prune and measure for ever."""
    # one for all: it remembers the sizes of what no longer changes
    retention = Retention(ctx.store.root)
    await ctx.shared.clock.sleep(FIRST_SEC)
    while True:
        await _once(ctx, retention)
        await ctx.shared.clock.sleep(ctx.shared.housekeeping_sec * (1.0 + ctx.shared.rng.random()))


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
