"""The gates: verification commands, run with the same containment as agents; and their files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence

from codex_self_iter.agents.passed_env import agent_environment
from codex_self_iter.core import events as ev
from codex_self_iter.core.evidence import GateResult, gate_end
from codex_self_iter.core.judge import asks_gates, changed_gate_files
from codex_self_iter.core.opening import RULES
from codex_self_iter.core.runs import EndCause, RunOutcome, RunSpec
from codex_self_iter.core.state import LoopState
from codex_self_iter.core.text import clean_block
from codex_self_iter.errors import StorageError
from codex_self_iter.settings import CONFIG_NAME
from codex_self_iter.supervisor import (
    exporting,
    gate_globs,
    item_checks,
    notify,
    recipients,
    shortfalls,
)
from codex_self_iter.supervisor.configured import run_limits
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.work import Work
from codex_self_iter.supervisor.workspace import Workspace
from codex_self_iter.world.process.output import read_head_tail

AT_START = "gates at start"
GATE = "gate"
HEAD_BYTES = 2_000
TAIL_BYTES = 6_000
"""Of a gate's output that reaches a prompt: the first and the last words matter most."""


async def run_all(ctx: Context, work: Work, workspace: Workspace, iteration: int) -> None:
    """Run every gate in order, so that the next prompt knows of all that fail; post GatesEnded."""
    slot = ctx.shared.pool.slot(key="gate", priority=ctx.settings.priority, owner=ctx.name)
    async with slot, workspace.working(gates=True):
        checks = item_checks.commands(ctx)
        results = await _results(ctx, work, iteration, GATE, _due(ctx, checks))
        if results is not None:
            ctx.warnings.clear(AT_START)
            results = await item_checks.judged(ctx, results, checks)
            await shortfalls.tell_commands(ctx)  # a run may have written what was missing
    ended = ev.GatesEnded(tuple(results or ()), aborted=results is None, owed=workspace.owed)
    ctx.post(ended)


async def at_start(ctx: Context, work: Work, workspace: Workspace) -> None:
    """Run them once before the first run of this start, and say what fails already."""
    if ctx.at_start is not None or not ctx.settings.verify.at_start:
        return
    slot = ctx.shared.pool.slot(key="gate", priority=ctx.settings.priority, owner=ctx.name)
    async with slot, workspace.working(gates=True):
        results = await _results(
            ctx, work, ctx.state.iteration, "start-gate", ctx.settings.verify.commands
        )
    ctx.at_start = results or ()
    red = [one for one in ctx.at_start if not one.ok]
    if not red:
        ctx.warnings.clear(AT_START)
        return
    ends = "; ".join(f"`{one.command}` {gate_end(one.to_json())}" for one in red)
    text = f"red before the first run of this start: {ends}"
    ctx.warnings.tell(AT_START, text, agent=True)


def _due(ctx: Context, checks: Iterable[str]) -> list[str]:
    """The commands that are due for the open iteration: gates, and checks of items."""
    opened = ctx.state.open
    asked = opened is not None and asks_gates(opened, ctx.policy)
    gates = ctx.settings.verify.commands if asked else ()
    return [*gates, *(command for command in checks if command not in gates)]


async def _results(
    ctx: Context, work: Work, iteration: int, kind: str, commands: Sequence[str]
) -> Sequence[GateResult] | None:
    """The result of each command; None when one was ended on request."""
    results: list[GateResult] = []
    for index, command in enumerate(commands, 1):
        try:
            result = await _run(ctx, work, iteration, f"{kind}-{index}", command)
        except StorageError as error:
            result = GateResult(command, None, 0.0, "", flaw=str(error))
        if result is None:
            return None
        results.append(result)
        log_result(ctx, result)
    return results


def log_result(ctx: Context, result: GateResult) -> None:
    """Log how a gate has ended."""
    ctx.log.info(
        "gate.passed" if result.ok else "gate.failed",
        command=result.command,
        exit_code=result.exit_code,
        seconds=round(result.duration_sec, 1),
        **({} if result.ok else {"end": gate_end(result.to_json())}),
    )


async def _run(
    ctx: Context, work: Work, iteration: int, label: str, command: str
) -> GateResult | None:
    """Run one gate; None when it was ended on request."""
    limits, run_id = run_limits(ctx.settings), f"{ctx.state.loop_id}-{iteration:06d}-{label}"
    environ = recipients.without_secrets(ctx.shared.environ, ctx.settings)
    if label.startswith(GATE):  # no other is in the trace
        environ = exporting.environment(ctx, iteration, run_id)
    spec = RunSpec(
        run_id=run_id,
        # One stream in the order it was written: that is how people read a failing test.
        argv=("/bin/sh", "-c", f"exec 2>&1\n{command}"),
        cwd=str(ctx.paths.workspace),
        env=agent_environment(environ, passed=ctx.settings.verify.pass_env),
        directory=ctx.store.fresh_run_directory(iteration, label, again=True),
        run_lock_path=ctx.run_lock_path,
        limits=dataclasses.replace(
            limits, wall_sec=float(ctx.settings.verify.timeout_sec), idle_sec=0.0
        ),
    )
    outcome = await work.run_process(spec)
    if outcome.cause is EndCause.REQUEST and work.aborting:
        return None
    result = await ctx.shared.in_thread(
        result_of, ctx, command, outcome, spec.directory, work.in_haste
    )
    ctx.warn(ctx.store.take_warnings())
    return result


