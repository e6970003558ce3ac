"""What is left behind when a loop ends: the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from codex_self_iter.errors import StorageError
from codex_self_iter.views.report import report
from codex_self_iter.world.process.tool import run_tool

if TYPE_CHECKING:
    from codex_self_iter.supervisor.loop import Loop

LINES = 200
DIFF_SEC = 20.0


async def write_report(loop: Loop) -> None:
    """Write `report.md`; one that cannot be written is only logged."""
    try:
        lines = loop.store.journal_tail(LINES)
        text = report(
            loop.state,
            lines,
            plan=loop.plan.text,
            task=loop.task.text,
            times=loop.times,
            diff_stat=await _diff_stat(
                loop, str(lines[0].get("head_before") or "") if _changed(lines) else ""
            ),
            now=loop.shared.clock.wall(),
        )
        await loop.shared.in_thread(loop.store.write_report, text)
    except StorageError as error:
        loop.log.warning("report.not_written", error=str(error))


def _changed(lines: Sequence[Mapping[str, Any]]) -> bool:
    """True when git has something to sum up: asking it costs more than all the rest of an end."""
    return any(
        line.get("changed_files") or line.get("head_before") != line.get("head_after")
        for line in lines
    )


async def _diff_stat(loop: Loop, first: str) -> str:
    """What the reported iterations changed in all, as git sums it up."""
    if not first:
        return ""
    result = await run_tool(
        ("git", "--no-optional-locks", "diff", "--stat=100", "--no-ext-diff", first, "--"),
        cwd=str(loop.paths.workspace),
        timeout_sec=DIFF_SEC,
    )
    return result.stdout.decode("utf-8", "replace") if result.exit_code == 0 else ""
