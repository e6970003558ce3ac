"""What is left behind when a loop ends: the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor.context import Context
from codex_self_iter.views.report import report
from codex_self_iter.world.process.tool import run_tool

LINES = 200
DIFF_SEC = 20.0


async def write_report(ctx: Context, times: Mapping[str, float]) -> None:
    """Write `report.md`; one that cannot be written is only logged."""
    redact = ctx.store.redactor.text  # before anything is cut
    try:
        lines = ctx.store.journal_tail(LINES)
        first = str(lines[0].get("head_before") or "") if _changed(lines) else ""
        text = report(
            dataclasses.replace(ctx.state, feedback=redact(ctx.state.feedback)),
            lines,
            plan=redact(ctx.plan.text),
            task=redact(ctx.task.text),
            times=times,
            diff_stat=await _diff_stat(ctx, first),
            warnings=list(ctx.warnings),
            now=ctx.shared.clock.wall(),
        )
        await ctx.shared.in_thread(ctx.store.write_report, text)
    except StorageError as error:
        ctx.log.warning("report.not_written", error=str(error))


def _changed(lines: Sequence[Mapping[str, Any]]) -> bool:
    """True when git has something to sum up: asking it costs more than all the rest of an end."""
    return any(x.get("changed_files") or x.get("head_before") != x.get("head_after") for x in lines)


async def _diff_stat(ctx: Context, first: str) -> str:
    """What the reported iterations changed in all, as git sums it up."""
    if not first:
        return ""
    argv = ("git", "--no-optional-locks", "diff", "--stat=100", "--no-ext-diff", first, "--")
    result = await run_tool(argv, cwd=str(ctx.paths.workspace), timeout_sec=DIFF_SEC)
    return result.stdout.decode("utf-8", "replace") if result.exit_code == 0 else ""
