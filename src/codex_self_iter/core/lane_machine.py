"""What is decided about lanes: which item is begun, what comes back, what lands, when it is over.

    item ─► MAKING ─► WORKING ─► READY ─► LANDING ─► LANDED
                      ▲    │               │
                      └────┴── returned ◄──┘   conflict, red gates, nothing committed
                           └─► NEEDS_YOU       too often, or its loop ended without being done

A lane that goes on (it came back, a person wants it again, a halt is over, a start) waits among the
`idle` ones until there is room for it, and goes before new ones. When its item is not open any more
it rests (`gone`), until the item is open again.

`decide(state, event, rules, now)` gives the next state and what is then to be done. The state is on
the disk before anything of it is done, and everything that is to be done may be done twice: after a
kill `Boot` asks for it again. Pure."""

from __future__ import annotations

from codex_self_iter.core import lane_choice as choice
from codex_self_iter.core.lane_items import LaneItem
from codex_self_iter.core.lane_turn import Turn
from codex_self_iter.core.lanes import (
    AT_WORK,
    OVER,
    Asked,
    Boot,
    Clear,
    Cleared,
    Command,
    Delayed,
    End,
    Event,
    Followed,
    Halt,
    Idle,
    Judge,
    Judged,
    Land,
    Landing,
    Lane,
    Lanes,
    LaneState,
    Made,
    Make,
    Move,
    Moved,
    Over,
    Pause,
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

MOST_CRASHES = 5
"""So often in a row a lane's loop is started again after a defect, or its work tree made again."""
MOST_QUEUED = 2
"""So many times `most` lanes may wait to land before no more is begun: each has a work tree."""
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
            if state.landing == Landing(lanes):
                turn.set(landing=Landing(lanes, onto, commit), target_commit=onto)
                turn.do(Move())
        case Refused():
            turn.refused(event)
        case Delayed(why, fatal):
            turn.delayed(why, fatal)
        case Moved():
            turn.moved(event)
        case Followed(held, commit):
            turn.followed(held, commit)
        case Cleared(which, left):
            if (lane := turn.lane(which)) and lane.state in OVER:
                turn.change(which, left=left, place=lane.place if left else "")
        case Asked(wish, which):
            turn.asked(wish, which)
        case Judged():
            turn.judged(event)
        case Halt(why, spent):
            turn.set(**{"spent" if spent else "halt": why})
            if why:
                turn.set(judging=())
        case Pause(on):
            turn.set(paused=on)
            if on:  # also before a start, when nothing is to be decided yet
                return turn.state, ()
        case Idle(which):
            if (lane := turn.lane(which)) and lane.state in AT_WORK:
                turn.goes_on(which)
    turn.go_on()
    return turn.state, tuple(turn.commands)


class _Turn(Turn):
    """What becomes of each event."""

    # -- a start -----------------------------------------------------------------------------------

    def boot(self) -> None:
        self._unsure = tuple(one.id for one in self.state.at_work)
        self.set(halt="", spent="", delays=0, idle=(*self._unsure, *self.state.idle), judging=())
        for lane in self.state.lanes:
            if lane.bounded:
                self.change(lane.id, bounded="", why="")
        self.clear()
        if self.state.landing is None:
            return
        if self.state.landing.commit:
            self.do(Move())
        else:
            self._land(self.state.landing.lanes)

    # -- the plan ----------------------------------------------------------------------------------

    def planned(self, items: tuple[LaneItem, ...]) -> None:
        """A person's edit of an item reaches its lane."""
        before = {one.key: one for one in self.state.items}
        now = {one.key: one for one in items}
        fresh = {one.number: one for one in items if one.key not in before}
        done = {one.key for one in items if one.done}
        unticked = tuple(one for one in self.state.unticked if one not in done)
        self.set(items=items, unticked=unticked)
        settled = set(self.state.settled)
        for lane in self.state.lanes:
            if lane.state in OVER or lane.item in settled or self._moving(lane):
                continue
            item = now.get(lane.item)
            if item is None and lane.item in before:
                item = fresh.get(before[lane.item].number)
            if item is not None and item.key not in settled:
                self._edited(lane, item)

    def _edited(self, lane: Lane, item: LaneItem) -> None:
        """The item of a lane as it is now; its agent is told what is new."""
        same = (item.key, item.title, item.body) == (lane.item, lane.title, lane.body)
        if same and item.number == lane.number:
            return
        self.change(lane.id, item=item.key, number=item.number, title=item.title, body=item.body)
        if same or item.done:
            return
        text = f"The item that this lane works on was edited. It now says:\n\n{item.body}"
        if lane.state is LaneState.LANDING:
            self._give_back()
        if lane.state in (LaneState.READY, LaneState.LANDING):
            self._return(lane.id, Return("asked", text))
        elif lane.base:
            self.change(lane.id, tell=text)
            if lane.state is LaneState.WORKING and lane.id not in self.state.idle:
                self.do(Tell(lane.id, text))

    def _moving(self, lane: Lane) -> bool:
        """Whether a lane's work is on its way onto the target in this moment."""
        landing = self.state.landing
        return bool(landing and landing.commit and lane.state is LaneState.LANDING)

    def follow_items(self) -> None:
        """A lane whose item is not open any more rests; it goes on when the item is open again."""
        there = {one.key for one in self.state.items}
        still_open = {one.key for one in self.state.open_items}
        settled = set(self.state.settled)
        for lane in self.state.lanes:
            if lane.state in OVER or self._moving(lane):
                continue
            if lane.item in still_open:
                if lane.gone:
                    self._come_back(lane)
            elif not lane.gone and lane.state is not LaneState.KEPT:
                if lane.item in settled:
                    why = "another lane has landed its item"
                elif lane.item in there:
                    why = "its item was ticked by somebody else"
                else:
                    why = "its item was taken out of the plan"
                self._let_go(lane, why)

    def _let_go(self, lane: Lane, why: str) -> None:
        self.change(lane.id, gone=why)
        if lane.state is LaneState.LANDING:
            self._give_back()
        if self._quiet(lane):
            self._rest(lane.id)
        elif lane.state is LaneState.WORKING and lane.id not in self.state.idle:
            self.do(End(lane.id))

    # -- a lane's life -----------------------------------------------------------------------------

    def made(self, event: Made) -> None:
        lane = self.lane(event.lane)
        if lane is None or lane.state is not LaneState.MAKING or lane.id in self.state.idle:
            return
        self.change(lane.id, place=event.place)
        if lane.ending:
            self._let_rest(lane)
        elif not event.flaw:
            self.change(
                lane.id, state=LaneState.WORKING, base=lane.base or event.base, crashes=0, wish=""
            )
            self.note("begun", lane.id, item=lane.title, base=event.base)
            self._again(lane.id)
        else:
            self.change(lane.id, crashes=lane.crashes + 1, why=event.flaw)
            if event.fatal or lane.crashes + 1 >= MOST_CRASHES:
                self.needs_you(lane.id, event.flaw)
            else:
                self._again(lane.id)

    def over(self, event: Over) -> None:
        lane = self.lane(event.lane)
        if lane is None or lane.state is not LaneState.WORKING or lane.id in self.state.idle:
            return
        self.change(
            lane.id,
            tip=event.tip or lane.tip,
            size=event.size,
            tokens=event.tokens,
            cost_usd=event.cost_usd,
            hours=event.hours,
            tell="",
            wish="",
        )
        if lane.ending:
            self._let_rest(lane)
        elif event.state is State.COMPLETED:
            self._done(lane, event)
        elif event.state is State.CRASHED:
            self.change(lane.id, crashes=lane.crashes + 1)
            if lane.crashes + 1 >= MOST_CRASHES:
                self.needs_you(lane.id, event.reason)
            else:
                self._again(lane.id)
        elif lane.wish:
            self._again(lane.id)
        elif event.bounded and event.state is State.STOPPED:
            why = f"{event.reason}: it goes on at the next start"
            self.change(lane.id, bounded=event.reason, why=why)
            self.goes_on(lane.id)
        elif self._ending:  # what was stopped with all goes on at the next start
            self.goes_on(lane.id)
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

    # -- landing -----------------------------------------------------------------------------------

    def refused(self, event: Refused) -> None:
        landing = self.state.landing
        if landing is None or landing.commit or not event.lanes:
            return
        if landing.lanes[: len(event.lanes)] != event.lanes:
            return
        self.set(delays=0)
        self._give_back()
        last = event.lanes[-1]
        if event.kind == "conflict" or len(event.lanes) == 1:
            self._return(last, Return(event.kind, event.text, event.onto))
        else:
            self.set(suspects=event.lanes)
            self.note("halved", "", lanes=list(event.lanes))

    def delayed(self, why: str, fatal: bool) -> None:
        if (landing := self.state.landing) is None:
            return
        if self._ending:
            self._give_back()
            return
        self.set(delays=self.state.delays + 1)
        if fatal or self.state.delays >= MOST_DELAYS:
            self.set(delays=0)
            self._give_back()
            for one in self.state.of(LaneState.READY):
                if one.id in landing.lanes:
                    self.needs_you(one.id, f"it could not be landed: {why}")
        else:
            self._land(landing.lanes)

    def _land(self, group: tuple[str, ...]) -> None:
        """Land these lanes, unless nothing is begun now or a person has asked for one of them."""
        if not self._beginning or any(one.wish for one in self.state.of(LaneState.LANDING)):
            self._give_back()
            return
        for which in {*group}.difference(one.id for one in self.state.of(LaneState.LANDING)):
            self.change(which, state=LaneState.LANDING)
        self.set(landing=Landing(group))
        self._to_land = True

    def _give_back(self) -> None:
        """Nothing is landed now; what was to be waits again, or is as a person has asked for."""
        self.set(landing=None)
        for one in self.state.of(LaneState.LANDING):
            self.change(one.id, state=LaneState.READY, since=one.since)
            if one.wish:
                self._grant(one.id, Wish(one.wish), one.why)

    def moved(self, event: Moved) -> None:
        landing = self.state.landing
        if landing is None or not landing.commit:
            return
        if event.raced:
            self._land(landing.lanes)
            return
        gone = set(landing.lanes)
        here = [one for one in self.state.lanes if one.id in gone]
        keys = tuple(one.item for one in here)
        self.set(
            landing=None,
            delays=0,
            settled=(*self.state.settled, *keys),
            unticked=() if event.ticked else (*self.state.unticked, *keys),
        )
        for lane in here:
            self.change(lane.id, state=LaneState.LANDED, landed=landing.commit, wish="")
            self.note("landed", lane.id, item=lane.title, commit=landing.commit, size=lane.size)
            self.do(Clear(lane.id))
        self.followed(event.held, "" if event.held else landing.commit)

    def followed(self, held: str, commit: str) -> None:
        """What has landed is on the target, or is held."""
        was = self.state.held
        self.set(held=held, target_commit=commit or self.state.target_commit)
        if was and not held:
            self.clear()

    # -- a person ----------------------------------------------------------------------------------

    def asked(self, wish: Wish, which: str) -> None:
        lane = self.lane(which)
        if lane is None:
            return
        why = f"you asked to {wish} it"
        if self._moving(lane):  # it moves the target in this moment
            self.change(which, wish="" if wish is Wish.RETRY else wish.value, why=why)
        elif self._quiet(lane):
            if lane.state is LaneState.LANDING and wish is not Wish.RETRY:
                self._give_back()
            self._grant(which, wish, why)
        elif wish is not Wish.RETRY:
            self.change(which, wish=wish.value, why=why)
            if lane.state is LaneState.WORKING and which not in self.state.idle:
                self.do(End(which))
        elif lane.wish:  # its loop was asked to end
            self.change(which, wish=wish.value, why="")

    # -- what follows ------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Begin what can be begun; end where nothing is left."""
        self.follow_items()
        if self.state.judging:
            left = {one.key for one in self.state.open_items}
            self.set(judging=tuple(one for one in self.state.judging if one in left))
        if self._beginning:
            self._choose()
            self._resume()
            self._start()
            self._land_next()
        landing = self.state.landing
        if landing and self._to_land and not landing.commit:
            self.do(Land(landing.lanes, pause=self.state.delays))
        clearing = any(one.place and not one.left for one in self.state.of(*OVER))
        busy = landing or self.state.at_work or clearing or self.state.judging
        if not busy and (self._beginning or self._ending):
            self.do(choice.finish(self.state))

    def _choose(self) -> None:
        """Of several candidates the smallest is landed, once none of them is at work any more."""
        lanes = choice.groups(self.state)
        unfinished = {one.key for one in choice.wanting(self.state, self.rules)}
        for item in self.state.open_items:
            group = [one for one in lanes.get(item.key, []) if one.state in choice.RIVALS]
            ready = [one for one in group if one.state is LaneState.READY]
            if len(group) < 2 or not ready or item.key in unfinished:
                continue
            if any(one.state in AT_WORK or one.state is LaneState.LANDING for one in group):
                continue
            if self.rules.reviewer and len(ready) > 1 and not any(one.verdict for one in ready):
                if item.key not in self.state.judging:
                    self.set(judging=(*self.state.judging, item.key))
                    self.do(Judge(item.key, tuple(one.id for one in ready)))
                continue
            best = min(ready, key=lambda one: (one.verdict != "best", one.size, one.candidate))
            told = [
                {"lane": one.id, "state": one.state.value, "size": one.size, "why": one.why}
                for one in group
            ]
            self.note("chosen", best.id, item=item.title, candidates=told)
            for one in group:
                if one is not best:
                    self._lose(one.id, f"lane {best.id} was {choice.better(best, one)}")

    def judged(self, event: Judged) -> None:
        """The reviewer has looked at the candidates for an item, or could not."""
        self.set(judging=tuple(one for one in self.state.judging if one != event.item))
        for one in self.state.of(LaneState.READY):
            if one.item == event.item:
                best = one.id == event.best
                praise = event.why if best else ""
                self.change(one.id, verdict="best" if best else "other", praise=praise)

    def _resume(self) -> None:
        """Let lanes go on that wait for it."""
        room = max(0, self.rules.most - len(self.state.at_work))
        bounded = {one.id for one in self.state.lanes if one.bounded}
        now = [one for one in self.state.idle if one not in bounded][:room]
        self.set(idle=tuple(one for one in self.state.idle if one not in now))
        for which in now:
            lane = self.lane(which)
            assert lane is not None
            taken = choice.slots(self.state, but=which)
            if lane.slot in taken:
                self.change(which, slot=choice.free(taken))
            self._again(which)

    def _start(self) -> None:
        """Begin lanes for items, as many as there is room for."""
        room = self.rules.most - len(self.state.at_work) - len(self.state.idle)
        if self.rules.candidates == 1:  # else some of them wait for others that are to begin
            queue = self.state.of(LaneState.READY, LaneState.LANDING)
            room = min(room, max(self.rules.batch, MOST_QUEUED * self.rules.most) - len(queue))
        if room <= 0:
            return
        groups, taken = choice.groups(self.state), choice.slots(self.state)
        for item in choice.wanting(self.state, self.rules):
            lanes = groups.get(item.key, [])
            used = {one.candidate for one in lanes}
            free = [n for n in range(len(lanes) + self.rules.candidates) if n not in used]
            for candidate in free[: min(room, self.rules.candidates - len(lanes))]:
                room -= 1
                taken.add(slot := choice.free(taken))
                lane = Lane(
                    id=choice.free_id(self.state, item.number, candidate, self.rules),
                    item=item.key,
                    number=item.number,
                    title=item.title,
                    body=item.body,
                    state=LaneState.MAKING,
                    since=self.now,
                    candidate=candidate,
                    slot=slot,
                )
                self.set(lanes=(*self.state.lanes, lane))
                self.do(Make(lane.id))
            if room <= 0:
                return

    def _land_next(self) -> None:
        queue = {one.id for one in self.state.of(LaneState.READY, LaneState.LANDING)}
        self.set(suspects=tuple(one for one in self.state.suspects if one in queue))
        if self.state.landing is None and (group := choice.next_group(self.state, self.rules)):
            self._land(group)
