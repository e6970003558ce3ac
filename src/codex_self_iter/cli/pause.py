"""`pause` and `resume`: leave or remove the PAUSE file."""

from __future__ import annotations

import argparse

from codex_self_iter.cli import _common, _controls
from codex_self_iter.cli._common import say
from codex_self_iter.screens import steering


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _common.add_loop_arguments(parser)
    if parser.get_default("command") == "pause":
        what = "end the running agent instead of waiting for it"
        parser.add_argument("--now", action="store_true", help=what)


def run(args: argparse.Namespace) -> int:
    """Pause or resume, and say what will happen."""
    aim = _controls.aim_at(args)
    say(steering.pause(aim, now=args.now) if args.command == "pause" else steering.resume(aim))
    return 0
