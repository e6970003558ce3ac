"""`lanes`: what each lane works on and how far it is; keep, drop or retry one, or look closer."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator

from codex_self_iter.cli import _common, _controls
from codex_self_iter.cli._terminal import Paint, width
from codex_self_iter.core.lanes import Lane, Lanes, Wish, active
from codex_self_iter.core.text import clean, listed, typed
from codex_self_iter.errors import ExitCode, UsageError
from codex_self_iter.screens import lane_records, steering
from codex_self_iter.screens.loops import Target
from codex_self_iter.views import lane_rows as view
from codex_self_iter.views.lane_rows import LaneRow

ACTIONS = (*(one.value for one in Wish), "show")
_MOST_IDS = 40
"""Lanes that are named where one is not known."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = (
        "keep: leave a lane as it is; drop: end it, its commits stay as a ref; "
        "retry: begin again what needs you, was kept or dropped, or take a wish back; show: all about one lane"
    )
    parser.usage = "%(prog)s [options] [NAME] [keep|drop|retry|show LANE ...]"
    metavar = "keep|drop|retry|show LANE"
    parser.add_argument("words", nargs="*", metavar=metavar, help=what)
    parser.add_argument("--all", action="store_true", help="those that have landed or ended, too")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    _common.add_loop_arguments(parser, name=False)


def run(args: argparse.Namespace) -> int:
    """Print the table or one lane, or leave a request. Raises UsageError."""
    words = list(args.words)
    if words and words[0] not in ACTIONS:
        words = _common.name_first(args, words)
    if not words:
        return _list(args)
    action, ids = words[0], words[1:]
    if action not in ACTIONS:
        from codex_self_iter.cli import nearest

        near = nearest(action, ACTIONS)
        hint = f" (did you mean {near!r}?)" if near else ""
        raise UsageError(f"expected {', '.join(ACTIONS)} after 'lanes', not {action!r}{hint}")
    _common.goes_with(args, False, "the table", "all")
    if action == "show":
        if len(ids) != 1:
            raise UsageError(f"expected one lane after 'lanes show', not {len(ids)}")
        return _show(args, ids[0])
    _common.goes_with(args, False, "the table or show", "json")
    if not ids:
        raise UsageError(f"name the lanes to {action}: codex-self-iter lanes {action} LANE ...")
    return _ask(args, Wish(action), ids)


# -- the table -------------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    loop = _common.find_loop(args)
    state = lane_records.read(loop)
    chosen = list(active(state))
    if args.all:
        chosen = sorted(state.lanes, key=lambda one: (one.number, one.candidate, one.since))
    if args.json:
        return _print(_as_json(loop, state, chosen))
    if not chosen:
        return _print(_nothing(state, everything=args.all))
    alive = steering.aim(loop).life.alive
    rows = [_row(loop, lane, alive) for lane in chosen]
    columns, paint = width() if sys.stdout.isatty() else 0, Paint()
    lines = [paint(text, style) for text, style in view.table(rows, time.time(), columns)]
    if state.held:
        lines.append(paint(f"What has landed is held back: {clean(state.held)}", "yellow"))
    return _print("\n".join(lines))


def _nothing(state: Lanes, *, everything: bool) -> str:
    if everything or not state.lanes:
        return "No lane has been begun yet."
    left = len(state.open_items)
    return f"No lane is open; items left: {left}. 'codex-self-iter lanes --all' shows those that are over."


def _row(loop: Target, lane: Lane, alive: bool) -> LaneRow:
    done = lane_records.iterations(loop.state_dir, lane.id, 1)
    told = view.of_lane(lane, loop.state_dir)
    goal = lane_records.goal(loop.state_dir, lane.id)
    row = view.row(told, lane_records.gates(lane, done), goal, alive=alive)
    return row._replace(next=f"landed as {lane.landed[:12]}") if lane.landed else row


