"""`stop`: leave the STOP file; with --wait, until the supervisor is gone."""

from __future__ import annotations

import argparse
import os
import time

from codex_self_iter.cli import _common, _controls
from codex_self_iter.cli._common import say
from codex_self_iter.core.foreign import as_dict
from codex_self_iter.errors import ExitCode, WorkspaceBusyError

POLL_SEC = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _common.add_loop_arguments(parser)
    add("--after-iteration", action="store_true", help="let the running iteration end first")
    add("--wait", action="store_true", help="return only when the supervisor has ended")
    help_ = "for --wait; 0: for ever (default)"
    add("--timeout", type=_common.seconds, metavar="SEC", help=help_)


def run(args: argparse.Namespace) -> int:
    """Write the STOP file and say what will happen."""
    from codex_self_iter.world.state import inbox

    _common.goes_with(args, args.wait, "--wait", "timeout")
    aim = _controls.aim_at(args)
    path = _controls.control_file(aim, "stop_file", "stop_file_name", "STOP")
    state_dir, name = os.path.split(path)
    inbox.write_stop(state_dir, name, after_iteration=args.after_iteration)
    gently = args.after_iteration and inbox.read_stop(state_dir, name) != "now"
    living = "lets this iteration end, then stops" if gently else f"{_controls.ends(aim)}stops now"
    dead = f"the next start will end at once, until {path} is removed (or 'run --clear-stop')"
    kept = args.after_iteration and not gently
    did = f"{path} says stop now already, and still does" if kept else f"Wrote {path}"
    say(f"{did}. {_controls.who_notices(aim, living, dead)}")
    if aim.life.orphan and not args.after_iteration:
        _end(aim)
    return _wait(aim, args.timeout or 0.0) if args.wait and aim.life.alive else int(ExitCode.OK)


def _end(aim: _controls.Aim) -> None:
    """Nobody is there who would obey the STOP: end what works on."""
    from codex_self_iter.cli._alone import end_left  # imports much

    end_left(aim.loop)
    say(f"Ended it (pid {aim.life.orphan}), with all that it had started.")


def _wait(aim: _controls.Aim, timeout: float) -> int:
    began = time.monotonic()
    while True:
        status = _common.read_status(aim.loop.state_dir)
        if not _common.life(aim.loop, status).alive:
            break
        if timeout and time.monotonic() - began > timeout:
            who = f"the supervisor (pid {aim.life.pid})"
            raise WorkspaceBusyError(f"{who} is still there after {timeout:g} s")
        time.sleep(POLL_SEC)
    end = as_dict(status.get("exit"))
    why = end.get("reason") or end.get("state") or "no reason recorded"
    say(f"The supervisor has ended: {why}.")
    return int(ExitCode.OK)
