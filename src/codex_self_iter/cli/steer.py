"""`steer`: a message for the next prompt, left in the inbox."""

from __future__ import annotations

import argparse

from codex_self_iter.cli import _common, _controls
from codex_self_iter.cli._common import say
from codex_self_iter.screens import steering


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _common.add_loop_arguments(parser, name=False)
    parser.usage = "%(prog)s [options] [NAME] TEXT"
    add("text", nargs="*", metavar="TEXT", help='the message; "-" reads it from stdin')
    add("-f", "--file", metavar="FILE", help="read the message from a file")
    add(
        "--now",
        action="store_true",
        help="at once: into the running turn if the agent takes it, else end that and start again with it",
    )


def run(args: argparse.Namespace) -> int:
    """Write the message into the inbox and say when it will be read."""
    text = _controls.read_text(args, "message")
    say(steering.steer(_controls.aim_at(args), text, now=args.now))
    return 0
