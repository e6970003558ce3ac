"""Lanes as people see them: the field `lanes` of `status.json`, the table of the lanes, and all of
one of them. Pure.

Only light imports: `status` comes through here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from codex_self_iter.core.foreign import as_dict, as_int, as_list, as_number, as_text, as_words
from codex_self_iter.core.text import (
    age,
    clean,
    counted,
    cut,
    epoch,
    iso,
    listed,
    moment,
    money,
    shorten,
    tokens,
    typed,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from codex_self_iter.core.lanes import Lane, Lanes

REFS = "refs/codex-self-iter/lanes/"
"""Where the commits of lanes are kept, whatever becomes of their work trees."""
COLOURS = {
    "needs you": "red",
    "making": "yellow",
    "kept": "yellow",
    "lost": "dim",
    "dropped": "dim",
}
"""Of a lane's state; of every other one green."""
_AT_WORK = ("making", "working")
_RETURNED = {
    "conflict": "it conflicts with the target",
    "red": "the gates are red where it meets the target",
    "unchanged": "nothing was changed",
    "dirty": "changes were not committed",
    "asked": "its item was edited",
}
"""Why work came back, by the `kind` of the journal of lanes."""
_MOST = 3
"""Lanes that need a person and are told in one line."""


def mark(state_dir: str) -> str:
    """What tells the lanes of one loop from those of another with the same ids."""
    from hashlib import sha256

    return sha256(state_dir.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def ref(lane: str, state_dir: str) -> str:
    """Where the commits of a lane are kept. `state_dir`: of the loop with the lanes."""
    return f"{REFS}{mark(state_dir)}/{lane}"


# -- the field of status.json ----------------------------------------------------------------------


def told(state: Lanes, most: int, state_dir: str) -> dict[str, Any]:
    """The field `lanes` of `status.json`: those that are not over, in the order of their items.

    `most`: how many may be at work at once; `state_dir`: of the loop with the lanes."""
    from codex_self_iter.core.lanes import LaneState, active  # who only reads needs neither

    return {
        "most": most,
        "target": state.target,
        "held": state.held,
        "landing": list(state.landing.lanes) if state.landing else [],
        "landed": len(state.of(LaneState.LANDED)),
        "left": len(state.open_items),
        "lanes": [of_lane(one, state_dir) for one in active(state)],
    }


def of_lane(lane: Lane, state_dir: str) -> dict[str, Any]:
    """What `status.json` says of one lane."""
    return {
        "lane": lane.id,
        "number": lane.number,
        "item": lane.title,
        "state": lane.state.value,
        "since": iso(lane.since),
        "why": lane.why,
        "place": lane.place,
        "state_dir": f"{state_dir}/lanes/{lane.id}/state",
        "returns": lane.returns,
    }


# -- what is made of it ----------------------------------------------------------------------------


class LaneRow(NamedTuple):
    """One lane in a table. Every text is clean and of one line.

    Attributes:
        lane: its id; colour: of the state; since: Unix seconds, None where it is not known.
        gates: what its last gates said; next: what happens next, or the command that a person has.
    """

    lane: str
    item: str
    state: str
    colour: str
    since: float | None
    why: str
    place: str
    gates: str = ""
    next: str = ""


def row(
    lane: Mapping[str, object],
    gates: str = "",
    goal: str = "",
    where: str = "",
    *,
    alive: bool = True,
) -> LaneRow:
    """A lane by what `of_lane` or the status says of it. `goal`: of its loop; `where`: the option
    that names the loop with the lanes to a command, with a space before it, or ""; `alive`: its
    supervisor is."""
    which, state = as_text(lane.get("lane")), as_text(lane.get("state"))
    why = shorten(as_text(lane.get("why")), 300)
    command = f"codex-self-iter lanes {{}} {which}{where}"
    coming = {
        "making": why or "its work tree is made and set up",
        "working": why or goal or "its loop is begun",
        "ready": "waits for its turn to land",
        "landing": "the gates are run where it meets the target",
        "landed": "",
        "lost": why,
        "needs you": command.format("show"),
    }
    if not alive:
        later = "it goes on at the next start"
        coming |= dict.fromkeys((*_AT_WORK, "ready", "landing"), why or later)
    return LaneRow(
        lane=shorten(which, 40),
        item=shorten(as_text(lane.get("item")), 200),
        state=shorten(state, 20),
        colour=COLOURS.get(state, "green"),
        since=epoch(lane.get("since")),
        why=why,
        place=clean(as_text(lane.get("place"))),
        gates=shorten(gates, 60),
        next=shorten(coming.get(state, command.format("retry")), 300),
    )


def rows(status: Mapping[str, object]) -> list[LaneRow]:
    """The lanes of a loop that are not over, by its status; [] for a loop without."""
    return [row(as_dict(one)) for one in as_list(as_dict(status.get("lanes")).get("lanes"))]


def needy(status: Mapping[str, object]) -> list[LaneRow]:
    """The lanes that wait for a person."""
    return [one for one in rows(status) if one.state == "needs you"]


def held(status: Mapping[str, object]) -> str:
    """Why what has landed has not reached the target; "" where it has."""
    return shorten(as_text(as_dict(status.get("lanes")).get("held")), 300)


def summed(status: Mapping[str, object]) -> str:
    """How the lanes of a loop stand, in one line; "" for a loop without."""
    field = as_dict(status.get("lanes"))
    if not field:
        return ""
    states = [one.state for one in rows(status)]
    counts = (
        (sum(state in _AT_WORK for state in states), "open" if status.get("exit") else "at work"),
        (states.count("ready"), "ready"),
        (states.count("landing"), "landing"),
        (states.count("kept"), "kept"),
        (as_int(field.get("landed")), "landed"),
    )
    parts = [f"{count} {word}" for count, word in counts if count]
    line = ", ".join([*parts, f"{as_int(field.get('left'))} left"])
    asking = [f"lane {one.lane} needs you: {one.why}" for one in needy(status)]
    more = [f"{len(asking) - _MOST} more need you"] if len(asking) > _MOST else []
    beside = [f"what has landed is held back: {held(status)}"] if held(status) else []
    return "; ".join([line, *asking[:_MOST], *more, *beside])


def table(lanes: Sequence[LaneRow], now: float, width: int) -> Iterator[tuple[str, str]]:
    """Lines and their styles, a head first; `width` 0: as long as they are."""
    cells = [("LANE", "STATE", "SINCE", "GATES", "ITEM", "NEXT", "WORK TREE")]
    for one in lanes:
        since = "" if one.since is None else age(now - one.since)
        item, coming = shorten(one.item, 40), one.next
        if not coming.startswith("codex-self-iter "):  # a command is shown whole
            coming = shorten(coming, 44)
        cells.append((one.lane, one.state, since, one.gates or "-", item, coming, one.place or "-"))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    styles = ["bold", *(one.colour for one in lanes)]
    for line, style in zip(cells, styles, strict=True):
        text = "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip()
        yield cut(text, width) if width else text, style


# -- one lane --------------------------------------------------------------------------------------


class About(NamedTuple):
    """What is known of a lane beside the scheduler's state.

    Attributes:
        events: the journal of lanes, oldest first; iterations: the last ones of its own loop.
        goal, gates: of its loop; commits, changes: as git tells them; ref: it keeps the commits.
        target: the branch's short name; where: the option that names the loop with the lanes."""

    events: Sequence[Mapping[str, object]] = ()
    iterations: Sequence[Mapping[str, object]] = ()
    goal: str = ""
    gates: str = ""
    commits: str = ""
    changes: str = ""
    ref: str = ""
    target: str = ""
    where: str = ""


def shown(lane: Lane, about: About, now: float) -> list[tuple[str, list[str]]]:
    """Everything about a lane: labels and their lines, those of git as they are. A label without
    lines is left out."""
    state = lane.state.value
    used = [f"{tokens(lane.tokens)} tokens"] if lane.tokens else []
    used += [money(lane.cost_usd)] if lane.cost_usd else []
    used += [f"{age(lane.hours * 3600)} of agent runs"] if lane.hours else []
    found = [
        ("state", [f"{state}, since {moment(lane.since)} ({age(now - lane.since)})"]),
        ("why", [lane.why]),
        ("item", [f"{lane.number}. {lane.title}"]),
        ("asked", [f"to {lane.wish} it"] if lane.wish else []),
        ("came back", list(_returns(lane, about.events))),
        ("candidates", list(_compared(lane, about.events))),
        ("goal", [about.goal] if state in _AT_WORK else []),
        ("gates", [about.gates]),
        ("used", [", ".join(used)]),
        ("landed", [lane.landed]),
        ("ref", [about.ref]),
        ("work tree", [lane.place + (f" (not removed: {lane.left})" if lane.left else "")]),
        ("commits", about.commits.splitlines()),
        ("changes", [one.removeprefix(" ") for one in about.changes.splitlines()]),
        ("its loop", [_iteration(one) for one in about.iterations]),
        ("to mend it", list(_mending(lane, about)) if state == "needs you" else []),
    ]
    told = [(label, [clean(text) for text in lines if text]) for label, lines in found]
    return [(label, lines) for label, lines in told if lines]


def _returns(lane: Lane, events: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """When its work came back, and why."""
    for one in events:
        if one.get("event") == "returned" and one.get("lane") == lane.id:
            at, kind = epoch(one.get("ts")), as_text(one.get("kind"))
            when = "" if at is None else f"{moment(at)}  "
            text = as_text(one.get("text"))
            why = _RETURNED.get(kind, kind)
            yield shorten(f"{when}{why}{f': {text}' if text else ''}", 400)


def _compared(lane: Lane, events: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """How it was compared with the other lanes for its item."""
    for one in events:
        others = [as_dict(entry) for entry in as_list(one.get("candidates"))]
        if one.get("event") != "chosen" or all(entry.get("lane") != lane.id for entry in others):
            continue
        yield f"lane {as_words(one.get('lane'))} was chosen: the smallest of those that were done"
        for entry in others:
            size, why = as_number(entry.get("size")), as_words(entry.get("why"))
            told = f"lane {as_words(entry.get('lane'))}: {as_words(entry.get('state'))}"
            yield shorten(
                f"{told}, {counted(size, 'line')} changed{f' ({why})' if why else ''}", 300
            )


def _iteration(record: Mapping[str, object]) -> str:
    text = as_text(record.get("summary")) or as_text(record.get("error"))
    number, verdict = as_words(record.get("iteration")), as_words(record.get("verdict"))
    return shorten(f"#{number} {verdict}: {text}", 300)


def _mending(lane: Lane, about: About) -> Iterator[str]:
    """The commands that show what is wrong, and that go on."""
    if lane.place:
        yield f"cd {typed(lane.place)} && git status   (what is there)"
        onto = about.target or "the target"
        yield f"git merge {onto}   (what has landed since: mend what conflicts or is red, commit it)"
    yield f"codex-self-iter lanes retry {lane.id}{about.where}   (goes on from there)"


# -- what a person asks ----------------------------------------------------------------------------


def unfit(state: Lanes, lane: Lane, wish: str) -> str:
    """Why a wish has no meaning for a lane as it is; "" where it has."""
    from codex_self_iter.core.lanes import OVER, RESTING

    if wish != "retry":
        fits = lane.state not in OVER
    elif lane.state in RESTING | OVER:
        fits = lane.item in {one.key for one in state.open_items}
    else:
        fits = bool(lane.wish)  # what was asked for, and is not done yet, is taken back
    if fits:
        return ""
    whole = "that needs you, was kept, dropped or lost, and whose item is open"
    ways = {"retry": whole, "keep": "that is open", "drop": "that is open"}
    return f"lane {lane.id} is {lane.state.value}: only one {ways[wish]} can be {_DONE[wish]}"


_DONE = {"keep": "kept", "drop": "dropped", "retry": "tried again"}


def granted(wish: str, named: str) -> str:
    """What a supervisor does with a wish; `named`: the lanes."""
    return {
        "keep": f"keeps {named} once no iteration of it is on; nothing of it is landed or removed",
        "drop": f"ends {named} and removes the work tree; the commits stay below {REFS}",
        "retry": f"begins {named} again",
    }[wish]


# -- the report ------------------------------------------------------------------------------------


def section(state: Lanes) -> str:
    """Markdown for the report that is left at the end: what has landed, and what is left and why."""
    from codex_self_iter.core.lanes import LaneState, active

    landed = [
        f"- {_item(one.number, one.title)}: lane {one.id}, {one.landed[:12]}"
        for one in sorted(state.of(LaneState.LANDED), key=lambda one: (one.number, one.id))
    ]
    going: dict[int, list[str]] = {}
    for one in active(state):
        why = f" ({one.why})" if one.why else ""
        going.setdefault(one.number, []).append(f"lane {one.id} {one.state.value}{why}")
    left = [
        f"- {_item(one.number, one.title)}: {listed(going.get(one.number, ['not begun']))}"
        for one in state.open_items
    ]
    target = state.target.removeprefix("refs/heads/")
    parts = [
        f"Landed on {target}:" if target else "Landed:",
        "\n".join(landed) or "Nothing.",
        f"It has not reached {target or 'the target'} yet: {state.held}" if state.held else "",
        "Left:",
        "\n".join(left) or "Nothing.",
    ]
    return "\n\n".join(part for part in parts if part)


def card(
    state: Lanes, *, end: str, seconds: float, spent: str, begun: str, warnings: Sequence[str],
    report: str, where: str,
) -> str:  # fmt: skip
    """What a person is shown at the end of a foreground run.

    `end`: state and reason; `seconds`: how long the supervisor was at it; `begun`: the target's
    commit at the start; `where`: the option that names the loop to a command, or ""."""
    from codex_self_iter.core.lanes import RESTING, LaneState

    landed = state.of(LaneState.LANDED)
    target = state.target.removeprefix("refs/heads/")
    done = len(state.items) - len(state.open_items)
    returns = sum(one.returns for one in state.lanes)
    came = f", {counted(returns, 'time')} work came back" if returns else ""
    rows = [
        ("time", f"{age(seconds)}, {counted(len(state.lanes), 'lane')}{came}"),
        ("spent", spent),
        (
            "done",
            f"{done} of {counted(len(state.items), 'item')}, {len(landed)} landed on {target}",
        ),
        *(("needs you", f"lane {one.id}: {one.why}") for one in state.of(*RESTING)),
        *([("held", state.held)] if state.held else []),
        *(("warning", shorten(text, 200)) for text in warnings[:_MOST]),
        ("look", f"codex-self-iter lanes --all{where}"),
        *([("look", f"git log --first-parent {begun[:12]}..{target}")] if landed else []),
        ("look", report),
    ]
    labels = ["", *(name for name, _ in rows)]
    told = (
        f"  {name * (name != labels[n]):<10}{clean(text)}" for n, (name, text) in enumerate(rows)
    )
    return "\n".join([clean(shorten(end, 300)), *told])


def _item(number: int, title: str) -> str:
    return f"{number}. {shorten(title, 160)}"
