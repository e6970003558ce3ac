"""What is decided about lanes: which item is begun, what comes back, what lands, when it is over.

    item ─► MAKING ─► WORKING ─► READY ─► LANDING ─► LANDED
                      ▲    │               │
                      └────┴── returned ◄──┘   conflict, red gates, nothing committed
                           └─► NEEDS_YOU       too often, or its loop ended without being done

`decide(state, event, rules, now)` gives the next state and what is then to be done. The state is on
the disk before anything of it is done, and everything that is to be done may be done twice: after a
kill `Boot` asks for it again. Pure."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Iterator
from typing import Any

from codex_self_iter.core.lane_items import LaneItem
from codex_self_iter.core.lanes import (
    AT_WORK,
    OVER,
    RESTING,
    Asked,
    Begin,
    Boot,
    Clear,
    Cleared,
    Command,
    Delayed,
    End,
    Event,
    Finish,
    Followed,
    Halt,
    Idle,
    Land,
    Landing,
    Lane,
    Lanes,
    LaneState,
    Made,
    Make,
    Move,
    Moved,
    Note,
    Over,
    Pause,
    Person,
    Planned,
    Proven,
    Refused,
    Return,
    Returned,
    Rules,
    Tell,
    Wish,
)  # fmt: skip
from codex_self_iter.core.terms import State
from codex_self_iter.core.text import counted, listed, one_line

MOST_CRASHES = 5
"""So often in a row a lane's loop is started again after a defect, or its work tree made again."""
MOST_DELAYS = 5
"""So often in a row a landing that failed for another reason than the work is tried again."""


def decide(
    state: Lanes, event: Event, rules: Rules, now: float
) -> tuple[Lanes, tuple[Command, ...]]:
    """The next state, and what is to be done once it is on the disk. `now`: Unix seconds."""
    turn = _Turn(state, rules, now)
    match event:
        case Boot(items):
            turn.boot()
            turn.planned(items)
        case Planned(items):
            turn.planned(items)
        case Made():
            turn.made(event)
        case Returned(which):
            if turn.lane(which):
                turn.change(which, back=None)
        case Over():
            turn.over(event)
        case Proven(lanes, onto, commit):
            if state.landing and state.landing.lanes == lanes:
                turn.set(landing=Landing(lanes, onto, commit))
                turn.do(Move())
        case Refused():
            turn.refused(event)
        case Delayed(why):
            turn.delayed(why)
        case Moved():
            turn.moved(event)
        case Followed(held, commit):
            turn.set(held=held, target_commit=commit or turn.state.target_commit)
        case Cleared(which, left):
            if turn.lane(which):
                turn.change(which, left=left, **({} if left else {"place": ""}))
        case Asked(wish, which):
            turn.asked(wish, which)
        case Halt(why, spent):
            turn.set(**{"spent" if spent else "halt": why})
        case Pause(on):
            turn.set(paused=on)
        case Idle(which):
            turn.set(idle=(*state.idle, which))
    turn.go_on()
    return turn.state, tuple(turn.commands)


