"""`goal`: replace what the next iteration is to do."""

from __future__ import annotations

import argparse

from codex_self_iter.cli import _common, _controls
from codex_self_iter.cli._common import say
from codex_self_iter.core.text import shorten
from codex_self_iter.screens import steering


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _common.add_loop_arguments(parser, name=False)
    parser.usage = "%(prog)s [options] [NAME] TEXT"
    parser.add_argument("text", nargs="*", metavar="TEXT", help='the goal; "-" reads it from stdin')
    parser.add_argument("-f", "--file", metavar="FILE", help="read the goal from a file")


def run(args: argparse.Namespace) -> int:
    """Leave the goal for the supervisor and say when it counts."""
    from codex_self_iter.world.state import inbox

    text = _controls.read_text(args, "goal")
    aim = _controls.aim_at(args)
    inbox.write_goal(aim.loop.state_dir, text)
    before = aim.status.get("goal")
    living, dead = "takes it for the next iteration", "the next start begins with it"
    old = f"\nIt replaces: {shorten(str(before), 200)}" if before else ""
    say(f"Goal written. {steering.who_notices(aim, living, dead)}{old}")
    return 0
