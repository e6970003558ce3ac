"""A world for the scheduler of lanes: work trees, loops and landings that end as they are told, and
what must hold after each decision."""

from __future__ import annotations

import dataclasses
import json

from codex_self_iter.core.lane_items import LaneItem
from codex_self_iter.core.lane_machine import decide
from codex_self_iter.core.lanes import (
    OVER,
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
    Halt,
    Idle,
    Judge,
    Judged,
    Land,
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
    Returned,
    Rules,
    Wish,
    from_json,
    to_json,
)
from codex_self_iter.core.terms import State

Task = tuple[str, str]
"""("make" | "lane" | "clear", lane), ("land", "") or ("move", "")."""


class KilledError(Exception):
    """The supervisor is gone."""


def item(number: int, *after: int, key: str = "", done: bool = False, body: str = "") -> LaneItem:
    """An item of a plan."""
    key = key or f"item {number}"
    return LaneItem(key, number, key, body or f"- [ ] {key}", done, after)


def plan(*found: LaneItem) -> tuple[LaneItem, ...]:
    """These items, numbered in order."""
    return tuple(dataclasses.replace(one, number=n) for n, one in enumerate(found, 1))


def reloaded(state: Lanes) -> Lanes:
    """The state as the next supervisor reads it."""
    return from_json(json.loads(json.dumps(to_json(state))))


