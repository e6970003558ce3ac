"""Kill the supervisor of lanes before each command that it carries out, and let the next one go on:
it comes to the same end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from codex_self_iter.core import lane_machine
from codex_self_iter.core.lanes import Delayed, LaneState, Moved, Refused, Rules, Wish
from codex_self_iter.core.terms import State
from tests.support.lane_world import KilledError, Task, World, item

pytestmark = pytest.mark.slow


class Story:
    """A world in which things go wrong at places of their own, whoever looks after them."""

    def __init__(self, name: str, rules: Rules) -> None:
        self.name = name
        self.world = World((item(1), item(2), item(3, 1), item(4)), rules)
        self.seen: Counter[str] = Counter()
        self.went: set[str] = set()

    def once(self, what: str, most: int = 1) -> bool:
        """Whether it goes wrong this time."""
        self.seen[what] += 1
        return self.seen[what] <= most

    def answer(self, task: Task) -> None:
        """What the world answers."""
        world, (kind, which) = self.world, task
        landing = world.state.landing
        if self.name == "crash" and kind == "lane" and which == "2" and self.once("crash", 2):
            world.over(which, State.CRASHED, 0)
        elif self.name == "make" and kind == "make" and which == "1" and self.once("make"):
            world.made(which, "no space", there=False)
        elif self.name == "empty" and kind == "lane" and which == "1" and self.once("empty"):
            world.over(which, size=0)
        elif self.name == "stays" and kind == "clear" and self.once(f"clear {which}"):
            world.cleared(which, "a process is in it")
        elif self.name == "drop" and kind == "lane" and which == "2" and self.once("drop"):
            world.ask(Wish.DROP, "2")
        elif self.name == "tick" and kind == "land" and "1" in (landing.lanes if landing else ()):
            world.edit(item(1, done=True), item(2), item(3, 1), item(4))
        elif self.name == "conflict" and kind == "land" and landing and "2" in landing.lanes:
            if len(landing.lanes) > 1:
                world.answer(Refused(landing.lanes, "red", "they conflict"))
            elif self.once("conflict"):
                world.answer(Refused(("2",), "conflict", "both", "marked"))
            else:
                world.good(task)
        elif self.name == "red" and kind == "land" and landing and len(landing.lanes) > 1:
            world.answer(Refused(landing.lanes, "red", "gates"))
        elif self.name == "race" and kind == "move" and self.once("race", 3):
            world.answer(Moved(raced=True))
        elif self.name == "held" and kind == "move":
            world.answer(Moved(held="changes of yours", ticked=False))
        elif self.name == "delay" and kind in ("land", "move") and self.once("delay", 2):
            world.answer(Delayed("no space"))
        else:
            world.good(task)

    def run(self, kill_at: tuple[int, int] | None = None) -> tuple[object, ...]:
        """Run it to its end, over a kill; how it ends."""
        world = self.world
        world.kill_at = kill_at
        try:
            world.boot()
            self.on()
        except KilledError:
            world.kill_at = None
            world.finish = None
            world.boot()
            self.on()
        assert world.finish is not None
        state = world.state
        return (
            world.finish.state,
            sorted(one.key for one in state.open_items),
            sorted(state.settled),
            sorted((one.item, one.state) for one in state.lanes if one.state not in _EITHER),
        )

    def on(self) -> None:
        world = self.world
        for _ in range(300):
            if world.finish is not None:
                return
            assert world.tasks, "nothing is under way, and it has not ended"
            self.answer(world.tasks[0])
        raise AssertionError("it does not end")


_EITHER = (LaneState.LOST,)
"""Which candidate is the better one may depend on when."""
STORIES = {
    "plain": Rules(2),
    "one": Rules(1),
    "many": Rules(4, batch=4),
    "candidates": Rules(3, candidates=2),
    "compared": Rules(3, candidates=2, reviewer=True),
    "crash": Rules(2),
    "make": Rules(2),
    "empty": Rules(2),
    "stays": Rules(2),
    "drop": Rules(2),
    "tick": Rules(2),
    "conflict": Rules(3, batch=3),
    "red": Rules(4, batch=4),
    "race": Rules(2),
    "held": Rules(2),
    "delay": Rules(2),
}


def enumerate_kills(name: str) -> int:
    """Kill at each place, and compare the ends; how many places there were."""
    whole = Story(name, STORIES[name])
    end = whole.run()
    kills = 0
    sizes = _sizes(name)
    for number, size in enumerate(sizes, 1):
        for done in range(size + 1):
            kills += 1
            assert Story(name, STORIES[name]).run((number, done)) == end, (number, done)
    return kills


def _sizes(name: str) -> list[int]:
    """How many commands each decision gives."""
    story, sizes = Story(name, STORIES[name]), list[int]()
    send = story.world.send

    def counting(event: object) -> object:
        before = len(story.world.log)
        found = send(event)  # type: ignore[arg-type]
        if len(story.world.log) > before:
            sizes.append(len(found))
        return found

    story.world.send = counting  # type: ignore[method-assign,assignment]
    story.run()
    return sizes


@pytest.mark.parametrize("name", STORIES)
def test_a_kill_at_any_place_leads_to_the_same_end(name: str) -> None:
    assert enumerate_kills(name) > 20


def _boot_without_move(turn: lane_machine._Turn) -> None:
    _BOOT(turn)
    turn.commands = [one for one in turn.commands if not isinstance(one, lane_machine.Move)]


def _boot_without_clear(turn: lane_machine._Turn) -> None:
    _BOOT(turn)
    turn.commands = [one for one in turn.commands if not isinstance(one, lane_machine.Clear)]


def _boot_without_lanes(turn: lane_machine._Turn) -> None:
    turn.clear()


_BOOT = lane_machine._Turn.boot


@pytest.mark.parametrize("instead", [_boot_without_move, _boot_without_clear, _boot_without_lanes])
def test_a_start_that_forgets_is_found(
    instead: Callable[[lane_machine._Turn], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_machine._Turn, "boot", instead)
    with pytest.raises(AssertionError):
        enumerate_kills("plain")
