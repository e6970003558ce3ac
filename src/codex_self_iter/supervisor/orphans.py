"""What the last supervisor left: the run that it had under way, its gates, and strays."""

from __future__ import annotations

import dataclasses
import glob
import os
from functools import partial

from codex_self_iter.agents.base import Agent
from codex_self_iter.core.events import Trace
from codex_self_iter.core.runs import RunSpec
from codex_self_iter.core.state import Step
from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor import scratch
from codex_self_iter.supervisor.configured import run_limits
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.warm_container import beside
from codex_self_iter.supervisor.work import Work
from codex_self_iter.supervisor.workspace import Workspace
from codex_self_iter.world.process.traces import is_older, read_identity
from codex_self_iter.world.process.watched import read_report


async def find(ctx: Context, work: Work, workspace: Workspace, *, kill: bool) -> Trace:
    """Find what is left of the open run, and end all else."""
    opened = ctx.state.open
    begun = opened.run or next(reversed(opened.ended), None) if opened else None
    if begun is not None:  # what it has deleted since is not a person's wish
        for document in ctx.documents:
            document.recall(f"{ctx.store.path}/logs/runs/{begun.label}")
    trace = await _open_run(ctx, work, workspace, kill=kill)
    # The record of a stray may be gone with the state directory.
    keep = work.adopted.identity.run_id if work.adopted else ""
    await _redact(ctx, work, adopted=bool(keep))
    await _end_left(ctx, "logs/hooks/*", "hook-")
    ended = await ctx.shared.host.sweep_strays(str(ctx.paths.workspace), keep)
    if ended:
        ctx.log.warning("strays.ended", processes=ended)
    if begun is not None and not keep:
        await ctx.shared.in_thread(scratch.remove, f"{ctx.store.path}/logs/runs/{begun.label}")
    return trace


async def _redact(ctx: Context, work: Work, *, adopted: bool) -> None:
    """What was killed with its supervisor has not been gone through for secrets."""
    opened = ctx.state.open
    if opened is None:
        return
    still_on = opened.run.label if opened.run and adopted else ""
    try:
        redact = partial(ctx.store.redact_iteration, but=still_on, in_haste=work.in_haste)
        await ctx.shared.in_thread(redact, opened.number)
    except StorageError as error:
        ctx.log.warning("redaction.failed", error=str(error))


async def _open_run(ctx: Context, work: Work, workspace: Workspace, *, kill: bool) -> Trace:
    opened, host = ctx.state.open, ctx.shared.host
    run = opened.run if opened else None
    if opened is not None and opened.step is Step.VERIFY:
        await _end_left(ctx, f"logs/runs/{opened.number:06d}-gate-*")
    if opened is None or run is None:
        return Trace.NONE
    directory = ctx.store.run_directory(opened.number, run.role.value, run.attempt)
    spec = _spec(ctx, run.run_id, directory, ctx.agents.get(run.agent))
    if await ctx.shared.in_thread(is_older, spec, run.started_at):
        # A backup was put back, and the number was given again: that result is of another history.
        ctx.store.set_run_aside(directory)
        return Trace.NONE
    identity = read_identity(spec)
    # A run that ended meanwhile has done its work: there is nothing to kill, and its result counts.
    finished = read_report(spec) is not None
    if (kill and not finished) or run.agent not in ctx.agents:
        swept = await host.sweep(spec, identity)
        ctx.log.warning("orphan.ended", run_id=run.run_id, processes=swept)
        await workspace.load_gone(directory)
        return Trace.GONE if swept or identity is not None else Trace.NONE
    handle = await host.adopt(spec, identity)
    if handle is None:
        await workspace.load_gone(directory)
        return Trace.NONE if identity is None else Trace.GONE
    ctx.log.warning("orphan.adopted", run_id=run.run_id, pid=handle.identity.agent_pid)
    await workspace.load_before(directory)
    work.adopt(handle, directory)
    return Trace.ADOPTED


async def _end_left(ctx: Context, pattern: str, kind: str = "") -> None:
    """End gates or hooks: they run again, and never beside their old selves."""
    for directory in sorted(glob.glob(f"{glob.escape(ctx.store.path)}/{pattern}")):
        run_id = f"{ctx.state.loop_id}-{kind}{os.path.basename(directory)}"
        spec = _spec(ctx, run_id, directory)
        if kind:  # who holds the agents' lock may go on
            spec = dataclasses.replace(spec, run_lock_path=os.path.join(directory, "lock"))
        if swept := await ctx.shared.host.sweep(spec, read_identity(spec)):
            ctx.log.warning("orphan.ended", run_id=run_id, processes=swept)


def _spec(ctx: Context, run_id: str, directory: str, agent: Agent | None = None) -> RunSpec:
    return RunSpec(
        run_id=run_id,
        argv=("",),
        cwd=str(ctx.paths.workspace),
        env={},
        directory=directory,
        run_lock_path=ctx.run_lock_path,
        watch_root=str(ctx.paths.workspace),
        limits=run_limits(ctx.settings, agent),
        beside=(0, 0) if agent is None else beside(ctx),
    )
