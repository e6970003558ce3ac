"""The gates: verification commands, run by the supervisor with the same containment as agents."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from codex_self_iter.core import events as ev
from codex_self_iter.core.model import EndCause, GateResult, RunLimits, RunOutcome, RunSpec
from codex_self_iter.errors import StorageError
from codex_self_iter.world.process.output import read_head_tail

if TYPE_CHECKING:
    from codex_self_iter.supervisor.work import Work

HEAD_BYTES = 2_000
TAIL_BYTES = 6_000
"""Of a gate's output that reaches a prompt: the first and the last words matter most."""


async def run_all(work: Work, iteration: int) -> None:
    """Run every gate in order; post GatesEnded. All run, so that the next prompt knows of all that
    fail.
    """
    loop = work.loop
    commands = loop.settings.verify.commands
    results: list[GateResult] = []
    async with loop.shared.pool.slot(key="gate", priority=loop.settings.priority, owner=loop.name):
        for index, command in enumerate(commands, 1):
            try:
                result = await _run(work, iteration, index, command)
            except StorageError as error:
                result = GateResult(command, None, 0.0, "", flaw=str(error))
            if result is None:
                loop.post(ev.GatesEnded((), aborted=True))
                return
            results.append(result)
            event = "gate.passed" if result.ok else "gate.failed"
            loop.log.info(
                event,
                command=command,
                exit_code=result.exit_code,
                seconds=round(result.duration_sec, 1),
            )
    loop.post(ev.GatesEnded(tuple(results)))


async def _run(work: Work, iteration: int, index: int, command: str) -> GateResult | None:
    """Run one gate; None when it was ended on request."""
    loop, settings = work.loop, work.loop.settings
    directory = _fresh(work, iteration, index)
    workspace = str(loop.paths.workspace)
    spec = RunSpec(
        run_id=f"{loop.state.loop_id}-{iteration:06d}-gate-{index}",
        # One stream in the order it was written: that is how people read a failing test.
        argv=("/bin/sh", "-c", f"exec 2>&1\n{command}"),
        cwd=workspace,
        env=dict(loop.shared.environ),
        directory=directory,
        run_lock_path=work.run_lock_path(),
        limits=RunLimits(
            wall_sec=float(settings.verify.timeout_sec),
            memory_bytes=settings.memory_limit_mb * 2**20,
            kill_grace_sec=float(settings.kill_grace_sec),
            output_bytes=int(settings.output.max_run_mb * 2**20),
        ),
    )
    outcome = await work.run_process(spec)
    if outcome.cause is EndCause.REQUEST:
        return None
    return await loop.shared.in_thread(_result, work, command, outcome, directory)


def _fresh(work: Work, iteration: int, index: int) -> str:
    """The gate's own directory, emptied: the gates of one iteration may run again after a
    restart.
    """
    directory = work.loop.store.run_directory(iteration, f"gate-{index}")
    for name in ("stdout.log", "stderr.log", "exit.json", "identity.json"):
        path = os.path.join(directory, name)
        if os.path.lexists(path):
            os.unlink(path)
    return directory


def _result(work: Work, command: str, outcome: RunOutcome, directory: str) -> GateResult:
    try:
        work.loop.store.redact_run(directory)
        head, tail, dropped = read_head_tail(
            os.path.join(directory, "stdout.log"), HEAD_BYTES, TAIL_BYTES
        )
    except (OSError, StorageError):
        head, tail, dropped = b"", b"", 0
    cut = f"\n[… {dropped} bytes left out …]\n" if dropped else ""
    flaws = {
        EndCause.SPAWN_FAILED: outcome.error,
        EndCause.MEMORY: "ended: it used more than memory_limit_mb",
        EndCause.LOST: "it vanished without an exit status",
    }
    return GateResult(
        command=command,
        exit_code=outcome.exit_code,
        duration_sec=round(outcome.duration_sec, 3),
        output=head.decode("utf-8", "replace") + cut + tail.decode("utf-8", "replace"),
        timed_out=outcome.cause is EndCause.WALL_TIMEOUT,
        flaw=flaws.get(outcome.cause, ""),
    )
