"""`rewind N`: make the work tree's content that of a checkpoint, after saying what that means."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from codex_self_iter.cli import _common
from codex_self_iter.errors import ExitCode, UsageError
from codex_self_iter.screens.alone import nobody

if TYPE_CHECKING:
    from codex_self_iter.world.git.rewind import RewindPlan

_SHOWN = 200
"""Lines of the plan that are printed; --dry-run prints all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.description = (
        "Make the work tree's content that of checkpoint N. Ignored files, HEAD, branches, the index and the "
        "stash stay. The present is kept as a checkpoint first. "
        "Refused while a supervisor or an agent runs here."
    )
    _common.add_loop_arguments(parser, name=False)
    parser.usage = "%(prog)s [options] [NAME] N"
    what = "a loop; N: as iteration N left the files, N-before: as it found them; or another checkpoint"
    add("what", metavar="[NAME] N", nargs="+", help=what)
    add("--yes", action="store_true", help="do not ask")
    add("--dry-run", action="store_true", help="only say what would be done")


def run(args: argparse.Namespace) -> int:
    """Plan, ask, act. Raises UsageError, WorkspaceBusyError, GitError."""
    from codex_self_iter.screens.kept import open_checkpoints
    from codex_self_iter.world.git.rewind import plan_rewind, rewind
    from codex_self_iter.world.git.run import HEAD, complete

    *names, label = args.what
    if len(names) > 1 or (names and args.loop):
        raise UsageError(f"expected one iteration, not {' '.join(args.what)!r}")
    args.loop = names[0] if names else args.loop
    checkpoints = open_checkpoints(_common.find_loop(args))
    place = checkpoints.git.cwd, checkpoints.state_dir
    alone = nullcontext() if args.dry_run else nobody(*place)
    with alone:
        plan = complete(plan_rewind(checkpoints, label))
        _show(plan, sys.maxsize if args.dry_run else _SHOWN)
        if args.dry_run or not plan.changes:
            return int(ExitCode.OK)
        if not args.yes and not _agreed():
            print("Nothing was done.")
            return int(ExitCode.OK)
        label = complete(rewind(checkpoints, plan))
    print(f"Done. The state before is kept; to take this back: codex-self-iter rewind {label}")
    _say_where_head_is(plan.head_then, complete(checkpoints.git.resolve(HEAD)))
    return int(ExitCode.OK)


def _say_where_head_is(then: str, now: str) -> None:
    if then and now != then:
        print(f"HEAD stays at {now[:12]}; it was {then[:12]} when the checkpoint was made.")
        mend = f"git reset --soft {then[:12]}"
        print(f"To move the branch back as well, keeping this content: {mend}")


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
        mend = "add --yes to go back, or --dry-run to only look"
        raise UsageError(f"nobody can be asked here; {mend}")
    try:
        return input("Go back? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
