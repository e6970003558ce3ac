"""One loop as one line among all: the list of the board, the columns of the page.

What is most urgent comes first. Everything comes from `status.json` and the supervisor's life, and
nothing from what agents print: a compiler's "error" is no trouble of a loop."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

from codex_self_iter.core.foreign import as_dict, as_int, as_list, as_number, as_text
from codex_self_iter.core.text import clean, epoch, shorten
from codex_self_iter.views import lane_rows as lanes
from codex_self_iter.views.summary import QUIET_SEC, Seen, Surroundings, View

STUCK_TIMES = 3
"""So often in a row the same trouble makes a working loop look stuck; once or twice is usual."""
_REPEATED = ("consecutive_errors", "no_change", "gate_failures", "same_goal")


class Urgency(enum.IntEnum):
    """How soon a person should look, the most urgent first."""

    NEEDS_YOU = 1
    """It does not go on, or not well, without a person."""
    STUCK = 2
    """It works, and shows signs of going nowhere."""
    WAITING = 3
    """It waits for a time that is known."""
    PAUSED = 4
    WORKING = 5
    DONE = 6
    NOT_STARTED = 7


URGENCIES = {
    Urgency.NEEDS_YOU: "needs you",
    Urgency.STUCK: "stuck?",
    Urgency.WAITING: "waiting",
    Urgency.PAUSED: "paused",
    Urgency.WORKING: "working",
    Urgency.DONE: "done",
    Urgency.NOT_STARTED: "not started",
}
"""What each is called, in order."""

COLUMNS = ("needs you", "working", "proving", "waiting", "done")
"""Of the page, from left to right."""

_NEEDS_YOU = (
    "orphan", "unreadable", "gone", "not responding", "blocked", "stagnated", "crashed",
)  # fmt: skip
_WAITS = ("limited", "backoff", "cooldown")


class Row(NamedTuple):
    """What one line says of a loop. Every text is clean, and all but `workspace` are of one line.

    Attributes:
        name: unique among the loops of this user; state_dir: what tells it from every other.
        state, colour: a word or two, and "green", "yellow" or "red": what needs a person is red,
            what may be stuck is not green.
        doing: what it does now, waits for, or why it has ended.
        since, until: Unix seconds; when the state began, and when a wait ends.
        done, total: items of the plan; 0 of 0 without one.
        tokens, cost_usd: spent since the loop exists; 0 where nothing is known.
        warnings: how many there are."""

    name: str
    state_dir: str
    workspace: str
    state: str
    colour: str
    urgency: Urgency
    doing: str
    since: float | None
    until: float | None
    iteration: int
    done: int
    total: int
    tokens: float
    cost_usd: float
    agent: str
    warnings: int

    @property
    def column(self) -> str:
        """One of COLUMNS."""
        match self.urgency:
            case Urgency.NEEDS_YOU | Urgency.DONE:
                return URGENCIES[self.urgency]
            case Urgency.WAITING | Urgency.PAUSED | Urgency.NOT_STARTED:
                return "waiting"
        if self.state == "verifying":
            return "proving"
        return "waiting" if self.state in _WAITS else "working"


def row(name: str, seen: Seen, around: Surroundings) -> Row:
    """The line of a loop; `name` as it is told from the others."""
    status, plan = seen.status, as_dict(seen.status.get("plan"))
    state, colour = seen.state()
    urgent = urgency(seen)
    if urgent <= Urgency.STUCK:  # whatever the state alone would be
        colour = "red" if urgent is Urgency.NEEDS_YOU else "yellow"
    usage = as_dict(status.get("usage"))
    wait = as_dict(status.get("wait"))
    return Row(
        name=shorten(name, 80),
        state_dir=seen.state_dir,
        workspace=clean(seen.workspace),
        state=state,
        colour=colour,
        urgency=urgent,
        doing=shorten(doing(seen, around), 300),
        since=epoch(status.get("since")),
        until=epoch(wait.get("until") or status.get("until")),
        iteration=as_int(status.get("iteration")),
        done=as_int(plan.get("done")),
        total=as_int(plan.get("total")),
        tokens=as_number(usage.get("tokens")),
        cost_usd=as_number(usage.get("cost_usd")),
        agent=shorten(as_text(status.get("agent")), 40),
        warnings=len(as_list(status.get("warnings"))),
    )


def urgency(seen: Seen) -> Urgency:
    """How soon a person should look at a loop."""
    state = seen.state()[0]
    if state in _NEEDS_YOU or asks(seen) or lanes.needy(seen.status):
        return Urgency.NEEDS_YOU
    if state in ("completed", "stopped"):
        return Urgency.DONE
    if state == "not started":
        return Urgency.NOT_STARTED
    if state == "paused":
        return Urgency.PAUSED
    if state != "limited" and stuck(seen):
        return Urgency.STUCK
    return Urgency.WAITING if state in _WAITS else Urgency.WORKING


def asks(seen: Seen) -> bool:
    """Whether its agent has ended the loop to have a person decide or do something."""
    last = as_dict(seen.status.get("last"))
    ended = seen.status.get("state") in ("stopped", "blocked") and not seen.life.alive
    return ended and last.get("verdict") == "stop"


def stuck(seen: Seen) -> bool:
    """Whether a loop that works or waits shows more than a passing trouble."""
    run, counters = as_dict(seen.status.get("run")), as_dict(seen.status.get("counters"))
    repeated = any(as_number(counters.get(key)) >= STUCK_TIMES for key in _REPEATED)
    return repeated or quiet(seen) or bool(run.get("retrying"))


def quiet(seen: Seen) -> bool:
    """Whether its agent has shown no sign of life for long."""
    return as_number(as_dict(seen.status.get("run")).get("idle_sec")) >= QUIET_SEC


def doing(seen: Seen, around: Surroundings) -> str:
    """What a loop does now, waits for, or why it has ended, in one line."""
    view, status = View(seen, around), seen.status
    state = seen.state()[0]
    run, reason = as_dict(status.get("run")), as_text(status.get("reason"))
    match state:
        case "unreadable":
            return seen.flaw
        case "orphan":
            return view.orphan()
        case "gone" | "not responding":
            return view.supervisor()
        case "not started":
            return "nothing has run here yet"
        case "running" if run.get("waiting_for"):
            return f"waits for {as_text(run['waiting_for'])}"
        case "running" if told := lanes.summed(status):
            return told
        case "running" | "starting":
            return as_text(status.get("goal")) or reason or "starts from the plan"
    ended = as_dict(status.get("exit"))
    if ended and not seen.life.alive:
        return as_text(ended.get("reason")) or as_text(ended.get("state"))
    return view.wait() or reason


def ranked(rows: Iterable[Row]) -> list[Row]:
    """The most urgent first; among equals who has needed a person longest, whose wait is over
    soonest, what has ended last; then by name."""

    def place(one: Row) -> tuple[int, float, str]:
        by = {
            Urgency.NEEDS_YOU: one.since or 0.0,
            Urgency.STUCK: one.since or 0.0,
            Urgency.WAITING: one.until or float("inf"),
            Urgency.DONE: -(one.since or 0.0),
        }
        return one.urgency, by.get(one.urgency, 0.0), one.name

    return sorted(rows, key=place)


def counts(rows: Iterable[Row]) -> dict[Urgency, int]:
    """How many of each urgency there are, the most urgent first; none is left out."""
    found = dict.fromkeys(URGENCIES, 0)
    for one in rows:
        found[one.urgency] += 1
    return found
