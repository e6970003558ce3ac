"""`diff N [M]`: what an iteration changed, from its checkpoint."""

from __future__ import annotations

import argparse
import os
import sys

from codex_self_iter.errors import CodexSelfIterError, ExitCode, UsageError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.description = (
        "Show what iteration N changed (against the checkpoint before it); "
        "with M, what lies between checkpoints N and M. Works while a supervisor runs."
    )
    parser.add_argument("first", metavar="N", help="iteration, or the name of another checkpoint")
    parser.add_argument("second", metavar="M", nargs="?", default="", help="iteration to compare N with")
    parser.add_argument("--stat", action="store_true", help="names and counts of lines only")


def run(args: argparse.Namespace) -> int:
    """Print the difference. Returns the exit code."""
    from codex_self_iter.cli._checkpoints import open_checkpoints
    from codex_self_iter.world.gitrun import complete

    try:
        checkpoints = open_checkpoints(args)
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        text = complete(checkpoints.diff(args.first, args.second, summary=args.stat, colour=colour))
    except CodexSelfIterError as error:
        print(f"codex-self-iter diff: {error}", file=sys.stderr)
        return ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.INTERNAL
    try:
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`: nobody reads on, and Python must not complain at its end either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.OK
