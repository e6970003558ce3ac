"""`pause` and `resume`: leave or remove the PAUSE file."""

from __future__ import annotations

import argparse
import os

from codex_self_iter.cli import _common, _controls
from codex_self_iter.cli._common import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _common.add_loop_arguments(parser)
    if parser.get_default("command") == "pause":
        what = "end the running agent instead of waiting for it"
        parser.add_argument("--now", action="store_true", help=what)


def run(args: argparse.Namespace) -> int:
    """Pause or resume, and say what will happen."""
    from codex_self_iter.world.state import inbox

    aim = _controls.aim_at(args)
    path = _controls.control_file(aim, "pause_file", "pause_file_name", "PAUSE")
    place = os.path.split(path)
    if args.command == "pause":
        inbox.write_pause(*place, now=args.now)
        now = inbox.read_pause(*place) == "now"
        living = f"{_controls.ends(aim)}pauses now" if now else "pauses when this iteration ends"
        dead = "the next start will pause at once, until 'codex-self-iter resume'"
        did = (
            f"Wrote {path}" if now is args.now else f"{path} says pause now already, and still does"
        )
        say(f"{did}. {_controls.who_notices(aim, living, dead)}")
    elif inbox.remove_pause(*place):
        where = _controls.who_notices(aim, "goes on", "start it with 'codex-self-iter run'")
        say(f"Removed {path}. {where} {_still_stopped(aim)}".rstrip())
    else:
        say(f"Nothing to resume: there is no {path}. {_still_stopped(aim)}".rstrip())
    return 0


def _still_stopped(aim: _controls.Aim) -> str:
    stops = (
        _controls.control_file(aim, "stop_file", "stop_file_name", "STOP"),
        _controls.control_file(aim, "global_stop_file", "global_stop_file_name", ".codex-stop"),
    )
    there = [path for path in stops if os.path.lexists(path)]
    return f"But {' and '.join(there)} says stop: remove it before the next start." if there else ""
