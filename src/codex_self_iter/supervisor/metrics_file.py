"""`metrics_file`: the loop's numbers for node_exporter's textfile collector.

Written beside `status.json`, from the same content. What cannot be written is said, and is no
reason for anything."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from codex_self_iter.core.text import clean
from codex_self_iter.metrics import EXTRA
from codex_self_iter.supervisor.context import Context
from codex_self_iter.views.metrics import families
from codex_self_iter.views.summary import Life, Seen
from codex_self_iter.world import installed

EVERY_SEC = 10.0
"""Shortest time between two writes: scrapes are 15 seconds apart and more."""


class MetricsFile:
    """The file of one loop.

    Attributes:
        path: the one that was written last, "" for none."""

    def __init__(self, ctx: Context) -> None:
        """Nothing is written yet."""
        self._ctx = ctx
        self._at = float("-inf")
        self.path = ""

    @property
    def due(self) -> bool:
        """Whether one is wanted and the last one is old, or one is no longer wanted."""
        ctx = self._ctx
        if not ctx.settings.metrics_file:
            return bool(self.path)
        return ctx.shared.clock.monotonic() - self._at >= EVERY_SEC

    async def write(self, status: Mapping[str, Any], *, last: bool) -> None:
        """Write it, if it is wanted; `last`: the loop has ended."""
        ctx = self._ctx
        if not (ctx.settings.metrics_file or self.path):
            return
        self._at = ctx.shared.clock.monotonic()
        if flaw := await ctx.shared.in_thread(self._written, status, last):
            ctx.warnings.tell("metrics", f"metrics_file could not be written: {clean(flaw)}")
        else:
            ctx.warnings.clear("metrics")

    def _written(self, status: Mapping[str, Any], last: bool) -> str:
        """Why it could not be written, or ""."""
        ctx, template = self._ctx, self._ctx.settings.metrics_file
        if not template:
            self._remove()
            return ""
        if flaw := installed.lack(*EXTRA):
            return f"it {flaw}"
        # the extra's library is loaded where somebody wants it, and nowhere else
        from codex_self_iter.metrics import exposition

        where = str(ctx.paths.workspace), str(ctx.paths.state_dir)
        seen = Seen(ctx.name, *where, dict(status), Life(not last, 0.0, os.getpid()))
        path = exposition.path_for(template, ctx.name)
        try:
            if exposition.owner(path, ctx.shared.clock.wall()) not in ("", where[1]):
                return f"{path} is written by another loop: put {{name}} into it, or name this loop"
            told = families([(ctx.name, seen)], ctx.shared.clock.wall())
            exposition.write(path, told, owner=where[1])
        except OSError as error:
            return f"{path}: {error.strerror or error}"
        if path != self.path:
            self._remove()
            self.path = path
        return ""

    def _remove(self) -> None:
        """Nobody is to read what is no longer written."""
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.path = ""
