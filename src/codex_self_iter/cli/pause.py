"""`pause` and `resume`: leave or remove the PAUSE file."""

from __future__ import annotations

import argparse
import os

from codex_self_iter.cli import _common, _controls
from codex_self_iter.cli._common import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; `resume` has no --now."""
    _common.add_loop_arguments(parser)
    if parser.get_default("command") == "pause":
        parser.add_argument(
            "--now", action="store_true", help="end the running agent instead of waiting for it"
        )


def run(args: argparse.Namespace) -> int:
    """Pause or resume, and say what will happen."""
    aim = _controls.aim_at(args)
    path = _controls.control_file(aim, "pause_file", "pause_file_name", "PAUSE")
    say(_pause(aim, path, args.now) if args.command == "pause" else _resume(aim, path))
    return 0


def _pause(aim: _controls.Aim, path: str, now: bool) -> str:
    from codex_self_iter.world.state import inbox

    directory, name = os.path.split(path)
    inbox.write_pause(directory, name, now=now)
    living = "ends the agent and pauses now" if now else "pauses when this iteration ends"
    dead = "the next start will pause at once, until 'codex-self-iter resume'"
    return f"Wrote {path}. {_controls.who_notices(aim, living, dead)}"


def _resume(aim: _controls.Aim, path: str) -> str:
    from codex_self_iter.world.state import inbox

    directory, name = os.path.split(path)
    if not inbox.remove_pause(directory, name):
        return f"Nothing to resume: there is no {path}. {_still_stopped(aim)}".rstrip()
    where = _controls.who_notices(aim, "goes on", "start it with 'codex-self-iter run'")
    return f"Removed {path}. {where} {_still_stopped(aim)}".rstrip()


def _still_stopped(aim: _controls.Aim) -> str:
    stops = (
        _controls.control_file(aim, "stop_file", "stop_file_name", "STOP"),
        _controls.control_file(aim, "global_stop_file", "global_stop_file_name", ".codex-stop"),
    )
    there = [path for path in stops if os.path.lexists(path)]
    return f"But {' and '.join(there)} says stop: remove it before the next start." if there else ""
