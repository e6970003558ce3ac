"""`metrics_file`: the loop's numbers for node_exporter's textfile collector.

Written beside `status.json`, from the same content. What cannot be written is said, and is no
reason for anything."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from codex_self_iter.core.text import clean
from codex_self_iter.supervisor.context import Context
from codex_self_iter.views.metrics import families
from codex_self_iter.views.summary import Life, Seen
from codex_self_iter.world import installed

EXTRA = ("metrics", "prometheus_client")
EVERY_SEC = 10.0
"""Shortest time between two writes: scrapes are 15 seconds apart and more."""


class MetricsFile:
    """The file of one loop."""

    def __init__(self, ctx: Context) -> None:
        """Nothing is written yet."""
        self._ctx = ctx
        self._at = float("-inf")

    @property
    def due(self) -> bool:
        """Whether it is wanted, and the last one is old."""
        ctx = self._ctx
        return (
            bool(ctx.settings.metrics_file) and ctx.shared.clock.monotonic() - self._at >= EVERY_SEC
        )

    async def write(self, status: Mapping[str, Any], *, last: bool) -> None:
        """Write it, if it is wanted; `last`: the loop has ended."""
        ctx = self._ctx
        if not ctx.settings.metrics_file:
            return
        self._at = ctx.shared.clock.monotonic()
        if flaw := await ctx.shared.in_thread(self._written, status, last):
            ctx.warnings.tell("metrics", f"metrics_file could not be written: {clean(flaw)}")
        else:
            ctx.warnings.clear("metrics")

    def _written(self, status: Mapping[str, Any], last: bool) -> str:
        """Why it could not be written, or ""."""
        ctx = self._ctx
        where = str(ctx.paths.workspace), str(ctx.paths.state_dir)
        seen = Seen(ctx.name, *where, dict(status), Life(not last, 0.0, os.getpid()))
        if flaw := installed.lack(*EXTRA):
            return f"it {flaw}"
        try:
            # the extra's library is loaded where somebody wants it, and nowhere else
            from codex_self_iter.metrics import exposition

            path = exposition.path_for(ctx.settings.metrics_file, ctx.name, where[0])
            exposition.write(path, families([(ctx.name, seen)], ctx.shared.clock.wall()))
        except OSError as error:
            return str(error)
        return ""
