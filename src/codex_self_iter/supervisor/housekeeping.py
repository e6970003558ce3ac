"""Keeping the state directory within `[output]`: old runs and prompts go, oldest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codex_self_iter.errors import StorageError
from codex_self_iter.world.state.retention import Retention

if TYPE_CHECKING:
    from codex_self_iter.supervisor.loop import Loop

FIRST_SEC = 2.0
"""After the start, so that status has a figure soon and a short run is not held up."""


async def run(loop: Loop) -> None:
    """Prune and measure for ever."""
    # one for all: it remembers the sizes of what no longer changes
    retention = Retention(loop.store.root)
    await loop.shared.clock.sleep(FIRST_SEC)
    while True:
        await _once(loop, retention)
        await loop.shared.clock.sleep(
            loop.shared.housekeeping_sec * (1.0 + loop.shared.rng.random())
        )


async def _once(loop: Loop, retention: Retention) -> None:
    output = loop.settings.output
    retention.bound(
        keep_runs=output.keep_runs,
        keep_days=float(output.keep_days),
        max_state_mb=float(output.max_state_mb),
    )
    run = loop.state.open.run if loop.state.open else None
    try:
        pruned = await loop.shared.in_thread(retention.prune, {run.label} if run else set())
        loop.state_mb = await loop.shared.in_thread(retention.usage_mb)
    except StorageError as error:
        loop.log.debug("retention.failed", error=str(error))
        return
    if pruned.removed:
        loop.log.info(
            "retention.pruned", runs=len(pruned.removed), mb=round(pruned.freed_bytes / 2**20, 1)
        )
    warning = f"the state directory is larger than [output] max_state_mb = {output.max_state_mb}"
    loop.warnings = [text for text in loop.warnings if text != warning] + (
        [warning] if pruned.over else []
    )
