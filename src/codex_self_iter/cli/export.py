"""`export`: one loop as one HTML file that needs nothing beside it."""

from __future__ import annotations

import argparse
import os

from codex_self_iter.cli import _common
from codex_self_iter.cli._extra import need
from codex_self_iter.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _common.add_loop_arguments(parser)
    help_ = 'the file (default: NAME.html in the current directory); "-": stdout'
    parser.add_argument("-o", "--output", metavar="FILE", help=help_)


def run(args: argparse.Namespace) -> int:
    """Write it, and say where it is. Raises UsageError."""
    need("screens", "an export", "jinja2", "starlette")
    loop = _common.find_loop(args)
    from codex_self_iter.screens import sources
    from codex_self_iter.screens.page.site import export

    text = export(sources.show(loop.name, loop)).encode("utf-8", "replace")
    path = args.output or f"{loop.name.replace(os.sep, '-')}.html"
    _common.write_out(path, text, f" ({len(text) // 1024 + 1} KiB)")
    return int(ExitCode.OK)
