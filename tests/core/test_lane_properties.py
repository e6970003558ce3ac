"""Anything may happen to lanes at any time: what must hold holds, and it comes to an end."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from codex_self_iter.core import lane_choice, lane_machine
from codex_self_iter.core.lanes import (
    Cleared,
    Delayed,
    Followed,
    Halt,
    Landing,
    LaneState,
    Made,
    Moved,
    Over,
    Pause,
    Proven,
    Refused,
    Returned,
    Rules,
    Wish,
)
from codex_self_iter.core.terms import State
from tests.support.lane_world import World, item

NUMBERS = st.integers(0, 10_000)

pytestmark = pytest.mark.slow


class Fate:
    """What happens, chosen by numbers."""

    def __init__(self, world: World) -> None:
        self.world = world

    def go_on(self, which: int, how: int) -> None:
        """Something that is under way ends, well or not."""
        world = self.world
        if world.finish is not None or not world.tasks:
            return
        kind, lane = world.tasks[which % len(world.tasks)]
        if how % 3 == 0:
            world.good((kind, lane))
        elif kind == "make":
            flaws: list[dict[str, Any]] = [
                {"flaw": "no space", "there": False},
                {"flaw": "set-up failed"},
                {"flaw": "no", "fatal": True, "there": bool(how % 2)},
            ]
            world.made(lane, **flaws[how // 3 % 3])
        elif kind == "lane":
            ends = [
                (State.COMPLETED, how % 7, ""),
                (State.COMPLETED, 0, ""),
                (State.COMPLETED, 2, "not committed"),
                (State.CRASHED, 0, ""),
                (State.STAGNATED, 1, ""),
                (State.STOPPED, 1, ""),
            ]
            world.over(lane, *ends[how // 3 % len(ends)], bounded=how % 2 == 0)
        elif kind == "clear":
            world.cleared(lane, "a process is in it")
        elif kind == "land":
            self._land(how // 3)
        else:
            moves = [Moved(raced=True), Moved(held="changes of yours"), Delayed("no space")]
            moves += [Moved(ticked=False)]
            world.answer(moves[how // 3 % len(moves)])

    def _land(self, how: int) -> None:
        world, landing = self.world, self.world.state.landing
        assert landing is not None
        names = landing.lanes[: 1 + how % len(landing.lanes)]
        answers = [
            Refused(names, "conflict", "both", "onto"),
            Refused(landing.lanes, "red", "gates", "onto"),
            Delayed("no space"),
            Refused(names, "red", "they conflict"),
        ]
        world.answer(answers[how % len(answers)])

    def person(self, which: int, how: int) -> None:
        """A person asks something."""
        if lanes := self.world.state.lanes:
            self.world.ask([*Wish][how % 3], lanes[which % len(lanes)].id)

    def edit(self, which: int, how: int) -> None:
        """A person edits the plan."""
        world, items = self.world, list(self.world.items)
        at = which % (len(items) + 1)
        if how % 6 == 0 or at == len(items):
            after = [which % (len(items) + 2)] if how % 4 == 0 else []
            items.insert(at, item(0, *after, key=f"new {world.words}"))
        elif how % 6 == 1:
            items[at] = dataclasses.replace(items[at], done=not items[at].done)
        elif how % 6 == 2:
            del items[at]
        elif how % 6 == 3:
            items[at] = dataclasses.replace(items[at], key=f"other {world.words}")
        elif how % 6 == 4:
            items[at] = dataclasses.replace(items[at], body=f"more {world.words}")
        else:
            items, kept = [], items
            world.edit()
            items = kept
        world.edit(*items)

    def halt(self, how: int) -> None:
        """Somebody stops all, or lets it go on."""
        world = self.world
        if how % 4 == 0:
            world.stop_now()
        elif how % 4 == 1:
            world.send(Halt("stopped"))
        elif how % 4 == 2:
            world.send(Halt("spent", spent=True))
        else:
            world.send(Halt(""))
            world.send(Halt("", spent=True))

    def pause(self, how: int) -> None:
        """Nothing is begun for now, or it is again; and the target is looked at."""
        self.world.send(Pause(bool(how % 2)))
        if how % 3 == 0:
            self.world.send(Followed("changes of yours" if how % 5 == 0 else "", "commit"))

    def start(self, how: int) -> None:
        """A supervisor starts after a kill, perhaps with other settings."""
        if how % 3 == 0:
            self.world.rules = Rules(
                1 + how % 4, 1 + how // 4 % 3, 1 + how // 12 % 4, how % 3, reviewer=how % 5 == 0
            )
        self.world.boot()

    def stray(self, which: int, how: int) -> None:
        """What comes late, or twice, changes nothing."""
        world, state = self.world, self.world.state
        if world.finish is not None:
            return
        lanes = [one for one in state.lanes if one not in state.at_work]
        lane = lanes[which % len(lanes)].id if lanes else "99"
        late = [
            Made(lane, "base", "/elsewhere"),
            Over(lane, State.COMPLETED, "done", "tip", 5),
            Proven((lane, "99"), "onto", "commit"),
            Refused((), "red", ""),
            Refused(("99",), "red", ""),
            Returned("99"),
            Cleared("99"),
        ]
        if state.landing is None:
            late += [Moved(), Delayed("why"), Proven((lane,), "onto", "commit")]
        elif state.landing.commit:
            late += [Refused(state.landing.lanes, "red", ""), Proven(state.landing.lanes, "o", "c")]
        else:
            late += [Moved()]
        before = state
        world.send(late[how % len(late)])
        assert world.state == before

    def end(self) -> None:
        """All goes well from now on: it ends."""
        world = self.world
        world.boot()
        world.send(Pause(False))
        world.drain()
        left = world.state.open_items
        assert world.finish is not None
        assert (world.finish.state is State.COMPLETED) <= (not left)


class Lives(RuleBasedStateMachine):
    """The same, for hypothesis."""

    @initialize(most=st.integers(1, 4), candidates=st.integers(1, 3), batch=st.integers(1, 4))
    def begin(self, most: int, candidates: int, batch: int) -> None:
        items = (item(1), item(2), item(3, 1), item(4, 2, 3), item(5))
        self.fate = Fate(World(items, Rules(most, candidates, batch, 2)))
        self.fate.world.boot()

    @rule(which=NUMBERS, how=NUMBERS)
    def go_on(self, which: int, how: int) -> None:
        self.fate.go_on(which, how)

    @rule(which=NUMBERS)
    def go_well(self, which: int) -> None:
        self.fate.go_on(which, 0)

    @rule(which=NUMBERS, how=NUMBERS)
    def person(self, which: int, how: int) -> None:
        self.fate.person(which, how)

    @rule(which=NUMBERS, how=NUMBERS)
    def edit(self, which: int, how: int) -> None:
        self.fate.edit(which, how)

    @rule(how=NUMBERS)
    def halt(self, how: int) -> None:
        self.fate.halt(how)

    @rule(how=NUMBERS)
    def pause(self, how: int) -> None:
        self.fate.pause(how)

    @rule(how=NUMBERS)
    def start(self, how: int) -> None:
        self.fate.start(how)

    @rule(which=NUMBERS, how=NUMBERS)
    def stray(self, which: int, how: int) -> None:
        self.fate.stray(which, how)

    def teardown(self) -> None:
        if hasattr(self, "fate"):
            self.fate.end()


def test_whatever_happens_what_must_hold_holds_and_it_ends() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Lives, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )


def live(seed: int) -> None:
    """One life that a seed chooses."""
    chance = random.Random(seed)
    items = (item(1), item(2), item(3, 1), item(4, 2, 3), item(5))
    rules = Rules(
        chance.randint(1, 3), chance.randint(1, 3), chance.randint(1, 4), 2, chance.random() < 0.3
    )
    fate = Fate(World(items, rules))
    fate.world.boot()
    for _ in range(60):
        which, how = chance.randrange(10_000), chance.randrange(10_000)
        deeds: list[Callable[[], None]] = [
            lambda: fate.go_on(which, how),  # noqa: B023 - called at once
            lambda: fate.person(which, how),  # noqa: B023
            lambda: fate.edit(which, how),  # noqa: B023
            lambda: fate.halt(how),  # noqa: B023
            lambda: fate.pause(how),  # noqa: B023
            lambda: fate.start(how),  # noqa: B023
            lambda: fate.stray(which, how),  # noqa: B023
        ]
        chance.choices(deeds, [30, 3, 3, 1, 1, 2, 2])[0]()
    fate.end()


def test_so_it_is_in_many_lives() -> None:
    for seed in range(40):
        live(seed)


TURN = lane_machine._Turn


def _nothing(*_: Any, **__: Any) -> None:
    """What is switched off."""


def _all_at_once(turn: Any) -> None:
    now = turn.state.idle
    turn.set(idle=())
    for which in now:
        turn._again(which)


def _no_back(turn: Any) -> None:
    turn.set(landing=None)


def _moved_at_once(turn: Any, event: Moved) -> None:
    landing = turn.state.landing
    if landing is not None:
        turn.set(landing=Landing(landing.lanes, "", landing.commit or "a commit"))
        _MOVED(turn, event)


def _done_is_landed(turn: Any, lane: Any, event: Over) -> None:
    turn.change(lane.id, state=LaneState.LANDED)


def _forgotten_end(turn: Any, which: str) -> None:
    _AGAIN(turn, which)
    turn.commands = [one for one in turn.commands if not isinstance(one, lane_machine.End)]


_MOVED, _AGAIN = TURN.moved, TURN._again
OFF: dict[str, tuple[Any, str, Any]] = {
    "nothing is begun in a pause or after a halt": (TURN, "_beginning", True),
    "what waits goes on": (TURN, "goes_on", _nothing),
    "only where there is room": (TURN, "_resume", _all_at_once),
    "what is not landed is ready again": (TURN, "_give_back", _no_back),
    "work trees are asked for until they are gone": (TURN, "clear", _nothing),
    "lanes rest when their item is gone": (TURN, "follow_items", _nothing),
    "what is refused comes back": (TURN, "refused", _nothing),
    "what is delayed is tried again": (TURN, "delayed", _nothing),
    "only what is proven lands": (TURN, "moved", _moved_at_once),
    "only what lands has landed": (TURN, "_done", _done_is_landed),
    "what is under way is known": (TURN, "_quiet", lambda *_: True),
    "what is to end is told so after a kill": (TURN, "_again", _forgotten_end),
    "a start goes on with what was at work": (TURN, "boot", _nothing),
    "of candidates one is chosen": (TURN, "_choose", _nothing),
    "ports are of one lane": (lane_choice, "slots", lambda *_, **__: set()),
    "ids are never used again": (lane_choice, "free_id", lambda _, number, *__: str(number)),
    "items wait for others": (
        lane_choice,
        "wanting",
        lambda state, rules: [
            one for one in state.open_items if not lane_choice.groups(state).get(one.key)
        ],
    ),
    "completed is when nothing is left": (
        lane_choice,
        "finish",
        lambda state: lane_machine.choice.Finish(State.COMPLETED, ""),
    ),
}


@pytest.mark.parametrize("what", OFF)
def test_what_is_switched_off_is_missed(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, instead = OFF[what]
    monkeypatch.setattr(where, name, instead)
    for seed in range(200):
        try:
            live(seed)
        except (AssertionError, ValueError, IndexError):
            return
    pytest.fail(f"nothing misses it: {what}")
