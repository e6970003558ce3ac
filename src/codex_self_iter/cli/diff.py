"""`diff N [M]`: what an iteration changed, from its checkpoint."""

from __future__ import annotations

import argparse
import os
import sys

from codex_self_iter.cli import _common
from codex_self_iter.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.description = (
        "Show what iteration N changed (against the checkpoint before it); "
        "with M, what lies between checkpoints N and M. Works while a supervisor runs."
    )
    _common.add_loop_arguments(parser, name=False)
    add("first", metavar="N", help="iteration, or the name of another checkpoint")
    add("second", metavar="M", nargs="?", default="", help="iteration to compare N with")
    add("--stat", action="store_true", help="names and counts of lines only")


def run(args: argparse.Namespace) -> int:
    """Print the difference. Raises UsageError for a checkpoint that is not there."""
    from codex_self_iter.cli._checkpoints import open_checkpoints
    from codex_self_iter.world.git.run import complete

    checkpoints = open_checkpoints(args)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    text = complete(checkpoints.diff(args.first, args.second, summary=args.stat, colour=colour))
    sys.stdout.buffer.write(text)
    sys.stdout.flush()
    return int(ExitCode.OK)
