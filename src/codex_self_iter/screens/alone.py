"""What is done in a supervisor's place: nothing else may be at work meanwhile."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from codex_self_iter.errors import WorkspaceBusyError
from codex_self_iter.screens.loops import Target, read_config
from codex_self_iter.world.process import left
from codex_self_iter.world.state.holder import LOCK_FILE, probe, try_lock

if TYPE_CHECKING:
    from codex_self_iter.core.runs import RunIdentity


@contextmanager
def no_supervisor(workspace: str, state_dir: str) -> Iterator[ExitStack]:
    """Hold the locks of a supervisor, and those that are added. Raises WorkspaceBusyError."""
    with ExitStack() as held:
        for path in (workspace, os.path.join(state_dir, LOCK_FILE)):
            if not _lock(path, held):
                holder = probe(state_dir, workspace=workspace)
                who = f"a supervisor{f' ({holder})' if holder else ''}"
                raise _busy(f"{who} has {workspace}", workspace)
        yield held


@contextmanager
def nobody(workspace: str, state_dir: str) -> Iterator[None]:
    """The same, where no agent of a supervisor that is gone is at work either."""
    with no_supervisor(workspace, state_dir) as held:
        _no_agent(workspace, state_dir, held)
        yield


@contextmanager
def free_for_a_run(workspace: str, state_dir: str) -> Iterator[None]:
    """The same, and the lock that a run inherits is left to it."""
    with no_supervisor(workspace, state_dir):
        with ExitStack() as held:
            _no_agent(workspace, state_dir, held)
        yield


def _no_agent(workspace: str, state_dir: str, held: ExitStack) -> None:
    found = left.at_work(state_dir)
    if found or not _lock(os.path.join(state_dir, "run.lock"), held):
        pids = ", ".join(f"pid {left.pid_of(one)}" for one in found.values())
        who = f"an agent of a supervisor that is gone{f' ({pids})' if pids else ''}"
        raise _busy(f"{who} is still at work in {workspace}", workspace)


def _busy(what: str, workspace: str) -> WorkspaceBusyError:
    mend = f"codex-self-iter stop --workspace {shlex.quote(workspace)}"
    return WorkspaceBusyError(f"{what}; nothing was done. Stop it first: {mend}")


def _lock(path: str, held: ExitStack) -> bool:
    """Lock what can be locked for as long as `held` is; False when somebody else has it."""
    with suppress(OSError):  # not there, or a file system without locks
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        held.callback(os.close, fd)
        return try_lock(fd)
    return True


def end_left(loop: Target) -> None:
    """End what works on although its supervisor is gone, as the next supervisor would.

    Raises WorkspaceBusyError when a supervisor has come meanwhile, or when something stays."""
    import anyio  # imports much

    with no_supervisor(loop.workspace, loop.state_dir):
        anyio.run(_end_all, loop, left.at_work(loop.state_dir))


async def _end_all(loop: Target, found: Mapping[str, RunIdentity]) -> None:
    from codex_self_iter.core.runs import EndCause, RunLimits, RunSpec
    from codex_self_iter.world.process.host import Host
    from codex_self_iter.world.process.watched import read_report, report_end

    limits = RunLimits()
    grace = read_config(loop.workspace, loop.config).get("kill_grace_sec")
    if isinstance(grace, int | float):
        limits = RunLimits(kill_grace_sec=float(grace))
    async with Host() as host:
        for directory, identity in found.items():
            spec = RunSpec(
                run_id=identity.run_id,
                argv=("",),
                cwd=loop.workspace,
                env={},
                directory=directory,
                run_lock_path=os.path.join(loop.state_dir, "run.lock"),
                limits=limits,
            )
            await host.sweep(spec, identity)
            if left.lives(identity):
                raise WorkspaceBusyError(f"process {left.pid_of(identity)} cannot be ended")
            report = read_report(spec)
            if report is None or report.cause is EndCause.REQUEST:
                with suppress(OSError):  # then the next supervisor takes it for the agent's failure
                    report_end(spec, identity, EndCause.CRASHED)
        await host.sweep_strays(os.path.realpath(loop.workspace), "")
