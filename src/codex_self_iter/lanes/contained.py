"""Commands in a lane's work tree: its set-up, and the gates of a landing; contained like gates."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

from codex_self_iter.agents.passed_env import agent_environment
from codex_self_iter.core.evidence import GateResult
from codex_self_iter.core.runs import RunSpec
from codex_self_iter.supervisor import gates, recipients
from codex_self_iter.supervisor.configured import run_limits
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.remains import Remains


async def run_all(
    ctx: Context,
    what: str,
    commands: Sequence[str],
    cwd: str,
    extra: Mapping[str, str],
    timeout_sec: float,
    *,
    go_on: bool = False,
) -> list[GateResult]:
    """Run commands in order, and no more once one has failed, unless they are to `go_on`; what they
    have said. Who cancels it waits until nothing of them is left. Raises StorageError."""
    results: list[GateResult] = []
    for number, command in enumerate(commands, 1):
        result = await _run(ctx, f"{what}-{number}", command, cwd, extra, timeout_sec)
        results.append(result)
        if not (result.ok or go_on):
            break
    return results


async def _run(
    ctx: Context, name: str, command: str, cwd: str, extra: Mapping[str, str], timeout_sec: float
) -> GateResult:
    directory = ctx.store.hook_directory(name)
    environ = recipients.without_secrets(ctx.shared.environ, ctx.settings)
    spec = RunSpec(
        run_id=f"{ctx.state.loop_id}-{name}",
        argv=("/bin/sh", "-c", f"exec 2>&1\n{command}"),
        cwd=cwd,
        env=agent_environment(environ, passed=ctx.settings.verify.pass_env, extra=extra),
        directory=directory,
        run_lock_path=os.path.join(directory, "lock"),
        limits=dataclasses.replace(run_limits(ctx.settings), wall_sec=timeout_sec, idle_sec=0.0),
    )
    outcome = await Remains(ctx).run(spec)
    result: GateResult = await ctx.shared.in_thread(
        gates.result_of, ctx, command, outcome, directory
    )
    ctx.warn(ctx.store.take_warnings())
    return result