class World:
    """What a supervisor of lanes does, without time and without a world.

    Attributes:
        tasks: what is under way; ended: lanes whose loop is to end; finish: how it ended."""

    def __init__(self, items: tuple[LaneItem, ...], rules: Rules) -> None:
        self.items, self.rules = items, rules
        self.candidates = rules.candidates
        self.words = 0
        self.state = Lanes(target="refs/heads/main")
        self.now = 0.0
        self.tasks: list[Task] = []
        self.ended: set[str] = set()
        self.finish: Finish | None = None
        self.commands: tuple[Command, ...] = ()
        self.log: list[Event] = []
        self.ever: set[str] = set()
        self.landed: list[str] = []
        self.proven: dict[str, tuple[str, ...]] = {}
        self.kill_at: tuple[int, int] | None = None
        """Which decision is the last, and how many of its commands are carried out."""

    # -- what is sent ------------------------------------------------------------------------------

    def send(self, event: Event) -> tuple[Command, ...]:
        """Decide, look whether all that must hold holds, and begin what is to be done."""
        if self.finish is not None and not isinstance(event, Boot):
            return ()
        self.finish = None
        self.now += 1
        self.log.append(event)
        before = self.state
        self.state, self.commands = decide(before, event, self.rules, self.now)
        transitions(self, before, event)
        todo = self.commands
        if self.kill_at is not None and len(self.log) == self.kill_at[0]:
            todo = todo[: self.kill_at[1]]
        if self.state.landing is None:
            self._drop("land", "")
        for kind, which in list(self.tasks):
            if kind == "judge" and which not in self.state.judging:
                self._drop(kind, which)
        for command in todo:
            self._carry_out(command)
        if len(todo) < len(self.commands) or (self.kill_at or (0, 0))[0] == len(self.log):
            raise KilledError
        invariants(self)
        return self.commands

    def boot(self) -> None:
        """A supervisor starts, with what the last one has left."""
        self.state, self.tasks, self.ended = reloaded(self.state), [], set()
        self.candidates = max(self.candidates, self.rules.candidates)
        self.send(Boot(self.items))

    def edit(self, *items: LaneItem) -> None:
        """A person writes the plan."""
        self.items, self.words = plan(*items), self.words + 1
        self.send(Planned(self.items))

    def ask(self, wish: Wish, which: str) -> None:
        """A person asks something of a lane."""
        self.send(Asked(wish, which))

    def stop_now(self) -> None:
        """All ends at once."""
        self.send(Halt("stopped"))
        if self.state.landing is not None and not self.state.landing.commit:
            self._drop("land", "")
            self.send(Delayed("stopped"))
        for kind, which in list(self.tasks):
            if kind == "make" and self.finish is None:
                self._drop(kind, which)
                self.send(Idle(which))
        for kind, which in list(self.tasks):
            if kind == "lane":
                self.over(which, State.STOPPED)

    # -- answers -----------------------------------------------------------------------------------

    def made(self, which: str, flaw: str = "", *, fatal: bool = False, there: bool = True) -> None:
        """A work tree is made, or not."""
        self._drop("make", which)
        self.send(Made(which, "base", f"/{which}" if there else "", flaw, fatal))

    def over(
        self,
        which: str,
        state: State = State.COMPLETED,
        size: int = 1,
        flaw: str = "",
        *,
        bounded: bool = False,
    ) -> None:
        """A loop ends."""
        lane = self.state.lane(which)
        if lane is not None and lane.back is not None:
            self.send(Returned(which))
        self._drop("lane", which)
        self.ended.discard(which)
        over = Over(which, state, state.value, f"tip {which}", size, flaw, bounded=bounded)
        self.send(over)

    def prove(self) -> None:
        """The gates are green where the lanes are combined."""
        landing = self.state.landing
        assert landing is not None
        self._drop("land", "")
        commit = f"commit {len(self.log)}"
        self.proven[commit] = landing.lanes
        self.send(Proven(landing.lanes, "onto", commit))

    def answer(self, event: Event) -> None:
        """Another answer of a landing."""
        self._drop("land", "")
        self._drop("move", "")
        self.send(event)

    def judged(self, key: str, best: str, why: str = "") -> None:
        """The reviewer has compared the candidates for an item."""
        self._drop("judge", key)
        self.send(Judged(key, best, why))

    def cleared(self, which: str, left: str = "") -> None:
        """A work tree is gone, or stays."""
        self._drop("clear", which)
        self.send(Cleared(which, left))

    def good(self, task: Task) -> None:
        """The best answer."""
        kind, which = task
        if kind == "make":
            self.made(which)
        elif kind == "lane":
            self.over(which, State.STOPPED if which in self.ended else State.COMPLETED)
        elif kind == "clear":
            self.cleared(which)
        elif kind == "land":
            self.prove()
        elif kind == "judge":
            self.judged(which, max(one.id for one in self.state.lanes if one.item == which))
        else:
            self.answer(Moved())

    def drain(self, most: int = 0) -> None:
        """Let all go well until it ends; it must end."""
        steps = most or 30 + 20 * (len(self.items) + len(self.state.lanes)) * self.rules.candidates
        while self.finish is None:
            assert self.tasks, "nothing is under way, and it has not ended"
            assert steps, "it does not end"
            steps -= 1
            self.good(self.tasks[0])

    # -- within ------------------------------------------------------------------------------------

    def _drop(self, kind: str, which: str) -> None:
        if (kind, which) in self.tasks:
            self.tasks.remove((kind, which))

    def _begin(self, kind: str, which: str) -> None:
        if kind != "clear":
            assert (kind, which) not in self.tasks or kind == "land", f"{kind} {which} twice"
        self._drop(kind, which)
        self.tasks.append((kind, which))

    def _carry_out(self, command: Command) -> None:
        match command:
            case Make(which):
                self._begin("make", which)
            case Begin(which):
                self._begin("lane", which)
            case End(which):
                assert ("lane", which) in self.tasks
                self.ended.add(which)
            case Land(names):
                landing = self.state.landing
                assert landing is not None
                assert landing.lanes == names
                self._begin("land", "")
            case Move():
                self._begin("move", "")
            case Judge(key, names):
                assert len(names) > 1
                assert all(self.state.lane(one).state is LaneState.READY for one in names)  # type: ignore[union-attr]
                self._begin("judge", key)
            case Clear(which):
                lane = self.state.lane(which)
                assert lane is not None
                assert lane.state in OVER
                if lane.place:
                    self._begin("clear", which)
            case Finish():
                self.finish = command
            case _:
                pass


