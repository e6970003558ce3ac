"""What can be done to one lane in a decision. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from codex_self_iter.core.lanes import (
    AT_WORK,
    OVER,
    RESTING,
    Begin,
    Clear,
    Command,
    End,
    Lane,
    Lanes,
    LaneState,
    Make,
    Note,
    Person,
    Return,
    Rules,
    Tell,
    Wish,
)  # fmt: skip
from codex_self_iter.core.text import counted, one_line


class Turn:
    """One decision: the state as it becomes, and the commands as they are found."""

    def __init__(self, state: Lanes, rules: Rules, now: float) -> None:
        self.state, self.rules, self.now = state, rules, now
        self.commands: list[Command] = []
        self._to_land = False
        """A landing was begun in this turn."""
        self._unsure: tuple[str, ...] = ()
        """Lanes at work when the last supervisor ended: of their loops something may be left."""

    def set(self, **changes: Any) -> None:
        self.state = dataclasses.replace(self.state, **changes)

    def do(self, *commands: Command) -> None:
        self.commands += commands

    def lane(self, which: str) -> Lane | None:
        return self.state.lane(which)

    def change(self, which: str, **changes: Any) -> None:
        """Change a lane; another state begins now."""
        if "state" in changes:
            changes = {"since": self.now, "why": "", **changes}
            if changes["state"] not in AT_WORK:
                self.set(idle=tuple(one for one in self.state.idle if one != which))
        self.set(
            lanes=tuple(
                dataclasses.replace(one, **changes) if one.id == which else one
                for one in self.state.lanes
            )
        )

    def note(self, event: str, which: str, **fields: Any) -> None:
        self.do(Note(event, which, fields))

    def needs_you(self, which: str, why: str) -> None:
        self.change(which, state=LaneState.NEEDS_YOU, why=why)
        self.note("needs_you", which, why=why)
        self.do(Person(f"lane {which} needs you: {why}"))

    def goes_on(self, which: str) -> None:
        """A lane goes on as soon as there is room for it."""
        if which not in self.state.idle:
            self.set(idle=(*self.state.idle, which))

    @property
    def _ending(self) -> bool:
        return bool(self.state.halt or self.state.spent)

    @property
    def _beginning(self) -> bool:
        """Whether anything may be begun now."""
        return not self._ending and not self.state.paused

    def clear(self) -> None:
        """Ask for every work tree that is not needed any more."""
        there = [one.id for one in self.state.of(*OVER) if one.place]
        self.set(
            lanes=tuple(
                dataclasses.replace(one, left="") if one.left else one for one in self.state.lanes
            )
        )
        self.do(*map(Clear, there))

    def _quiet(self, lane: Lane) -> bool:
        """Whether nothing of a lane is under way, nor may be left from when it was."""
        if lane.state not in AT_WORK:
            return True
        known = lane.state is LaneState.WORKING or bool(lane.place)
        return known and lane.id in self.state.idle and lane.id not in self._unsure

    def _rest(self, which: str) -> None:
        """The lane of an item that is not open any more."""
        lane = self.lane(which)
        assert lane is not None
        if lane.item in self.state.settled:
            self._lose(which, lane.gone)
        else:
            self.change(which, state=LaneState.KEPT, why=lane.gone)
            self.note("kept", which, why=lane.gone)

    def _lose(self, which: str, why: str) -> None:
        self.change(which, state=LaneState.LOST, why=why)
        self.note("lost", which, why=why)
        self.do(Clear(which))

    def _come_back(self, lane: Lane) -> None:
        self.change(lane.id, gone="")
        if lane.state is LaneState.KEPT:
            self.change(lane.id, state=LaneState.MAKING)
            self.note("retried", lane.id)
            self.goes_on(lane.id)
        elif not lane.wish and lane.id not in self.state.idle:  # its loop was asked to end
            self.change(lane.id, wish=Wish.RETRY.value)

    def _again(self, which: str) -> None:
        """Make a lane's work tree, or run its loop, in the room that the lane has already."""
        lane = self.lane(which)
        assert lane is not None
        if not self._beginning:
            self.goes_on(which)
        elif lane.state is LaneState.MAKING:
            self.do(Make(which))
        else:
            if lane.tell:
                self.do(Tell(which, lane.tell))
            self.do(Begin(which))
            if lane.ending:
                self.do(End(which))  # only what a run of a supervisor that is gone has left

    def _let_rest(self, lane: Lane) -> None:
        """What was asked for while the lane was at work."""
        if lane.wish in (Wish.KEEP, Wish.DROP):
            self._grant(lane.id, Wish(lane.wish), lane.why)
        else:
            self._rest(lane.id)

    def _return(self, which: str, back: Return) -> None:
        """Work comes back to its lane; too often is a person's."""
        lane = self.lane(which)
        assert lane is not None
        counts = back.kind != "asked"
        if counts and lane.returns >= (1 if back.kind == "unchanged" else self.rules.max_conflicts):
            whys = {
                "conflict": "its work conflicts with the target",
                "red": "the gates are red where its work meets the target",
                "unchanged": "it says that the item is done, and has changed nothing",
                "dirty": "it leaves changes that are not committed",
            }
            often = f", {counted(lane.returns + 1, 'time')} now" if lane.returns else ""
            self.needs_you(which, f"{whys.get(back.kind, back.kind)}{often}")
            return
        returns = lane.returns + counts
        self.change(which, state=LaneState.WORKING, returns=returns, back=back)
        self.note("returned", which, kind=back.kind, text=one_line(back.text, 500), times=returns)
        self.goes_on(which)

    def _grant(self, which: str, wish: Wish, why: str) -> None:
        lane = self.lane(which)
        assert lane is not None
        self.change(which, wish="")
        if wish is Wish.RETRY:
            self._retry(lane)
        elif lane.state in OVER:
            return
        elif wish is Wish.KEEP:
            self.change(which, state=LaneState.KEPT, why=why, gone="")
            self.note("kept", which, why=why)
        else:
            self.change(which, state=LaneState.DROPPED, why=why, gone="")
            self.note("dropped", which, why=why)
            self.do(Clear(which))

    def _retry(self, lane: Lane) -> None:
        """A lane that rests goes on; for one that is over another is begun."""
        if lane.state not in RESTING | OVER:
            return
        if lane.item not in {one.key for one in self.state.open_items}:
            return
        if lane.state in RESTING:
            self.change(lane.id, state=LaneState.MAKING, returns=0, crashes=0, bounded="")
            self.goes_on(lane.id)
        else:
            for one in self.state.lanes:
                if one.item == lane.item and one.state in OVER:
                    self.change(one.id, item="")
        self.note("retried", lane.id)
