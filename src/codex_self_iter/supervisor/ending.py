"""What is left behind when a loop ends: the report."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from structlog.typing import FilteringBoundLogger

from codex_self_iter.core.text import one_line, typed
from codex_self_iter.errors import CodexSelfIterError, ExitCode, StorageError, UsageError
from codex_self_iter.settings.templates import PLAN_TO_MAKE
from codex_self_iter.supervisor.context import Context
from codex_self_iter.views.card import card
from codex_self_iter.views.report import report
from codex_self_iter.world import crashlog, threads
from codex_self_iter.world.git.checkpoints import Checkpoints, Stretch
from codex_self_iter.world.git.run import Git, GitError
from codex_self_iter.world.process.tool import run_tool
from codex_self_iter.world.start import start_directory

LINES = 200
DIFF_SEC = 20.0
"""Patience with one call of git."""
LONGEST = 1000
"""Characters of an error's words."""
STRETCHES = 5
"""So many that other people's edits lie between are summed up, the newest."""


async def write_report(ctx: Context, times: Mapping[str, float], lanes: str = "") -> str:
    """Write `report.md`; one that cannot be written is only logged. Returns the card of this run,
    where one is wanted, or "". `lanes`: what became of them, in Markdown."""
    redact = ctx.store.redactor.text  # before anything is cut
    try:
        lines = ctx.store.journal_tail(LINES)
        changes = await _changes(ctx, lines)
        text = report(
            dataclasses.replace(ctx.state, feedback=redact(ctx.state.feedback)),
            lines,
            plan=redact(ctx.plan.text),
            task=redact(ctx.task.text),
            times=times,
            changes=changes,
            warnings=list(ctx.warnings),
            lanes=redact(lanes),
            now=ctx.shared.clock.wall(),
        )
        await ctx.shared.in_thread(ctx.store.write_report, text)
    except StorageError as error:
        ctx.log.warning("report.not_written", error=str(error))
        return ""
    if not ctx.shared.card or lanes:
        return ""
    mine = lines[-ctx.state.run_iterations :] if ctx.state.run_iterations else []
    if len(mine) < len(lines):
        changes = await _changes(ctx, mine)
    workspace = str(ctx.paths.workspace)
    elsewhere = workspace != os.path.realpath(start_directory())
    return redact(
        card(
            ctx.state,
            mine,
            seconds=sum(times.values()),
            changes=changes,
            warnings=list(ctx.warnings),
            where=f" --workspace {typed(workspace)}" if elsewhere else "",
            report=f"{ctx.store.path}/report.md",
            steps=(0, 0) if ctx.plan.text == PLAN_TO_MAKE else ctx.plan.progress()[:2],
        )
    )


def is_defect(error: BaseException, again_sec: float | None) -> bool:
    """True for what nobody raised on purpose, and for what is started again like it."""
    own = getattr(error, "exit_code", ExitCode.INTERNAL) != ExitCode.INTERNAL
    return not own and (again_sec is not None or not isinstance(error, CodexSelfIterError))


async def say_defect(
    log: FilteringBoundLogger, name: str, error: BaseException, seconds: float | None
) -> str:
    """Keep the traceback of a defect and log where; returns the reason that all is to have."""
    what = one_line(f"{type(error).__name__}: {error}", LONGEST)
    path = await threads.run_sync(crashlog.write, error, [f"loop {name}"])
    log.error("loop.crashed", error=what, seconds=seconds, traceback=path)
    where = f"; the traceback is in {path}" if path else ""
    again = "" if seconds is None else f"; it starts again after {seconds:g} s"
    return f"{what}{where}{again}"


def _changed(lines: Sequence[Mapping[str, Any]]) -> bool:
    """True when git has something to sum up: asking it costs more than all the rest of an end."""
    return any(x.get("changed_files") or x.get("head_before") != x.get("head_after") for x in lines)


async def _changes(ctx: Context, lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What the reported iterations changed, as git sums it up: (what it is, summary)."""
    if not _changed(lines):
        return []
    results = {line["iteration"]: str(line.get("checkpoint") or "") for line in lines}
    git = Git(run_tool, os.path.realpath(ctx.paths.workspace), DIFF_SEC)
    points = Checkpoints(git, str(ctx.store.path))
    try:
        found = [
            (_title(one), await points.between(one.old, one.new, summary=True))
            for one in (await points.stretches(results))[-STRETCHES:]
        ]
        first = str(lines[0].get("head_before") or "")
        if not found and first:
            title = (
                f"Tracked files that differ from {first[:12]}, whoever changed them (there are no "
                "checkpoints)"
            )
            stat = await git.ask("diff", "--stat=100", "--no-ext-diff", first, "--")
            found = [(title, stat)]
    except (GitError, UsageError):
        return []
    return [(title, stat.decode("utf-8", "replace")) for title, stat in found if stat.strip()]


def _title(one: Stretch) -> str:
    which = f"s {one.first} to {one.last}" if one.last > one.first else f" {one.first}"
    return f"Changed in iteration{which}"
