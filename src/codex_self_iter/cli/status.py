"""`status`: is it alive, what is it doing, since when, until when, is it stuck, what did it
cost.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from codex_self_iter.cli import common
from codex_self_iter.cli.common import Life, Loop
from codex_self_iter.cli.status_view import render, table
from codex_self_iter.cli.terminal import Paint, width
from codex_self_iter.errors import UsageError
from codex_self_iter.world import registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    common.add_loop_arguments(parser)
    parser.add_argument("--all", action="store_true", help="a table of all loops of this user")
    parser.add_argument(
        "--json", action="store_true", help='status.json plus "alive" and "stale_sec"'
    )
    parser.add_argument("-w", "--watch", action="store_true", help="redraw until interrupted")
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="SEC", help="for --watch (default: 1)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the screen, the table or the JSON; with --watch again and again."""
    if args.interval <= 0:
        raise UsageError("--interval must be above 0")
    paint = Paint()
    show = _watch if args.watch else _once
    show(args, paint)
    return 0


def _once(args: argparse.Namespace, paint: Paint) -> None:
    sys.stdout.write("\n".join(_lines(args, paint)) + "\n")
    sys.stdout.flush()


def _watch(args: argparse.Namespace, paint: Paint) -> None:
    """Redraw in place on a terminal; elsewhere print a block whenever something but the clock has
    changed.
    """
    redraw = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not args.json
    before: object = None
    while True:
        stamp = None if redraw else _fingerprint(args)
        if redraw:
            body = "\n".join(line + "\x1b[K" for line in _lines(args, paint))
            # home, each line cleared to its end, then the rest below
            sys.stdout.write(f"\x1b[H{body}\n\x1b[J")
            sys.stdout.flush()
        elif stamp != before:
            sys.stdout.write("" if before is None or args.json else "\n")
            _once(args, paint)
        before = stamp
        time.sleep(args.interval)


def _fingerprint(args: argparse.Namespace) -> object:
    """What must differ for another block: not the heartbeat, not an age."""
    moving = ("updated_at", "run", "disk", "usage")
    seen = []
    for _, _, status, life in _chosen(args):
        seen.append(
            (
                {key: value for key, value in status.items() if key not in moving},
                life.alive,
                life.late,
            )
        )
    return seen


def _lines(args: argparse.Namespace, paint: Paint) -> list[str]:
    rows, now = _chosen(args), time.time()
    many = _wants_table(args)
    if args.json:
        values = [_as_json(*row) for row in rows]
        return [
            json.dumps(
                values if many else values[0], ensure_ascii=False, indent=None if args.watch else 2
            )
        ]
    if many:
        return (
            table(rows, now, paint, width())
            if rows
            else ["No loop of this user is known.", *_how_to_start()]
        )
    _, loop, status, life = rows[0]
    if not status and not life.alive:
        return [f"No loop has run in {loop.workspace} yet.", *_unreadable(loop), *_how_to_start()]
    return [*render(status, loop, life, now, paint, width()), *_unreadable(loop)]


def _chosen(args: argparse.Namespace) -> list[tuple[str, Loop, dict[str, Any], Life]]:
    """(display name, loop, status, life) of every loop that is to be shown."""
    if _wants_table(args):
        known = registry.entries()
        names = registry.display_names(known)
        loops = [
            (names[entry.state_dir], Loop(entry.name, entry.workspace, entry.state_dir))
            for entry in known
        ]
    else:
        loop = common.find_loop(args)
        loops = [(loop.name, loop)]
    rows = []
    for name, loop in loops:
        status = common.read_status(loop.state_dir)
        rows.append((name, loop, status, common.life(loop, status)))
    return rows


def _wants_table(args: argparse.Namespace) -> bool:
    """Asked for, or nothing was named and the current directory is no workspace of ours."""
    if args.all:
        return True
    if (
        args.loop
        or args.workspace
        or args.state_dir
        or args.config
        or os.environ.get("CODEX_SELF_ITER_WORKSPACE")
    ):
        return False
    marks = ("plan.md", common.CONFIG_NAME, common.DEFAULT_STATE_DIR)
    return not any(map(os.path.exists, marks)) and not os.path.exists(
        common.find_loop(args).state_dir
    )


def _as_json(_name: str, loop: Loop, status: dict[str, Any], life: Life) -> dict[str, Any]:
    base: dict[str, Any] = {
        "name": loop.name,
        "workspace": loop.workspace,
        "state_dir": loop.state_dir,
        "state": None,
    }
    stale = None if life.stale_sec is None else round(life.stale_sec, 3)
    return base | status | {"alive": life.alive, "stale_sec": stale}


def _unreadable(loop: Loop) -> list[str]:
    path = os.path.join(loop.state_dir, "status.json")
    if not os.path.lexists(path) or common.read_status(loop.state_dir):
        return []
    return [f"{path} cannot be read as JSON; 'codex-self-iter history' reads the journal instead."]


def _how_to_start() -> list[str]:
    return [
        "Start one: codex-self-iter --workspace DIR   (codex-self-iter init writes a plan to begin with)"
    ]
