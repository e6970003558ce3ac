"""What the pages say: from what the sources read to the fields of the templates.

Nothing here knows of requests. Everything blocks a little and is called in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from codex_self_iter.core.foreign import as_dict, as_text
from codex_self_iter.core.text import clean, money, shorten, tokens, took
from codex_self_iter.errors import CodexSelfIterError, StorageError, UsageError
from codex_self_iter.screens import records, sources
from codex_self_iter.screens.loops import Target
from codex_self_iter.screens.outputs import Run, runs, with_ends
from codex_self_iter.screens.page.pages import render
from codex_self_iter.screens.records import Placed
from codex_self_iter.screens.sources import Shown
from codex_self_iter.views import plots, series
from codex_self_iter.views.digest import LoopDigest
from codex_self_iter.views.lane_rows import rows as rows_of_lanes
from codex_self_iter.views.lane_rows import summed
from codex_self_iter.views.notice import page_key
from codex_self_iter.views.plan_view import around_next
from codex_self_iter.views.rows import COLUMNS, Row, Urgency
from codex_self_iter.views.summary import View, inbox
from codex_self_iter.views.timeline import Iteration, iteration, iterations
from codex_self_iter.views.troubles import Trouble, troubles

SHORT, LONG = 20, 100
"""Iterations on a loop's page, and on a page of its history."""
MESSAGES = 20
PLAN_ITEMS = 400
"""Of a plan on a loop's page: a browser takes 15 seconds over 45,000."""
PLOTTED = 10_000
"""The newest iterations that are plotted."""
MOST_GATES = 6
"""Gates whose durations are plotted."""
MOST_DIFF_LINES = 4000
DIFF_KINDS = (("+++", ""), ("---", ""), ("+", "added"), ("-", "removed"), ("@@", "place"))

Facts = dict[str, Any]


def key_of(loop: Target) -> str:
    """What a loop is called in addresses."""
    return page_key(loop.state_dir)


class Known:
    """All loops, for many threads: looked at again when the last look is old."""

    FRESH_SEC = 0.5

    def __init__(self, named: Sequence[Target] = ()) -> None:
        """`named`: see `sources.Loops`."""
        self._loops = sources.Loops(named)
        self._lock = threading.Lock()
        self._at = float("-inf")
        self._cards: dict[str, tuple[Shown, Markup]] = {}
        self.changes = 0
        """How often any line was another one than before."""

    def shown(self) -> list[Shown]:
        """Every loop, the most urgent first."""
        with self._lock:
            if time.monotonic() - self._at > self.FRESH_SEC:
                self.changes += self._loops.refresh()
                self._at = time.monotonic()
            return list(self._loops.shown)

    def board(self) -> Facts:
        """All loops in columns. A card is made anew when its loop was looked at anew."""
        columns: dict[str, list[Markup]] = {name: [] for name in COLUMNS}
        old, cards = self._cards, {}
        for one in self.shown():
            place = one.loop.state_dir
            kept = old.get(place)
            if kept is None or kept[0] is not one:
                kept = one, Markup(render("card.html", {"row": _card(one)}))  # noqa: S704 - escaped
            cards[place] = kept
            columns[one.row.column].append(kept[1])
        self._cards = cards
        needy = len(columns["needs you"])
        what = f"{needy} need you" if needy > 1 else "1 needs you" if needy else "Loops"
        return {"columns": [{"name": n, "cards": c} for n, c in columns.items()], "title": what}

    def find(self, key: str) -> Shown | None:
        """A loop, as it is now."""
        found = next((one for one in self.shown() if key_of(one.loop) == key), None)
        return sources.show(found.name, found.loop) if found else None


def digest(loops: Sequence[LoopDigest]) -> Facts:
    """What happened in each, and which are at rest."""
    told = [
        {
            **one._asdict(),
            "done": one.done,
            "spent": one.spent,
            "trouble": one.trouble and _trouble(one.trouble),
        }
        for one in loops
        if not one.at_rest
    ]
    return {"loops": told, "rest": ", ".join(one.row.name for one in loops if one.at_rest)}


def _trouble(one: Trouble) -> Facts:
    return {**one._asdict(), "urgent": one.urgency is Urgency.NEEDS_YOU}


