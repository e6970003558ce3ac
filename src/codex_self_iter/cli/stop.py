"""`stop`: leave the STOP file; with --wait, until the supervisor is gone."""

from __future__ import annotations

import argparse
import time

from codex_self_iter.cli import _common, _controls
from codex_self_iter.cli._common import say
from codex_self_iter.core.foreign import as_dict
from codex_self_iter.errors import ExitCode, WorkspaceBusyError
from codex_self_iter.screens import steering
from codex_self_iter.screens.steering import Aim

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
    _common.goes_with(args, args.wait, "--wait", "timeout")
    aim = _controls.aim_at(args)
    say(steering.stop(aim, after_iteration=args.after_iteration))
    return _wait(aim, args.timeout or 0.0) if args.wait and aim.life.alive else int(ExitCode.OK)


def _wait(aim: Aim, timeout: float) -> int:
    began = time.monotonic()
    while True:
        _, status, life = steering.aim(aim.loop)
        if not life.alive:
            break
        if timeout and time.monotonic() - began > timeout:
            who = f"the supervisor (pid {aim.life.pid})"
            raise WorkspaceBusyError(f"{who} is still there after {timeout:g} s")
        time.sleep(POLL_SEC)
    end = as_dict(status.get("exit"))
    why = end.get("reason") or end.get("state") or "no reason recorded"
    say(f"The supervisor has ended: {why}.")
    return int(ExitCode.OK)