def transitions(world: World, before: Lanes, event: Event) -> None:
    """What must hold of one decision."""
    after, commands = world.state, world.commands
    still = {one.id: one for one in before.lanes}
    finished = {one.key for one in after.items if one.done} | set(after.settled)
    unfinished = {one.number for one in after.items if one.key not in finished}
    begun = [one for one in commands if isinstance(one, Make | Begin | Land)]
    if after.halt or after.spent or after.paused:
        assert not begun, "begun while nothing may be"
    assert {one.id for one in before.lanes} <= {one.id for one in after.lanes}
    for lane in after.lanes:
        was = still.get(lane.id)
        if was is None:
            assert lane.id not in world.ever, "an id was used again"
            world.ever.add(lane.id)
            after_ = next(one for one in after.items if one.key == lane.item).after
            assert unfinished.isdisjoint(after_), "begun before what it comes after"
            continue
        if was.state in OVER:
            assert lane.state is was.state, "what is over is over"
        if lane.state is LaneState.LANDED and was.state is not LaneState.LANDED:
            assert isinstance(event, Moved)
            assert not event.raced
            assert was.state is LaneState.LANDING, "only what was to land has landed"
            assert lane.id in world.proven.get(lane.landed, ()), "landed without proof"
            assert lane.id not in world.landed, "landed twice"
            assert before.landing is not None
            assert before.landing.commit == lane.landed
            world.landed.append(lane.id)
        if lane.state is LaneState.LANDING:
            done = (
                isinstance(event, Over)
                and event.lane == lane.id
                and event.state is State.COMPLETED
                and event.size > 0
                and not event.flaw
            )
            ready = was.state in (LaneState.READY, LaneState.LANDING)
            assert ready or done, "landed before it was ready"
        if lane.state in OVER and was.state not in OVER:
            assert Clear(lane.id) in commands, "not asked to be cleared"
    if isinstance(event, Boot):
        for lane in after.lanes:
            assert lane.state not in OVER or not lane.place or Clear(lane.id) in commands
    finishes = [one for one in commands if isinstance(one, Finish)]
    clearing = any(one.place and not one.left for one in after.of(*OVER))
    quiet = not (after.at_work or after.landing or clearing or after.judging)
    may = not after.paused or bool(after.halt or after.spent)
    if not (isinstance(event, Pause) and event.on):
        assert len(finishes) == (quiet and may), "an end where there is none, or none"
    for one in finishes:
        assert commands[-1] == one
        if one.state is State.COMPLETED:
            assert after.items
            assert all(item.key in finished for item in after.items)
        elif not (after.halt or after.spent):
            later = [one for one in after.lanes if one.bounded]
            rivals = {one.item for one in later}
            ready = [one for one in after.of(LaneState.READY) if one.item not in rivals]
            assert not ready, "what is ready was left"
            assert {one.id for one in later}.issuperset(after.idle), "what waits was left"


def invariants(world: World) -> None:
    """What must hold at any time."""
    state, rules = world.state, world.rules
    assert reloaded(state) == dataclasses.replace(state, paused=False, judging=())
    assert len(state.at_work) <= rules.most, "too many at work"
    settled = {one.item for one in state.of(LaneState.LANDED)}
    assert settled - {""} <= set(state.settled)
    for one in state.items:
        own = [lane for lane in state.at_work if lane.item == one.key]
        assert len(own) <= world.candidates, "too many at work on one item"
    trees = [one.slot for one in state.lanes if one.place or one in state.at_work]
    assert len(set(trees)) == len(trees), "two lanes have the same ports"
    if world.finish is not None:
        return
    under_way = {which for kind, which in world.tasks if kind in ("make", "lane")}
    assert under_way == {one.id for one in state.at_work}, "what is at work is not under way"
    lands = [kind for kind, _ in world.tasks if kind in ("land", "move")]
    moving = state.landing is not None and bool(state.landing.commit)
    assert lands == ([] if state.landing is None else ["move" if moving else "land"])
    assert {key for kind, key in world.tasks if kind == "judge"} == set(state.judging)
    clearing = {which for kind, which in world.tasks if kind == "clear"}
    assert clearing == {one.id for one in state.of(*OVER) if one.place and not one.left}
    for one in state.at_work:
        lane_ends = one.ending and one.state is LaneState.WORKING
        assert not lane_ends or one.id in world.ended, "was not told to end"