def result_of(
    ctx: Context,
    command: str,
    outcome: RunOutcome,
    directory: str,
    in_haste: Callable[[], bool] = lambda: False,
) -> GateResult:
    """What a command that was run like a gate has said and how it ended; without secrets. Blocking."""
    try:
        ctx.store.redact_run(directory, in_haste)
        path = os.path.join(directory, "stdout.log")
        head, tail, dropped = read_head_tail(path, HEAD_BYTES, TAIL_BYTES)
    except (OSError, StorageError):
        head, tail, dropped = b"", b"", 0
    if dropped:  # and what was capped on disk
        dropped = max(dropped, outcome.output_bytes - len(head) - len(tail))
    cut = f"\n[… {dropped} bytes left out …]\n" if dropped else ""
    flaws = {
        EndCause.SPAWN_FAILED: outcome.error,
        EndCause.MEMORY: "ended: it used more than memory_limit_mb",
        EndCause.LOST: "it vanished without an exit status",
        EndCause.REQUEST: "it was ended by a signal that nobody here has sent",
    }
    return GateResult(
        command=command,
        exit_code=outcome.exit_code if outcome.signal is None else 128 + outcome.signal,
        duration_sec=round(outcome.duration_sec, 3),
        started_at=outcome.started_at,
        output=_text(head) + cut + _text(tail),
        timed_out=outcome.cause is EndCause.WALL_TIMEOUT,
        flaw=flaws.get(outcome.cause, ""),
    )


def _text(output: bytes) -> str:
    """Without colours and control characters: they say nothing to an agent, and hide counts."""
    return clean_block(output.decode("utf-8", "replace"))


# -- gate files ------------------------------------------------------------------------------------


async def gate_files(ctx: Context, tree: Workspace) -> dict[str, str]:
    """Fingerprints of the files that `[verify] gate_files` names and, where there are gates or have
    been, of the configuration: what is taken out of it is no longer asked for after a restart."""
    patterns, workspace = tuple(ctx.settings.verify.gate_files), str(ctx.paths.workspace)
    found: dict[str, str] = {}
    flaw = ""
    if patterns:
        found, flaw = await ctx.shared.in_thread(gate_globs.fingerprints, workspace, patterns)
        found = await _without_products(ctx, tree, found)
    if flaw:
        ctx.warnings.tell("gate_files", f"[verify] gate_files: {flaw}")
    else:
        ctx.warnings.clear("gate_files")
    guarded = CONFIG_NAME in (ctx.state.gate_baseline or ())
    if patterns or ctx.settings.verify.commands or guarded:
        found |= await _configurations(ctx)
    return found


async def _without_products(ctx: Context, tree: Workspace, found: dict[str, str]) -> dict[str, str]:
    """Without new files that git ignores: what a run of tests leaves. A rule that is new itself
    does not count."""
    baseline = ctx.state.gate_baseline
    new = sorted(found.keys() - baseline.keys()) if baseline is not None else []
    if baseline is None or not new:
        return found
    rules, by_rule = baseline.get(RULES, "").split(), await tree.ignored(new)
    return {path: mark for path, mark in found.items() if by_rule.get(path) not in rules}


# -- the configuration -----------------------------------------------------------------------------


def _places(ctx: Context) -> list[str]:
    """Where in the workspace this loop has a configuration, or will look for one."""
    read = (os.path.relpath(path, ctx.paths.workspace) for path in ctx.settings.sources)
    return [CONFIG_NAME, *(path for path in read if not path.startswith(".."))]


async def _configurations(ctx: Context) -> dict[str, str]:
    workspace = str(ctx.paths.workspace)

    def look() -> dict[str, str]:
        return {path: gate_globs.print_of(os.path.join(workspace, path)) for path in _places(ctx)}

    return await ctx.shared.in_thread(look)


async def take_configuration(ctx: Context) -> None:
    """A person has it read again: as it is now it is theirs."""
    ctx.post(ev.GateFilesTaken(await _configurations(ctx)))
    ctx.warnings.clear("configuration")


def tell_configuration(ctx: Context, state: LoopState) -> None:
    """Say what a run has changed of the configuration, for as long as it is so."""
    changed = [path for path in changed_gate_files(state) if path in _places(ctx)]
    if not changed:
        ctx.warnings.clear("configuration")
        return
    text = (
        f"the configuration ({', '.join(changed)}) was changed while a run was on: no completion "
        "is believed until it is as it was, or a person edits it between two runs or reloads it "
        "(SIGHUP)"
    )
    if ctx.warnings.tell("configuration", text):
        notify.tell(ctx, "blocked", text, state)


def tell_gates(ctx: Context) -> None:
    """Say which gates are gone since the last start or reload."""
    before, now = ctx.state.gates or (), ctx.settings.verify.commands
    gone, come = (
        [f"`{one}`" for one in a if one not in b] for a, b in ((before, now), (now, before))
    )
    if not gone:
        ctx.warnings.clear("gates")
        return
    added = f"; added {', '.join(come)}" if come else ""
    text = f"the gates are not those of the last start: removed {', '.join(gone)}{added}"
    if ctx.warnings.tell("gates", text):
        notify.tell(ctx, "blocked", text, ctx.state)
