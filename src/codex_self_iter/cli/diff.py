"""`diff N [M]`: what an iteration changed, from its checkpoint."""

from __future__ import annotations

import argparse
import os
import sys

from codex_self_iter.cli import _common
from codex_self_iter.errors import ExitCode, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.description = (
        "Show what iteration N changed (against the checkpoint before it); "
        "with M, what lies between checkpoints N and M. Works while a supervisor runs."
    )
    _common.add_loop_arguments(parser, name=False)
    parser.usage = "%(prog)s [options] [NAME] N [M]"
    what = "a loop; iteration, or the name of another checkpoint; iteration to compare N with"
    add("what", metavar="[NAME] N [M]", nargs="+", help=what)
    add("--stat", action="store_true", help="names and counts of lines only")


def run(args: argparse.Namespace) -> int:
    """Print the difference. Raises UsageError for a checkpoint that is not there."""
    from codex_self_iter.screens.kept import open_checkpoints
    from codex_self_iter.world.git.run import complete

    words = args.what
    if len(words) > 1 and not words[0].isdigit():
        words = _common.name_first(args, words)
    if len(words) > 2:
        raise UsageError(f"expected one or two iterations, not {' '.join(words)!r}")
    first, second = [*words, ""][:2]
    checkpoints = open_checkpoints(_common.find_loop(args))
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    text = complete(checkpoints.diff(first, second, summary=args.stat, colour=colour))
    sys.stdout.buffer.write(text)
    sys.stdout.flush()
    return int(ExitCode.OK)