def _card(one: Shown) -> Facts:
    urgent = [t for t in troubles(one.seen, one.around) if t.urgency <= Urgency.STUCK]
    spent = [tokens(one.row.tokens) + " tokens"] if one.row.tokens else []
    spent += [money(one.row.cost_usd)] if one.row.cost_usd else []
    return {
        **one.row._asdict(),
        "id": key_of(one.loop),
        "spent": ", ".join(spent),
        "why": urgent[0].words if urgent and one.row.urgency is Urgency.STUCK else "",
        "mend": urgent[0].mend if urgent else "",
    }


def now(one: Shown) -> Facts:
    """What a loop does, what is wrong with it, and the facts beside it."""
    view = View(one.seen, one.around)
    rows = {
        "workspace": [one.row.workspace],
        "supervisor": [_supervisor(one)],
        "goal": [as_text(one.seen.status.get("goal"))],
        "inbox": inbox(one.seen),
        "lanes": [summed(one.seen.status)],
        "agent": view.agent(),
        "usage": [view.usage()],
        "disk": [view.disk()],
    }
    found = troubles(one.seen, one.around)
    needy = one.row.urgency is Urgency.NEEDS_YOU
    return {
        "row": one.row,
        "title": f"{one.row.name} needs you" if needy else one.row.name,
        "base": base(one),
        "troubles": [_trouble(one) for one in found],
        "lanes": rows_of_lanes(one.seen.status),
        "facts": [(k, [clean(t) for t in texts if t]) for k, texts in rows.items() if any(texts)],
    }


def _supervisor(one: Shown) -> str:
    """Nothing that changes with the clock: the page counts the seconds itself."""
    ended = as_dict(one.seen.status.get("exit"))
    if one.seen.life.alive:
        return f"alive, pid {one.seen.life.pid}"
    return f"ended: exit {ended.get('code')}" if ended else "none"


def messages(one: Shown) -> Facts:
    """What was written to it, the newest first."""
    found = sources.messages(one.loop.state_dir)[::-1]
    return {"messages": found[:MESSAGES], "base": base(one)}


def base(one: Shown) -> str:
    """Where a loop's pages are."""
    return f"/loop/{key_of(one.loop)}"


def plan(one: Shown) -> Facts:
    """The plan with its ticks; of a long one what is around the next item."""
    shown = sources.plan(one.seen)
    before, items, after = around_next(shown.lines, PLAN_ITEMS)
    rest = f"codex-self-iter plan show{one.around.where}"
    left_out = {"items_before": before, "items_after": after, "all_items": rest}
    return {"plan": items, "no_plan": shown.flaw, "base": base(one), **left_out}


def history(one: Shown, placed: Sequence[Placed], count: int) -> Facts:
    """Iterations, the newest first; `more`: the mark before which there are older ones."""
    done = iterations(line.record for line in placed)[::-1]
    more = placed[0].mark if len(placed) >= count and done and done[-1].number > 1 else ""
    return {"done": done, "more": more, "last": done[0] if done else None, "base": base(one)}


def latest(one: Shown, count: int = SHORT) -> list[Placed]:
    """The last iterations; none where the journal cannot be read, which `now` says."""
    try:
        return records.latest(one.loop.state_dir, count)
    except StorageError:
        return []


def drawn(done: Sequence[Iteration]) -> Facts:
    """Plots: by title, pictures with their labels."""
    gates = series.gate_times(done)[:MOST_GATES]
    pictures = (
        (
            "Iterations by verdict",
            [("", plots.stacked(series.verdicts(done), "iterations by verdict"))],
        ),
        ("Tokens a day", [("", plots.columns(series.tokens_by_day(done), "tokens a day", tokens))]),
        ("Money a day", [("", plots.columns(series.money_by_day(done), "money a day", money))]),
        (
            "Time by state",
            [("", plots.shares(series.seconds_by_state(done), "time by state", took))],
        ),
        ("Gates", [(gate.command, plots.durations(gate, took)) for gate in gates]),
    )
    return {"plots": [(title, [(a, _safe(p)) for a, p in all_ if p]) for title, all_ in pictures]}


def _safe(picture: str) -> Any:
    return Markup(picture)  # drawn by `views.plots`, which escapes what it writes  # noqa: S704


def plotted(one: Shown) -> Facts:
    """The plots of all iterations."""
    done = iterations(line.record for line in latest(one, PLOTTED))
    return {**drawn(done), "name": one.row.name, "base": base(one)}


