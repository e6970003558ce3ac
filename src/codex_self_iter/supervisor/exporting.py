"""`otlp`: a loop's iterations as traces, and its numbers, on their way to a receiver.

They are handed to a program that all loops with the same receiver share. What becomes of them there
is said, and is no reason for anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from codex_self_iter.supervisor import recipients
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.exporter import END_SEC, Exporter
from codex_self_iter.views.metrics import families
from codex_self_iter.views.spans import spans, traceparent
from codex_self_iter.views.summary import Life, Seen

EVERY_SEC = 60.0
"""Shortest time between two looks at a loop's numbers."""
PARENT, STATE = "TRACEPARENT", "TRACESTATE"


def environment(ctx: Context, iteration: int, run_id: str) -> dict[str, str]:
    """The supervisor's environment for a run of this iteration, without what is a secret of messages:
    where there is a trace, with the run's place in it instead of the supervisor's own."""
    environ = recipients.without_secrets(ctx.shared.environ, ctx.settings)
    if not ctx.settings.otlp:
        return environ
    ours = {PARENT: traceparent(ctx.state.loop_id, iteration, run_id)}
    return {name: value for name, value in environ.items() if name != STATE} | ours


def look(ctx: Context) -> None:
    """See to it that what this loop tells goes on its way, and say what does not."""
    exporter = _joined(ctx)
    if exporter is None:
        ctx.warnings.clear("otlp")
        return
    _tell(ctx, exporter)
    if job := exporter.look(ctx.shared.clock.monotonic()):
        ctx.start("export", _do, ctx, exporter, job)


def _tell(ctx: Context, exporter: Exporter) -> None:
    if exporter.flaw:
        ctx.warnings.tell("otlp", f"traces and numbers (otlp) are not exported: {exporter.flaw}")
    elif ctx.warnings.begun("otlp"):
        ctx.warnings.clear("otlp")
        ctx.log.info("otlp.recovered", lost=exporter.lost)


def trace(ctx: Context, record: Mapping[str, Any]) -> None:
    """Export an iteration, from its journal line."""
    if exporter := _joined(ctx):
        told = [span._asdict() for span in spans(record, ctx.state.loop_id, ctx.name)]
        exporter.take({"what": "traces", "of": str(ctx.paths.state_dir), "spans": told})


def numbers(ctx: Context, status: Mapping[str, Any], *, last: bool) -> None:
    """Export the loop's numbers, from this status; `last`: the loop has ended."""
    if exporter := _joined(ctx):
        where = str(ctx.paths.workspace), str(ctx.paths.state_dir)
        seen = Seen(ctx.name, *where, dict(status), Life(not last, 0.0, os.getpid()))
        now = ctx.shared.clock.wall()
        told = families([(ctx.name, seen)], now)
        exporter.take({"what": "metrics", "of": where[1], "at": now, "families": told})


async def leave(ctx: Context) -> None:
    """This loop has ended; the last one lets what was told be exported, for a while."""
    for exporter in _left(ctx, but=""):
        await _finish(ctx, exporter)


def _joined(ctx: Context) -> Exporter | None:
    """The exporter for the loop's receiver, None for none; of another one it takes leave."""
    address, exporters = ctx.settings.otlp.rstrip("/"), ctx.shared.exporters
    for exporter in _left(ctx, but=address):
        ctx.start("export", _finish, ctx, exporter)
    if not address:
        return None
    if address not in exporters:
        exporters[address] = Exporter(address, ctx.shared.environ)
    exporters[address].loops.add(ctx.name)
    return exporters[address]


def _left(ctx: Context, *, but: str) -> list[Exporter]:
    """Take leave of all exporters but one; those that no loop has any more."""
    found, exporters = [], ctx.shared.exporters
    for address, exporter in list(exporters.items()):
        if address != but and ctx.name in exporter.loops:
            exporter.loops.discard(ctx.name)
            found += [] if exporter.loops else [exporters.pop(address)]
    return found


async def _finish(ctx: Context, exporter: Exporter) -> None:
    left = await ctx.shared.in_thread(exporter.finish)
    if left != 0:
        late = f"no answer within {END_SEC:g} s"
        why = exporter.flaw or ("its program did not say" if left is None else late)
        ctx.log.warning("otlp.left", lines=left, error=ctx.shown(why, 300))


async def _do(ctx: Context, exporter: Exporter, job: Callable[[], None]) -> None:
    try:
        await ctx.shared.in_thread(job)
        if ctx.name in exporter.loops:  # else it has another one by now
            _tell(ctx, exporter)  # it may end before the next look
    finally:
        exporter.free()
