"""`rewind N`: make the work tree's content that of an iteration's checkpoint, after saying what that
means."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from codex_self_iter.errors import CodexSelfIterError, ExitCode, UsageError, WorkspaceBusyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from codex_self_iter.world.rewind import RewindPlan

__all__ = ["add_arguments", "run"]

_SHOWN = 200
"""Lines of the plan that are printed; --dry-run prints all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.description = (
        "Make the work tree's content that of checkpoint N. Ignored files, HEAD, branches, the index and the "
        "stash stay. The present is kept as a checkpoint first. "
        "Refused while a supervisor or an agent runs here."
    )
    parser.add_argument("label", metavar="N", help="iteration, or the name of another checkpoint")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument(
        "--max-file-mb",
        type=float,
        default=10.0,
        help="files above this size are in no checkpoint and stay as they are (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Plan, ask, act. Returns the exit code."""
    try:
        return _run(args)
    except CodexSelfIterError as error:
        print(f"codex-self-iter rewind: {error}", file=sys.stderr)
        return error.exit_code


def _run(args: argparse.Namespace) -> int:
    from codex_self_iter.cli._checkpoints import open_checkpoints, places
    from codex_self_iter.world.gitrun import complete
    from codex_self_iter.world.rewind import plan_rewind, rewind

    workspace, state_dir = places(args)
    checkpoints = open_checkpoints(args, args.max_file_mb)
    with nullcontext() if args.dry_run else _alone(workspace, state_dir):
        plan = complete(plan_rewind(checkpoints, args.label))
        _show(plan, sys.maxsize if args.dry_run else _SHOWN)
        if args.dry_run or not plan.changes:
            return ExitCode.OK
        if not args.yes and not _agreed():
            print("Nothing was done.")
            return ExitCode.OK
        label = complete(rewind(checkpoints, plan))
    print(f"Done. The state before is kept; to take this back: codex-self-iter rewind {label}")
    head = complete(checkpoints.head())
    if plan.head_then and head != plan.head_then:
        print(f"HEAD stays at {head[:12]}; it was {plan.head_then[:12]} when the checkpoint was made.")
        print(
            f"To move the branch back as well, keeping this content: git reset --soft {plan.head_then[:12]}"
        )
    return ExitCode.OK


def _show(plan: RewindPlan, limit: int) -> None:
    lines = plan.lines()
    if not lines:
        print(f"The work tree already is as in checkpoint {plan.target.label}.")
    else:
        print(f"Going back to checkpoint {plan.target.label} changes {len(lines)} file(s):")
    for line in lines[:limit]:
        print(f"  {line}")
    if len(lines) > limit:
        print(f"  … and {len(lines) - limit} more (--dry-run lists all)")
    for line in plan.kept:
        print(f"  stays    {line}")


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked here; add --yes to go back, or --dry-run to only look")
    try:
        return input("Go back? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


@contextmanager
def _alone(workspace: str, state_dir: str) -> Iterator[None]:
    """Hold the locks that a supervisor takes, and make sure that no agent of a dead one is still at work.

    Raises WorkspaceBusyError.
    """
    held = []
    try:
        for path, who in (
            (workspace, "a supervisor has"),
            (os.path.join(state_dir, "loop.lock"), "a supervisor has"),
            (os.path.join(state_dir, "run.lock"), "an agent is still at work in"),
        ):
            fd = _lock(path)
            if fd is None:
                raise WorkspaceBusyError(
                    f"{who} {workspace}; stop it first: codex-self-iter stop --workspace {workspace}"
                )
            held.append(fd)
        yield
    finally:
        for fd in held:
            if fd >= 0:
                os.close(fd)


def _lock(path: str) -> int | None:
    """A descriptor with an exclusive lock, -1 when there is nothing to lock, None when somebody else has
    it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:  # a file system without locks
        os.close(fd)
        return -1
    return fd