def one_iteration(one: Shown, number: int) -> Facts:
    """Everything that is kept of an iteration. Raises UsageError where it is not recorded."""
    state_dir = one.loop.state_dir
    record = records.find(state_dir, number)
    it = iteration(record)
    changes, missing = diff(one, number)
    cut = f"Cut after {MOST_DIFF_LINES} lines: codex-self-iter diff{one.around.where} {number}"
    rows = {
        "goal": it.goal,
        "summary": it.summary,
        "error": it.error,
        "next goal": it.next_goal,
        "agent": ", ".join(filter(None, (it.agent, it.model))),
        "tokens": "" if it.tokens is None else tokens(it.tokens),
        "cost": "" if it.cost_usd is None else money(it.cost_usd),
        "commit": it.commit,
        "then": it.waited,
    }
    return {
        "one": it,
        "name": one.row.name,
        "base": base(one),
        "newest": one.row.iteration,
        "facts": [(label, text) for label, text in rows.items() if text],
        "changes": changes[:MOST_DIFF_LINES],
        "cut": cut if len(changes) > MOST_DIFF_LINES else "",
        "no_changes": missing,
        "answers": sources.answers_of(state_dir, number),
        "prompts": sources.prompts_of(state_dir, number),
        "runs": [r for r in with_ends(runs(state_dir), state_dir) if r.iteration == number],
    }


def diff(one: Shown, number: int) -> tuple[list[tuple[str, str]], str]:
    """(kind, line) of what an iteration changed; or why there is nothing to show."""
    try:
        text = sources.diff(one.loop, str(number))
    except CodexSelfIterError as error:
        return [], shorten(str(error), 300)
    return diff_lines(text), "It changed nothing."


def diff_lines(text: str) -> list[tuple[str, str]]:
    """(kind, line): added, removed, place, or "" for all else."""
    return [
        (next((kind for start, kind in DIFF_KINDS if line.startswith(start)), ""), line)
        for line in text.splitlines()
    ]


def run_named(one: Shown, name: str) -> Run:
    """A run by its name, out of those that are there. Raises UsageError for any other."""
    # looked for, not joined: no name leads out of the directory of the runs
    found = next((run for run in runs(one.loop.state_dir) if run.name == name), None)
    if found is None:
        raise UsageError("the output of that run is not kept")
    return with_ends([found], one.loop.state_dir)[0]


def number(text: str | None, what: str) -> int | None:
    """A number in an address, None where there is none. Raises UsageError for anything else."""
    if text is None or (text.isascii() and text.isdigit() and len(text) < 16):
        return None if text is None else int(text)
    raise UsageError(f"{what}: expected a number")


def settings(one: Shown) -> Facts:
    """The configuration as its files say it, secrets masked."""
    from codex_self_iter.settings import load
    from codex_self_iter.settings.effective import values  # pydantic: only where it is asked for

    told: Facts = {"name": one.row.name, "base": base(one), "flaw": "", "files": "none"}
    try:
        found = load(
            {"workspace": one.loop.workspace}, config_file=one.loop.config or None, environ={},
            cwd=one.loop.workspace,
        )  # fmt: skip
    except CodexSelfIterError as error:
        return {**told, "flaw": str(error), "settings": []}
    keys = [{"key": k, "value": v, "origin": o} for k, v, o in values(found)]
    return {**told, "files": ", ".join(map(str, found.sources)) or "none", "settings": keys}


def exported(one: Shown) -> Facts:
    """One loop as one file."""
    done = iterations(line.record for line in latest(one, PLOTTED))
    return {
        **now(one),
        **plan(one),
        **drawn(done),
        "done": done[::-1],
        "at": time.time(),
    }


def row_fields(one: Shown) -> Facts:
    """A loop's line as the API has it."""
    row: Row = one.row
    return {
        "id": key_of(one.loop),
        "name": row.name,
        "workspace": row.workspace,
        "state": row.state,
        "urgency": row.urgency.name.lower(),
        "column": row.column,
        "doing": row.doing,
        "since": row.since,
        "until": row.until,
        "iteration": row.iteration,
        "plan": {"done": row.done, "total": row.total},
        "tokens": row.tokens,
        "cost_usd": row.cost_usd,
        "agent": row.agent,
        "warnings": row.warnings,
        "alive": one.seen.life.alive,
    }


def fields(one: Iteration) -> Facts:
    """An iteration as the API has it."""
    gates = [{**gate._asdict(), "items": list(gate.items)} for gate in one.gates]
    return {**one._asdict(), "gates": gates, "files": list(one.files)}
