"""`status`: is it alive, what is it doing, since when, until when, is it stuck, what did it cost."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from codex_self_iter.cli import _common
from codex_self_iter.cli._terminal import Paint, width
from codex_self_iter.core.foreign import as_text
from codex_self_iter.core.text import shorten, typed
from codex_self_iter.errors import UsageError
from codex_self_iter.screens.loops import CONFIG_NAME, Target, known, look, waiting
from codex_self_iter.views.summary import Seen, Surroundings, inbox, render, table

HOW_TO_START = "Start one: codex-self-iter --workspace DIR   (codex-self-iter init writes a plan to begin with)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _common.add_loop_arguments(parser)
    add("--all", action="store_true", help="a table of all loops of this user")
    add("--json", action="store_true", help="status.json, and what it cannot know")
    add("-w", "--watch", action="store_true", help="redraw until interrupted")
    help_ = "for --watch (default: 1)"
    add("--interval", type=_common.seconds, metavar="SEC", help=help_)


def run(args: argparse.Namespace) -> int:
    """Print the screen, the table or the JSON; with --watch again and again."""
    if args.interval == 0:
        raise UsageError("--interval must be above 0")
    _common.goes_with(args, args.watch, "--watch", "interval")
    named = [name for name in ("loop", "workspace", "state_dir", "config") if getattr(args, name)]
    if args.all and named:
        raise UsageError("--all shows every loop: leave the one that you name out, or --all")
    show = _watch if args.watch else _once
    show(args, Paint())
    return 0


def _once(args: argparse.Namespace, paint: Paint) -> None:
    sys.stdout.write("\n".join(_lines(args, paint)) + "\n")
    sys.stdout.flush()


def _watch(args: argparse.Namespace, paint: Paint) -> None:
    """Redraw in place on a terminal; elsewhere print a block when more than the clock changed."""
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
        time.sleep(args.interval or 1.0)


def _fingerprint(args: argparse.Namespace) -> object:
    """What must differ for another block: not the heartbeat, not an age."""
    moving = ("updated_at", "run", "disk", "usage")
    return [
        (
            {k: v for k, v in one.status.items() if k not in moving},
            one.life.alive,
            one.life.late,
            one.waiting,
        )
        for _, one in _chosen(args)
    ]


def _lines(args: argparse.Namespace, paint: Paint) -> list[str]:
    rows, now = _chosen(args), time.time()
    many = _wants_table(args)
    forgets = args.all and not args.json
    gone = [(name, seen) for name, seen in rows if forgets and seen.gone and not seen.life.alive]
    rows = [row for row in rows if row not in gone]
    if args.json:
        values = [_as_json(seen) for _, seen in rows]
        indent = None if args.watch else 2
        return [json.dumps(values if many else values[0], ensure_ascii=False, indent=indent)]
    if many:
        nothing = ["No loop of this user is known.", HOW_TO_START]
        columns = width() if sys.stdout.isatty() else 0
        lines = table(rows, now, paint, columns) if rows else nothing
        meant = "" if args.all else _common.did_you_mean(os.curdir)
        part = [f"This is a part of a loop's workspace: {meant}"] if meant else []
        return [*lines, *(f"Forgotten: {name}, {seen.flaw}." for name, seen in gone), *part]
    seen = rows[0][1]
    if not seen.status and not seen.life.alive:
        meant = _common.did_you_mean(seen.workspace)
        return [
            *(_unreadable(seen) or [f"No loop has run in {seen.workspace} yet."]),
            *_left(seen),
            meant or _how_to_start(seen),
        ]
    stop = _is_there(seen, "stop_file") or _is_there(seen, "global_stop_file")
    lost = not os.path.isdir(seen.workspace)
    where = f" --state-dir {typed(seen.state_dir)}" if lost else _where(seen)
    around = Surroundings(
        now, where, gone=lost, stop=stop, pause=_is_there(seen, "pause_file"),
        bar="█░" if paint.unicode else "#.", config=as_text(seen.status.get("config")),
    )  # fmt: skip
    return [*render(seen, around, paint, width()), *_unreadable(seen)]


def _chosen(args: argparse.Namespace) -> list[tuple[str, Seen]]:
    """(display name, loop) of every loop that is to be shown."""
    if several := _configured(args):
        return [(loop.name, _look(loop)) for loop in several]
    if not _wants_table(args):
        target = _common.named_loop(args)
        there = os.path.isdir(target.state_dir)  # else all loops need not be read
        had = not there and any(target.state_dir == loop.state_dir for _, loop in known())
        return [(target.name, _look(target, had=had))]
    forget = args.all and not args.json
    return [(name, _look(loop, had=True)) for name, loop in known(forget=forget)]


def _configured(args: argparse.Namespace) -> list[Target]:
    """The loops that a configuration with several names, where no single one is named."""
    named = args.all or args.loop or args.workspace or args.state_dir
    if named or os.environ.get("CODEX_SELF_ITER_WORKSPACE"):
        return []
    several = _common.config_loops(args.config or "")
    return several if len(several) > 1 else []


def _look(target: Target, *, had: bool = False) -> Seen:
    seen = look(target, had=had)
    seen.waiting = waiting(target.state_dir)
    return seen


def _left(seen: Seen) -> list[str]:
    """What the first start will find in the inbox."""
    return [f"In the inbox: {shorten(line, width() - 14)}" for line in inbox(seen)]


def _where(seen: Seen) -> str:
    if os.path.realpath(seen.workspace) == os.path.realpath(os.curdir):
        return ""
    return f" --workspace {typed(seen.workspace)}"


def _how_to_start(seen: Seen) -> str:
    where = _where(seen)
    here, own = seen.workspace, seen.state_dir
    begin = (f"{here}/plan.md", f"{here}/{CONFIG_NAME}", f"{own}/plan.md")
    if any(map(os.path.lexists, begin)):
        return f"Start it: codex-self-iter run{where}"
    what = f"(codex-self-iter init{where} writes a plan to begin with)"
    return f'Start one: codex-self-iter run{where} "what is wanted"   {what}'


def _is_there(seen: Seen, sentinel: str) -> bool:
    path = seen.status.get(sentinel)
    return isinstance(path, str) and os.path.lexists(path)


def _wants_table(args: argparse.Namespace) -> bool:
    """Asked for, or nothing was named and the current directory is no workspace of ours."""
    if args.all or _configured(args):
        return True
    named = args.loop or args.workspace or args.state_dir or args.config
    if named or os.environ.get("CODEX_SELF_ITER_WORKSPACE"):
        return False
    return _common.nowhere(_common.named_loop(args))


def _as_json(seen: Seen) -> dict[str, object]:
    stale = None if seen.life.stale_sec is None else round(seen.life.stale_sec, 3)
    orphan = seen.life.orphan or None
    life = {"alive": seen.life.alive, "stale_sec": stale, "orphan_pid": orphan}
    goal, messages = seen.waiting
    waiting = {"waiting_goal": goal, "waiting_messages": messages}
    return {**(seen.status or _nothing_yet(seen)), **life, **waiting}


def _nothing_yet(seen: Seen) -> dict[str, object]:
    """The status of a loop that has not been started: every field, what is not known null."""
    from codex_self_iter.core.state import LoopState  # heavy, and hardly ever needed
    from codex_self_iter.core.terms import Moment
    from codex_self_iter.views.status import Facts, status

    facts = Facts(0, seen.workspace, seen.state_dir, seen.name, "", "", 0.0, "")
    unknown = (
        "pid", "boot_id", "state", "since", "updated_at", "started_at", "mode", "agent", "log",
        "stop_file", "global_stop_file", "pause_file", "disk",
    )  # fmt: skip
    return status(LoopState(""), facts, Moment(0.0, 0.0, "")) | dict.fromkeys(unknown)


def _unreadable(seen: Seen) -> list[str]:
    return [f"{seen.flaw}."] if seen.flaw else []