def _as_json(loop: Target, state: Lanes, chosen: list[Lane]) -> str:
    alive = steering.aim(loop).life.alive
    value = {
        "schema": 1,
        "target": state.target,
        "held": state.held,
        "landing": list(state.landing.lanes) if state.landing else [],
        "left": len(state.open_items),
        "lanes": [_fields(loop, lane, alive) for lane in chosen],
    }
    return json.dumps(value, ensure_ascii=False, indent=2)


def _fields(loop: Target, lane: Lane, alive: bool) -> dict[str, object]:
    """A lane for programs."""
    row = _row(loop, lane, alive)
    more = (
        "candidate",
        "base",
        "tip",
        "landed",
        "left",
        "size",
        "tokens",
        "cost_usd",
        "hours",
        "wish",
    )
    return {
        **view.of_lane(lane, loop.state_dir),
        "gates": row.gates,
        "next": row.next,
        "ref": lane_records.ref(loop, lane),
        **{name: getattr(lane, name) for name in more},
    }


# -- one lane --------------------------------------------------------------------------------------


def _show(args: argparse.Namespace, which: str) -> int:
    loop = _common.find_loop(args)
    state = lane_records.read(loop)
    (lane,) = _lanes(state, [which])
    commits, changes = lane_records.work(loop, lane, state.target)
    done = lane_records.iterations(loop.state_dir, lane.id)
    about = view.About(
        events=lane_records.journal(loop.state_dir),
        iterations=done,
        goal=lane_records.goal(loop.state_dir, lane.id),
        gates=lane_records.gates(lane, done),
        commits=commits,
        changes=changes,
        ref=lane_records.ref(loop, lane),
        target=("codex-self-iter/landed/" * bool(state.held))
        + state.target.removeprefix("refs/heads/"),
        where=f" --workspace {typed(loop.workspace)}",
    )
    rows = view.shown(lane, about, time.time())
    if args.json:
        told = {label.replace(" ", "_"): lines for label, lines in rows}
        value = {
            "schema": 1,
            **_fields(loop, lane, steering.aim(loop).life.alive),
            "body": lane.body,
            "told": told,
        }
        return _print(json.dumps(value, ensure_ascii=False, indent=2))
    return _print("\n".join(_lines(lane, rows, Paint())))


def _lines(lane: Lane, rows: list[tuple[str, list[str]]], paint: Paint) -> Iterator[str]:
    yield paint(f"Lane {lane.id}", "bold")
    for label, lines in rows:
        shown = label
        for line in lines:
            yield f"  {paint(f'{shown:<11}', 'dim')}{line}"
            shown = ""


# -- what is asked ---------------------------------------------------------------------------------


def _ask(args: argparse.Namespace, wish: Wish, ids: list[str]) -> int:
    """Leave a request for each lane; none where one of them cannot be meant."""
    from codex_self_iter.world.state.lane_files import write_wish

    at = _controls.aim_at(args)
    state = lane_records.read(at.loop)
    lanes = _lanes(state, list(dict.fromkeys(ids)))
    for lane in lanes:
        if flaw := view.unfit(state, lane, wish.value):
            raise UsageError(flaw)
    for lane in lanes:
        write_wish(at.loop.state_dir, wish, lane.id)
    named = (
        f"lane {lanes[0].id}" if len(lanes) == 1 else f"lanes {listed([x.id for x in lanes], 40)}"
    )
    did = view.granted(wish.value, named)
    return _print(f"Asked. {steering.who_notices(at, did, f'the next start {did}')}")


def _lanes(state: Lanes, ids: list[str]) -> list[Lane]:
    """The lanes of these ids. Raises UsageError for one that is not there."""
    for which in ids:
        if state.lane(which) is None:
            known = sorted(state.lanes, key=lambda one: (one.number, one.candidate))
            there = listed([one.id for one in known], _MOST_IDS) or "none yet"
            raise UsageError(f"there is no lane {clean(which, 40)!r}; there are: {there}")
    return [lane for which in ids if (lane := state.lane(which)) is not None]


def _print(text: str) -> int:
    sys.stdout.write(text + "\n")
    return int(ExitCode.OK)
