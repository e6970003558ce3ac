"""`mcp`: the loops as tools of another program's model; by itself it only shows."""

from __future__ import annotations

import argparse
import os
import sys

from codex_self_iter.cli import _common
from codex_self_iter.errors import UsageError
from codex_self_iter.screens.loops import need_file

LIMIT_SEC = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _common.add_loop_arguments(parser, name=False)
    add("--control", action="store_true", help="offer tools that steer, pause and stop loops, too")
    help_ = f"a tool that takes longer is ended (default: {LIMIT_SEC:g})"
    add("--timeout", type=_common.seconds, default=LIMIT_SEC, metavar="SEC", help=help_)


def run(args: argparse.Namespace) -> int:
    """Serve until stdin ends or a signal comes. Raises UsageError."""
    if args.timeout == 0:
        raise UsageError("--timeout must be above 0")
    if args.config:
        need_file(args.config)
    if args.loop or args.workspace or args.state_dir:
        _common.named_loop(args)
    if os.isatty(0):
        what = "this is for programs: it speaks the Model Context Protocol on stdin and stdout"
        sys.stderr.write(f"codex-self-iter mcp: {what} (docs/mcp.md); Ctrl-D ends it\n")
    from codex_self_iter.mcp.server import Server

    names = ("loop", "workspace", "state_dir", "config")
    given = [(name.replace("_", "-"), getattr(args, name)) for name in names]
    which = [f"--{name}={value}" for name, value in given if value]
    return Server(which, control=args.control, limit_sec=args.timeout).serve()
