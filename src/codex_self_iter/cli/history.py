"""`history`: the iterations as a table, the newest last."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable

from codex_self_iter.cli import _common
from codex_self_iter.cli._terminal import Paint, width
from codex_self_iter.core.foreign import as_list, as_number
from codex_self_iter.core.text import clean, epoch, shorten, took
from codex_self_iter.errors import ExitCode, UsageError
from codex_self_iter.screens.records import newest
from codex_self_iter.views.summary import clock
from codex_self_iter.views.timeline import Record, colour, spent, summed_up

VERDICTS = (
    "continue", "no_change", "completed", "claim_rejected", "awaiting_confirmation", "stop", "planner_stop",
    "continue_false", "error", "timed_out", "limited", "aborted", "interrupted",
)  # fmt: skip
LIMIT = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _common.add_loop_arguments(parser)
    add("--json", action="store_true", help="the journal's lines, one JSON object a line")
    add("--verdict", action="append", default=[], metavar="V", help="only this verdict; repeatable")
    add("--since", metavar="WHEN", help="an iteration's number, a date, or 90m, 12h, 7d ago")
    number = _common.positive_int
    add("--limit", type=number, metavar="N", help=f"at most N (default: {LIMIT})")


def run(args: argparse.Namespace) -> int:
    """Print the newest iterations that fit."""
    fits = _filter(args)
    loop = _common.find_loop(args)
    limit = args.limit or LIMIT
    records = newest(loop.state_dir, limit + 1, fits)
    more, records = len(records) > limit, records[-limit:]
    if args.json:
        sys.stdout.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    elif records:
        sys.stdout.write("\n".join(_table(records, Paint(), width())) + "\n")
    else:
        what = "No iteration fits" if fits else "No iteration is recorded"
        sys.stdout.write(f"{what} in {loop.state_dir}{_of_lanes(loop.state_dir)}.\n")
    if more and not args.limit:
        sys.stdout.flush()
        sys.stderr.write(f"(the last {limit}; there are older ones: --limit N)\n")
    return int(ExitCode.OK)


def _of_lanes(state_dir: str) -> str:
    """Where the iterations of a loop with lanes are, "" for another."""
    if not os.path.isfile(os.path.join(state_dir, "lanes.json")):
        return ""
    return "; each lane has its own: codex-self-iter lanes show LANE"


def _filter(args: argparse.Namespace) -> Callable[[Record], bool] | None:
    """What --verdict and --since ask for. Raises UsageError."""
    from codex_self_iter.cli import nearest

    for verdict in args.verdict:
        if verdict not in VERDICTS:
            near = nearest(verdict, VERDICTS)
            hint = f" (did you mean {near!r}?)" if near else ""
            raise UsageError(f"unknown verdict {verdict!r}{hint}; there are: {', '.join(VERDICTS)}")
    first, since = _since(args.since) if args.since else (0, 0.0)
    if not (args.verdict or args.since):
        return None

    def fits(record: Record) -> bool:
        late = not since or (epoch(record.get("ts")) or 0.0) >= since
        meant = not args.verdict or record.get("verdict") in args.verdict
        return late and meant and record["iteration"] >= first

    return fits


def _since(text: str) -> tuple[int, float]:
    """(first iteration, earliest Unix time) of --since. Raises UsageError."""
    if text.isascii() and text.isdigit():
        return int(text), 0.0
    return 0, _common.moment_of(text, "a number, ")


def _table(records: list[Record], paint: Paint, columns: int) -> list[str]:
    now = time.time()
    rows = [("#", "WHEN", "VERDICT", "TOOK", "TOKENS", "COST", "FILES", "SUMMARY")]
    for record in records:
        when = epoch(record.get("ts"))
        shown = "" if when is None else clock(when, now)
        verdict = clean(str(record.get("verdict") or ""), 30)
        kind = clean(str(record.get("failure_class") or ""), 30)
        lasted = took(as_number(record.get("duration_sec")))
        files = str(len(as_list(record.get("changed_files"))) or "")
        text = summed_up(record)
        told = f"{verdict} ({kind})" if kind else verdict
        rows.append((str(record["iteration"]), shown, told, lasted, *spent(record), files, text))
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    head = "  ".join(f"{cell:<{w}}" for cell, w in zip(rows[0], [*widths, 0], strict=True))
    lines = [paint(head, "bold")]
    for row in rows[1:]:
        cells = [f"{cell:<{w}}" for cell, w in zip(row[:7], widths, strict=True)]
        room = max(20, columns - sum(widths) - 14)
        cells[2] = paint(cells[2], colour(row[2].partition(" ")[0]))
        lines.append("  ".join([*cells, shorten(row[7], room)]).rstrip())
    return lines
