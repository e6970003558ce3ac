"""Lanes: several items of one plan at once, each by a loop in a work tree of its own; and the queue
that lands them on the target, one after the other.

The words of it: lanes, events, commands, and how all is kept on the disk. What is decided is in
`core.lane_machine`. Pure."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from typing import Any

from codex_self_iter.core.foreign import as_dict, as_int, as_list, as_number, as_text
from codex_self_iter.core.lane_items import LaneItem
from codex_self_iter.core.state import plain
from codex_self_iter.core.terms import State

SCHEMA = 1


class LaneState(enum.StrEnum):
    """Where a lane stands."""

    MAKING = "making"
    """Its work tree is made and set up."""
    WORKING = "working"
    """Its loop is on."""
    READY = "ready"
    """Done, with green gates; waits for its turn to land."""
    LANDING = "landing"
    LANDED = "landed"
    LOST = "lost"
    """Another candidate was better."""
    NEEDS_YOU = "needs you"
    KEPT = "kept"
    """A person wants it left as it is."""
    DROPPED = "dropped"


AT_WORK = frozenset({LaneState.MAKING, LaneState.WORKING})
RESTING = frozenset({LaneState.NEEDS_YOU, LaneState.KEPT})
OVER = frozenset({LaneState.LANDED, LaneState.LOST, LaneState.DROPPED})
"""Their work trees go."""


class Wish(enum.StrEnum):
    """What a person asks of a lane."""

    KEEP = "keep"
    DROP = "drop"
    RETRY = "retry"


@dataclasses.dataclass(frozen=True, slots=True)
class Return:
    """Why a lane's work came back. `kind`: "conflict", "red", "unchanged", "dirty", "asked"; `onto`:
    the commit its work tree begins with, "" for the one it has; `text`: what its agent is told."""

    kind: str
    text: str = ""
    onto: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Lane:
    """One lane.

    Attributes:
        id: unique in the repository's plan: the item's number, a letter where there are candidates,
            "-2" where the item had a lane before.
        item: key of its item; number, title, body: the item as it was last read.
        since: Unix seconds, of the state; why: the reason for it, for people.
        candidate: 0, 1, 2…: which one of several for the item.
        slot: number of its range of ports, from 0; no two lanes with a work tree have the same.
        base: the commit that it began with; tip: where its work ended.
        place: its work tree, "" when there is none (any more); left: why that could not be removed.
        size: lines that it has changed.
        returns: how often its work came back; crashes: how often in a row its loop could not go on.
        back: what is to be done with work that came back before the loop goes on.
        tell: what its agent is to be told beside that, until its loop has ended.
        wish: what a person has asked for, to be done when its loop has ended or its landing failed.
        gone: why its item is not open any more; it goes on by itself when the item is open again.
        bounded: which bound of one start its loop has reached; it goes on at the next.
        landed: the commit that brought it to the target.
        verdict: what the reviewer has said of it beside others: "best", "other", "" for nothing;
            praise: why it is the best.
        tokens, cost_usd, hours: what it has used."""

    id: str
    item: str
    number: int
    title: str
    body: str
    state: LaneState
    since: float
    why: str = ""
    candidate: int = 0
    slot: int = 0
    base: str = ""
    tip: str = ""
    place: str = ""
    left: str = ""
    size: int = 0
    returns: int = 0
    crashes: int = 0
    back: Return | None = None
    tell: str = ""
    wish: str = ""
    gone: str = ""
    bounded: str = ""
    landed: str = ""
    verdict: str = ""
    praise: str = ""
    tokens: int = 0
    cost_usd: float = 0.0
    hours: float = 0.0

    @property
    def ending(self) -> bool:
        """Its loop is to end after its iteration."""
        return bool(self.gone) or self.wish in (Wish.KEEP, Wish.DROP)


@dataclasses.dataclass(frozen=True, slots=True)
class Landing:
    """What is being landed: the lanes; once proven the commit, and the one it is to follow."""

    lanes: tuple[str, ...]
    onto: str = ""
    commit: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Lanes:
    """Everything.

    Attributes:
        target: full name of the branch; target_commit: where it was last seen.
        landing: what is being landed; suspects: lanes of a red batch, which are halved.
        delays: landings in a row that failed for another reason than the work.
        held: why what has landed has not reached the target, for people.
        settled: keys of items that have landed here; unticked: those not yet ticked in the plan.
        halt: who stopped it; spent: which budget is spent. With either no lane is begun any more.
        paused: nothing is begun for now.
        idle: lanes at work that rest until there is room for them, until the pause is over, or until
            the next start, in the order in which they go on.
        judging: keys of the items whose candidates are being compared."""

    target: str = ""
    target_commit: str = ""
    items: tuple[LaneItem, ...] = ()
    lanes: tuple[Lane, ...] = ()
    landing: Landing | None = None
    suspects: tuple[str, ...] = ()
    delays: int = 0
    held: str = ""
    settled: tuple[str, ...] = ()
    unticked: tuple[str, ...] = ()
    halt: str = ""
    spent: str = ""
    paused: bool = False
    idle: tuple[str, ...] = ()
    judging: tuple[str, ...] = ()

    def lane(self, which: str) -> Lane | None:
        """The lane of this id."""
        return next((one for one in self.lanes if one.id == which), None)

    def of(self, *states: LaneState) -> tuple[Lane, ...]:
        """The lanes in these states, in order."""
        return tuple(one for one in self.lanes if one.state in states)

    @property
    def at_work(self) -> tuple[Lane, ...]:
        """The lanes whose work tree is made or whose loop is on, in order."""
        return tuple(one for one in self.of(*AT_WORK) if one.id not in self.idle)

    @property
    def open_items(self) -> tuple[LaneItem, ...]:
        """The items that are still to be done."""
        settled = set(self.settled)
        return tuple(one for one in self.items if not one.done and one.key not in settled)


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """`[lanes]`: how many lanes at once, for one item, in one landing; how often work comes back."""

    most: int = 2
    candidates: int = 1
    batch: int = 1
    max_conflicts: int = 3
    reviewer: bool = False
    """There is one, who compares candidates."""


# -- events ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Boot:
    """A start, with the plan as it is now: what was to be done and was not seen to be done is asked
    for again."""

    items: tuple[LaneItem, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Planned:
    """The plan was read."""

    items: tuple[LaneItem, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """A lane's work tree is there and set up; or not: `flaw`. `fatal`: trying again is no use."""

    lane: str
    base: str = ""
    place: str = ""
    flaw: str = ""
    fatal: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Returned:
    """Work that came back is in its work tree, and its agent will be told."""

    lane: str


