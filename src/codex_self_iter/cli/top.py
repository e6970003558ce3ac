"""`top`: the board of all loops in the terminal."""

from __future__ import annotations

import argparse
import os
import sys

from codex_self_iter.cli import _common
from codex_self_iter.errors import ExitCode
from codex_self_iter.screens.loops import Target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _common.add_loop_arguments(parser)
    parser.description = (
        "All loops of this user, the most urgent first, and each in depth: output, plan, diff, gates, prompt, "
        "messages, history, plots. `?` shows the keys. Leaving it touches no loop."
    )


def run(args: argparse.Namespace) -> int:
    """Show the board until the person leaves it; without a terminal, show `status`."""
    if why := _no_terminal():
        from codex_self_iter.cli import status

        sys.stderr.write(f"codex-self-iter: {why}; this is what `status` says\n")
        named = args.loop or args.workspace or args.state_dir or args.config
        args.all, args.json, args.watch, args.interval = not named, False, False, None
        return status.run(args)
    from codex_self_iter.cli._extra import need

    need("screens", "the board", "textual")
    from codex_self_iter.screens.board.looking import Reader
    from codex_self_iter.screens.board.terminal import Board

    named, chosen = _named(args)
    board = Board(Reader(named), chosen)
    board.run()
    if board.failed is not None:
        raise board.failed
    return int(ExitCode.OK)


def _no_terminal() -> str:
    """Why nothing can be drawn here; "" where it can."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return "there is no terminal"
    if os.environ.get("TERM", "dumb") == "dumb":
        return "this terminal (TERM=dumb) cannot place the cursor"
    return ""


def _named(args: argparse.Namespace) -> tuple[list[Target], str]:
    """Loops that are to be shown although the registry may not know them, and the state directory
    of the one to open. Raises UsageError."""
    named = getattr(args, "loop", None) or args.workspace or args.state_dir
    if not named and (several := _common.config_loops(args.config or "")):
        return several, ""
    if not named and not args.config:
        here = _common.named_loop(args)
        return ([] if _common.nowhere(here) else [here]), ""
    loop = _common.find_loop(args)
    return [loop], loop.state_dir
