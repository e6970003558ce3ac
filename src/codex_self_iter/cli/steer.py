"""`steer`: a message for the next prompt, left in the inbox."""

from __future__ import annotations

import argparse

from codex_self_iter.cli import _common, _controls
from codex_self_iter.cli._common import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _common.add_loop_arguments(parser, name=False)
    add("text", nargs="*", metavar="TEXT", help='the message; "-" reads it from stdin')
    add("-f", "--file", metavar="FILE", help="read the message from a file")
    add("--now", action="store_true", help="end the running agent and start again with the message")


def run(args: argparse.Namespace) -> int:
    """Write the message into the inbox and say when it will be read."""
    from codex_self_iter.world.state import inbox

    text = _controls.read_text(args.text, args.file, "message")
    aim = _controls.aim_at(args)
    path = inbox.write_message(aim.loop.state_dir, text, now=args.now)
    dead = "the first prompt after the next start will have it"
    living = _at_once(aim) if args.now else "puts it into the next prompt"
    say(f"Wrote {path}. {_controls.who_notices(aim, living, dead)}")
    return 0


def _at_once(aim: _controls.Aim) -> str:
    if ends := _controls.ends(aim):
        return f"{ends}starts again with it"
    if aim.status.get("state") in ("backoff", "cooldown"):
        return "waits no longer and starts the next run with it"
    return "puts it into the next prompt; no agent is running"