@dataclasses.dataclass(frozen=True, slots=True)
class Over:
    """A lane's loop has ended. `flaw`: why its work cannot be landed as it is; `bounded`: for it may
    do no more in this start."""

    lane: str
    state: State
    reason: str
    tip: str = ""
    size: int = 0
    flaw: str = ""
    tokens: int = 0
    cost_usd: float = 0.0
    hours: float = 0.0
    bounded: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Proven:
    """The gates are green at `commit`, which brings these lanes onto `onto`."""

    lanes: tuple[str, ...]
    onto: str
    commit: str


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """The work of these lanes cannot be landed: a conflict of the last of them ("conflict"), or red
    gates ("red"). `onto`: where its work tree goes on from."""

    lanes: tuple[str, ...]
    kind: str
    text: str
    onto: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Delayed:
    """The landing failed for another reason than the work; it is tried again, unless that is no use
    (`fatal`)."""

    why: str
    fatal: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Moved:
    """What was proven has landed, on the target or, while that is `held` for a reason, beside it.
    `raced`: it has not, for somebody else moved the target. `ticked`: the plan says so, too."""

    raced: bool = False
    held: str = ""
    ticked: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Followed:
    """The target was looked at: `held` says why it has not what has landed, "" that it has."""

    held: str = ""
    commit: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Cleared:
    """A work tree is gone, or is `left` for a reason."""

    lane: str
    left: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A person asks something of a lane."""

    wish: Wish
    lane: str


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """The reviewer has compared the candidates for an item: the best of them, and why; "" where there
    is no answer: then the smallest is."""

    item: str
    best: str
    why: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Halt:
    """No lane is begun any more, for this reason; "": they are again. `spent`: for a budget."""

    why: str
    spent: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is begun for now; or it is again."""

    on: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Idle:
    """What a lane was about to do was called off, for all end."""

    lane: str


Event = (
    Boot | Planned | Made | Returned | Over | Proven | Refused | Delayed | Moved | Followed
    | Cleared | Asked | Judged | Halt | Pause | Idle
)  # fmt: skip

# -- commands --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Make:
    """Make a lane's work tree; answer with `Made`."""

    lane: str


@dataclasses.dataclass(frozen=True, slots=True)
class Begin:
    """Put back what came back (`Returned`), and run its loop; answer with `Over`. `End` may follow at
    once."""

    lane: str


@dataclasses.dataclass(frozen=True, slots=True)
class End:
    """End a lane's loop after its iteration."""

    lane: str