class _Turn:
    """One decision: the state as it becomes, and the commands as they are found."""

    def __init__(self, state: Lanes, rules: Rules, now: float) -> None:
        self.state, self.rules, self.now = state, rules, now
        self.commands: list[Command] = []

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

    @property
    def _ending(self) -> bool:
        return bool(self.state.halt or self.state.spent)

    # -- a start -----------------------------------------------------------------------------------

    def boot(self) -> None:
        self.set(halt="", spent="", delays=0, idle=())
        for one in self.state.lanes:
            self.change(one.id, left="")
            if one.state is LaneState.MAKING:
                self.do(Make(one.id))
            elif one.state is LaneState.WORKING:
                self.do(Begin(one.id))
            elif one.state in OVER and one.place:
                self.do(Clear(one.id))
        if self.state.landing is not None:
            self.do(Move() if self.state.landing.commit else Land(self.state.landing.lanes))

    # -- the plan ----------------------------------------------------------------------------------

    def planned(self, items: tuple[LaneItem, ...]) -> None:
        """A person's edit of an item reaches its lane; what is taken out or ticked is kept."""
        before = {one.key: one for one in self.state.items}
        now = {one.key: one for one in items}
        fresh = {one.number: one for one in items if one.key not in before}
        self.set(items=items)
        for lane in self.state.lanes:
            if lane.state in OVER or lane.item in self.state.settled:
                continue
            item = now.get(lane.item)
            if item is None and lane.item in before:
                item = fresh.get(before[lane.item].number)
            if item is None:
                self._let_go(lane, "its item was taken out of the plan")
            elif item.done:
                self._let_go(lane, "its item was ticked by somebody else")
            elif (item.key, item.body) != (lane.item, lane.body):
                self.change(
                    lane.id, item=item.key, number=item.number, title=item.title, body=item.body
                )
                text = f"The item that this lane works on was edited. It now says:\n\n{item.body}"
                if lane.state in AT_WORK:
                    self.do(Tell(lane.id, text))
                elif lane.state is LaneState.READY:
                    self._return(lane.id, Return("asked", text))

    def _let_go(self, lane: Lane, why: str) -> None:
        if lane.state is LaneState.WORKING:
            self.change(lane.id, wish=Wish.KEEP.value, why=why)
            self.do(End(lane.id))
        elif lane.state in (LaneState.READY, LaneState.MAKING):
            self.change(lane.id, state=LaneState.KEPT, why=why)
            self.note("kept", lane.id, why=why)

    # -- a lane's life -----------------------------------------------------------------------------

    def made(self, event: Made) -> None:
        lane = self.lane(event.lane)
        if lane is None or lane.state is not LaneState.MAKING:
            return
        if event.flaw:
            self.change(lane.id, crashes=lane.crashes + 1, why=event.flaw)
            if event.fatal or lane.crashes + 1 >= MOST_CRASHES:
                self.change(lane.id, place=event.place)
                self.needs_you(lane.id, event.flaw)
            else:
                self.do(Make(lane.id))
            return
        self.change(
            lane.id,
            state=LaneState.WORKING,
            base=lane.base or event.base,
            place=event.place,
            crashes=0,
        )
        self.note("begun", lane.id, item=lane.title, base=event.base)
        if lane.wish:
            self._grant(lane.id, Wish(lane.wish), lane.why)
        else:
            self.do(Begin(lane.id))

    def over(self, event: Over) -> None:
        lane = self.lane(event.lane)
        if lane is None or lane.state is not LaneState.WORKING:
            return
        self.change(
            lane.id,
            tip=event.tip or lane.tip,
            size=event.size,
            tokens=event.tokens,
            cost_usd=event.cost_usd,
            hours=event.hours,
        )
        if lane.wish:
            self._grant(lane.id, Wish(lane.wish), lane.why)
        elif event.state is State.COMPLETED:
            self._done(lane, event)
        elif event.state is State.CRASHED:
            self.change(lane.id, crashes=lane.crashes + 1)
            if lane.crashes + 1 >= MOST_CRASHES:
                self.needs_you(lane.id, event.reason)
            else:
                self.do(Begin(lane.id))
        elif self._ending:  # what was stopped with all goes on at the next start
            self.set(idle=(*self.state.idle, lane.id))
        else:
            self.needs_you(lane.id, event.reason)

    def _done(self, lane: Lane, event: Over) -> None:
        self.change(lane.id, crashes=0)
        if event.flaw:
            self._return(lane.id, Return("dirty", event.flaw))
        elif not event.size:
            text = (
                "The item was said to be done, but no commit of this lane changes anything. If it is "
                "still to be done, do it. If nothing is to be done, change nothing and say why."
            )
            self._return(lane.id, Return("unchanged", text))
        else:
            self.change(lane.id, state=LaneState.READY)
            self.note("ready", lane.id, tip=event.tip, size=event.size)

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
            self.needs_you(which, f"{whys[back.kind]}{often}")
            return
        returns = lane.returns + counts
        self.change(which, state=LaneState.WORKING, returns=returns, back=back)
        self.note("returned", which, kind=back.kind, text=one_line(back.text, 500), times=returns)
        self.do(Begin(which))

    # -- landing -----------------------------------------------------------------------------------

    def refused(self, event: Refused) -> None:
        landing = self.state.landing
        if landing is None or landing.lanes[: len(event.lanes)] != event.lanes:
            return
        self.set(delays=0)
        self._give_back()
        last = event.lanes[-1]
        if event.kind == "conflict" or len(event.lanes) == 1:
            self.set(suspects=tuple(one for one in self.state.suspects if one != last))
            self._return(last, Return(event.kind, event.text, event.onto))
        else:
            self.set(suspects=event.lanes)
            self.note("halved", "", lanes=list(event.lanes))

    def delayed(self, why: str) -> None:
        if (landing := self.state.landing) is None:
            return
        delays = self.state.delays + 1
        if self._ending:
            self._give_back()
        elif delays >= MOST_DELAYS:
            self.set(landing=None, delays=0)
            for which in landing.lanes:
                self.needs_you(which, f"it could not be landed: {why}")
        else:
            self.set(delays=delays, landing=Landing(landing.lanes))
            self.do(Land(landing.lanes, pause=delays))

    def _give_back(self) -> None:
        """Nothing is landed now; what was to be waits again."""
        self.set(landing=None)
        for one in self.state.of(LaneState.LANDING):
            self.change(one.id, state=LaneState.READY)

    def moved(self, event: Moved) -> None:
        if (landing := self.state.landing) is None:
            return
        if event.raced:
            self.set(landing=Landing(landing.lanes))
            self.do(Land(landing.lanes))
            return
        gone = set(landing.lanes)
        here = [one for one in self.state.lanes if one.id in gone]
        keys = tuple(one.item for one in here)
        self.set(
            landing=None,
            delays=0,
            held=event.held,
            suspects=tuple(one for one in self.state.suspects if one not in gone),
            settled=(*self.state.settled, *keys),
            unticked=() if event.ticked else (*self.state.unticked, *keys),
        )
        for lane in here:
            self.change(lane.id, state=LaneState.LANDED, landed=landing.commit)
            self.note("landed", lane.id, item=lane.title, commit=landing.commit, size=lane.size)
            self.do(Clear(lane.id))

    # -- a person ----------------------------------------------------------------------------------

    def asked(self, wish: Wish, which: str) -> None:
        lane = self.lane(which)
        if lane is None or lane.state is LaneState.LANDED:
            return
        if lane.state is LaneState.LANDING and wish is not Wish.RETRY:
            if self.state.landing and self.state.landing.commit:
                return  # it moves the target in this moment
            self._give_back()
        if lane.state in AT_WORK and wish is not Wish.RETRY:
            self.change(which, wish=wish.value, why=f"you asked to {wish} it")
            self.do(End(which))
        else:
            self._grant(which, wish, f"you asked to {wish} it")

    def _grant(self, which: str, wish: Wish, why: str) -> None:
        lane = self.lane(which)
        assert lane is not None
        self.change(which, wish="")
        if wish is Wish.KEEP and lane.state not in OVER:
            self.change(which, state=LaneState.KEPT, why=why)
            self.note("kept", which, why=why)
        elif wish is Wish.DROP and lane.state not in OVER:
            self.change(which, state=LaneState.DROPPED, why=why)
            self.note("dropped", which, why=why)
            self.do(Clear(which))
        elif wish is Wish.RETRY and lane.state in RESTING:
            self.change(which, state=LaneState.MAKING, returns=0, crashes=0)
            self.note("retried", which)
            self.do(Make(which))
        elif wish is Wish.RETRY and lane.state is LaneState.DROPPED:
            self.change(which, item="")
            self.note("retried", which)

    # -- what follows ------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Begin what can be begun; end where nothing is left."""
        if self.state.paused and not self._ending:
            return
        if not self._ending:
            self._choose()
            for item in self._startable():
                self._start(item)
            if self.state.landing is None and (group := self._next_group()):
                self.set(landing=Landing(group))
                for which in group:
                    self.change(which, state=LaneState.LANDING)
                self.do(Land(group))
        busy = [one for one in self.state.of(*AT_WORK) if one.id not in self.state.idle]
        busy += [one for one in self.state.of(*OVER) if one.place and not one.left]
        if self.state.landing is None and not busy:
            self.do(self._finish())

    def _choose(self) -> None:
        """Of several candidates the smallest is landed, once none of them is at work any more."""
        for item in self.state.open_items:
            group = [one for one in self._lanes_of(item) if one.state not in OVER]
            ready = [one for one in group if one.state is LaneState.READY]
            if len(group) < 2 or not ready or any(one.state in AT_WORK for one in group):
                continue
            if len(group) < self.rules.candidates and item in self._startable():
                continue
            best = min(ready, key=lambda one: (one.size, one.candidate))
            told = [
                {"lane": one.id, "state": one.state.value, "size": one.size, "why": one.why}
                for one in group
            ]
            self.note("chosen", best.id, item=item.title, candidates=told)
            for one in group:
                if one is not best:
                    self.change(one.id, state=LaneState.LOST, why=f"lane {best.id} was smaller")
                    self.do(Clear(one.id))

    def _lanes_of(self, item: LaneItem) -> list[Lane]:
        return [one for one in self.state.lanes if one.item == item.key]

    def _startable(self) -> Iterator[LaneItem]:
        """The items for which one more lane may be begun, in order."""
        open_keys = {one.key for one in self.state.open_items}
        waiting = {one.number for one in self.state.items if one.key in open_keys}
        for item in self.state.open_items:
            lanes = self._lanes_of(item)
            if waiting.intersection(item.after) or len(lanes) >= self.rules.candidates:
                continue
            if not any(one.state in (LaneState.LANDING, *OVER) for one in lanes):
                yield item

    def _start(self, item: LaneItem) -> None:
        """As many lanes for an item as there is room for."""
        while (
            len(self.state.of(*AT_WORK)) < self.rules.most
            and len(lanes := self._lanes_of(item)) < self.rules.candidates
        ):
            taken = {one.slot for one in self.state.lanes if one.place or one.state in AT_WORK}
            lane = Lane(
                id=self._free_id(item, len(lanes)),
                item=item.key,
                number=item.number,
                title=item.title,
                body=item.body,
                state=LaneState.MAKING,
                since=self.now,
                candidate=len(lanes),
                slot=next(n for n in range(len(taken) + 1) if n not in taken),
            )
            self.set(lanes=(*self.state.lanes, lane))
            self.do(Make(lane.id))

    def _free_id(self, item: LaneItem, candidate: int) -> str:
        letter = string.ascii_lowercase[candidate % 26] if self.rules.candidates > 1 else ""
        first, taken = f"{item.number}{letter}", {one.id for one in self.state.lanes}
        ids = (first if n == 1 else f"{first}-{n}" for n in range(1, len(taken) + 2))
        return next(one for one in ids if one not in taken)

    def _next_group(self) -> tuple[str, ...]:
        """The lanes to be landed together, the longest ready first; of a red batch a half."""
        ready = sorted(self.state.of(LaneState.READY), key=lambda one: (one.since, one.number))
        ready = [one for one in ready if len(self._rivals(one)) == 1]
        names = [one.id for one in ready]
        if suspects := [one for one in self.state.suspects if one in names]:
            return tuple(suspects[: max(1, len(suspects) // 2)])
        return tuple(names[: self.rules.batch])

    def _rivals(self, lane: Lane) -> list[Lane]:
        """All candidates for the item of a lane that are still to be chosen from."""
        return [
            one
            for one in self.state.lanes
            if one.item == lane.item and one.state not in OVER | RESTING
        ]

    def _finish(self) -> Finish:
        left = self.state.open_items
        if self.state.halt:
            return Finish(State.STOPPED, self.state.halt)
        if self.state.spent:
            return Finish(State.BLOCKED, self.state.spent)
        if not left and not self.state.held:
            return Finish(State.COMPLETED, "all items have landed, and the gates are green there")
        if not left:
            return Finish(
                State.BLOCKED, f"all items have landed beside the target: {self.state.held}"
            )
        resting = self.state.of(*RESTING)
        names = {one.item for one in resting}
        whys = [f"lane {one.id} ({one.why})" for one in resting]
        whys += [f"item {one.number} waits for others" for one in left if one.key not in names]
        return Finish(State.BLOCKED, f"{counted(len(left), 'item')} left: {listed(whys)}")