@dataclasses.dataclass(frozen=True, slots=True)
class Tell:
    """Leave a message for a lane's agent."""

    lane: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Land:
    """Combine these lanes with the target, in order, and run the gates there; answer with `Proven`,
    `Refused` or `Delayed`. `pause`: after so many failures in a row. Ends a `Land` that is on, as a
    state without `landing` does."""

    lanes: tuple[str, ...]
    pause: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Move:
    """Move the target; answer with `Moved`, or `Delayed` where it cannot be moved."""


@dataclasses.dataclass(frozen=True, slots=True)
class Judge:
    """Have the reviewer compare these lanes; answer with `Judged`."""

    item: str
    lanes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Clear:
    """Remove a lane's work tree, if nothing is lost by it; answer with `Cleared`."""

    lane: str


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """Write a line into the journal of lanes."""

    event: str
    lane: str
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Person:
    """Tell a person."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to be done here."""

    state: State
    reason: str


Command = Make | Begin | End | Tell | Land | Move | Judge | Clear | Note | Person | Finish

# -- on the disk -----------------------------------------------------------------------------------


def to_json(state: Lanes) -> dict[str, Any]:
    """The plain JSON value of it, with its schema version."""
    found: dict[str, Any] = {"schema": SCHEMA, **plain(dataclasses.asdict(state))}
    return found


def from_json(data: dict[str, Any]) -> Lanes:
    """The state that a JSON value is. Raises ValueError for one of a newer form, of none, or where
    its parts do not fit together. `paused` is not read: each start finds out anew."""
    if data.get("schema") != SCHEMA:
        raise ValueError(f"it is of form {data.get('schema')!r}, known is {SCHEMA}")
    landing = as_dict(data.get("landing"))
    words = ("target", "target_commit", "held", "halt", "spent")
    lists = ("suspects", "settled", "unticked", "idle")
    read: dict[str, Any] = {name: as_text(data.get(name)) for name in words}
    read |= {name: _texts(data.get(name)) for name in lists}
    return _sound(
        Lanes(
            **read,
            items=tuple(_item(as_dict(one)) for one in as_list(data.get("items"))),
            lanes=tuple(_lane(as_dict(one)) for one in as_list(data.get("lanes"))),
            landing=Landing(
                _texts(landing.get("lanes")),
                as_text(landing.get("onto")),
                as_text(landing.get("commit")),
            )
            if landing
            else None,
            delays=as_int(data.get("delays")),
        )
    )


def _sound(state: Lanes) -> Lanes:
    """The state. Raises ValueError for one that no decision has left."""
    ids = [one.id for one in state.lanes]
    if len(set(ids)) < len(ids) or not all(ids):
        raise ValueError("two lanes have the same id, or one has none")
    keys = [one.key for one in state.items]
    if len(set(keys)) < len(keys):
        raise ValueError("two items have the same key")
    landing = state.landing.lanes if state.landing else ()
    if sorted(landing) != sorted(one.id for one in state.of(LaneState.LANDING)):
        raise ValueError("the lanes that land are not those of the landing")
    if state.landing and not landing:
        raise ValueError("a landing has no lanes")
    if not {one.id for one in state.of(*AT_WORK)}.issuperset(state.idle):
        raise ValueError("a lane that is not at work waits to go on")
    return state


def _texts(value: object) -> tuple[str, ...]:
    return tuple(filter(None, map(as_text, as_list(value))))


def _item(data: dict[str, Any]) -> LaneItem:
    return LaneItem(
        key=as_text(data.get("key")),
        number=as_int(data.get("number")),
        title=as_text(data.get("title")),
        body=as_text(data.get("body")),
        done=data.get("done") is True,
        after=tuple(map(as_int, as_list(data.get("after")))),
    )


def _lane(data: dict[str, Any]) -> Lane:
    """A lane. Raises ValueError for an unknown state or wish."""
    back = as_dict(data.get("back"))
    fields = {one.name: one.type for one in dataclasses.fields(Lane)}
    reading = {"str": as_text, "int": as_int, "float": as_number}
    plain_ones: dict[str, Any] = {
        name: reading[str(kind)](data.get(name))
        for name, kind in fields.items()
        if str(kind) in reading
    }
    if plain_ones["wish"]:
        Wish(plain_ones["wish"])
    return Lane(
        **plain_ones,
        state=LaneState(as_text(data.get("state"))),
        back=Return(*(as_text(back.get(name)) for name in ("kind", "text", "onto")))
        if back
        else None,
    )


def active(state: Lanes) -> Iterable[Lane]:
    """The lanes that are not over, in the order of their items."""
    return sorted(
        (one for one in state.lanes if one.state not in OVER),
        key=lambda one: (one.number, one.candidate),
    )
