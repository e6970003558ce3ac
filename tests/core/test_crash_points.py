"""Kill the supervisor before every command that it ever carries out, and let the next one go on.

The agent, the disk and the story survive; everything else is lost. The end must be the one of the
run that nobody killed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from codex_self_iter.core import commands as cmd
from codex_self_iter.core import events as ev
from codex_self_iter.core.agent_report import FailureClass
from codex_self_iter.core.policy import Policy
from codex_self_iter.core.runs import EndCause
from tests.support.loop_world import (
    Answer,
    CrashError,
    Script,
    World,
    block,
    claim,
    fail,
    failing,
    passing,
    plan,
    policy,
    review,
    work,
)


@dataclasses.dataclass
class Scenario:
    """One story, with the end that it must come to."""

    script: Callable[[], Script]
    rules: Policy
    end: tuple[str, int]
    at: dict[tuple[str, int], Callable[[World], None]] = dataclasses.field(default_factory=dict)
    stopped: bool = False
    """A person ends it: where exactly depends on when the person comes."""

    def world(self, **more: Any) -> World:
        return World(self.script(), self.rules, at=self.at, **more)


def two_messages(world: World) -> None:
    world.say("a.md")
    world.say("b.md")


def noting(*notes: str) -> Answer:
    return Answer(block("go on", notes=notes))


SCENARIOS = {
    "goal mode": Scenario(
        lambda: Script([work("b"), work("c"), claim()]),
        policy(),
        ("completed", 0),
        {("executor", 1): two_messages},
    ),
    "gates, a rejected claim, confirmations": Scenario(
        lambda: Script(
            [work("b"), claim(), claim(), claim(), claim()], gates=[passing(), failing(), passing()]
        ),
        policy(verify_commands=("true",), confirmations=2, max_stagnation=0),
        ("completed", 0),
    ),
    "notes": Scenario(
        lambda: Script([noting("one", "two"), noting("two"), noting("three"), claim()]),
        policy(checkpoints=True),
        ("completed", 0),
    ),
    "keep": Scenario(
        lambda: Script([work("b"), work("c", changed=False), claim()]),
        policy(checkpoints=True, commit=True),
        ("completed", 0),
        {("keep", 1): lambda world: world.say("kept.md")},
    ),
    "roles": Scenario(
        lambda: Script(
            [work("b"), work("c"), claim()],
            planner=[plan(), plan(stop=True), plan()],
            reviewer=[review(True, "x"), review(False), review(False)],
        ),
        policy(mode="roles", verify_commands=("true",), checkpoints=True),
        ("completed", 0),
        {("planner", 1): two_messages, ("reviewer", 1): lambda world: world.say("late.md")},
    ),
    "errors": Scenario(
        lambda: Script(
            [
                Answer("no block", changed=False),
                fail(FailureClass.NETWORK),
                work("b"),
                Answer("", exit_code=3, changed=False),
                claim(),
            ]
        ),
        policy(),
        ("completed", 0),
        {("backoff", 2): lambda world: world.say("m.md")},
    ),
    "too many errors": Scenario(
        lambda: Script([work("b"), Answer("no block", changed=False)]),
        policy(max_consecutive_errors=3),
        ("blocked", 4),
    ),
    "limit with a reset": Scenario(
        lambda: Script(
            [
                work("b"),
                fail(FailureClass.LIMIT, "limit", reset_at=1_700_009_000.0),
                work("c"),
                claim(),
            ]
        ),
        policy(),
        ("completed", 0),
        {("executor", 2): lambda world: world.say("limited.md")},
    ),
    "limit with another agent": Scenario(
        lambda: Script(
            [fail(FailureClass.LIMIT, "limit", 1_700_000_500.0), work("b"), work("c"), claim()]
        ),
        policy("one", "two"),
        ("completed", 0),
        {("executor", 1): lambda world: world.say("limited.md")},
    ),
    "a broken agent is replaced, then a failing one": Scenario(
        lambda: Script(
            [fail(FailureClass.AUTH), *[Answer("no block", changed=False)] * 2, work("b"), claim()]
        ),
        policy("one", "two", "three"),
        ("completed", 0),
        {("executor", 1): lambda world: world.say("broken.md")},
    ),
    "a prompt that is too long, and work that is cut short": Scenario(
        lambda: Script(
            [
                work("b"),
                fail(FailureClass.CONTEXT),
                Answer("", EndCause.WALL_TIMEOUT),
                work("c", ticked=1),
                claim(),
            ]
        ),
        policy(max_consecutive_errors=1),
        ("completed", 0),
    ),
    "an outage without an end": Scenario(
        lambda: Script([work("b"), fail(FailureClass.NETWORK)]),
        policy(max_outage_sec=2_000.0),
        ("blocked", 4),
    ),
    "nothing changes": Scenario(
        lambda: Script([Answer(block("same"), changed=False)]),
        policy(max_stagnation=4),
        ("stagnated", 3),
    ),
    "steer --now": Scenario(
        lambda: Script([work("b"), work("c"), claim()]),
        policy(checkpoints=True),
        ("completed", 0),
        {("executor", 2): lambda world: world.say("now.md", now=True)},
    ),
    "steer --now into the running turn": Scenario(
        lambda: Script([work("b"), work("c"), claim()]),
        policy(checkpoints=True, steers=True),
        ("completed", 0),
        {("executor", 2): lambda world: world.say("now.md", now=True)},
    ),
    "pause and pause --now": Scenario(
        lambda: Script([work("b"), work("c"), claim()]),
        policy(verify_commands=("true",)),
        ("completed", 0),
        {
            ("executor", 1): lambda world: world.pause(),
            ("executor", 2): lambda world: world.pause(now=True),
            ("verify", 4): lambda world: world.pause(now=True),
        },
    ),
    "a goal and an edit": Scenario(
        lambda: Script([work("b"), work("c"), claim()]),
        policy(),
        ("completed", 0),
        {
            ("executor", 1): lambda world: world.set_goal(MINE),
            ("executor", 2): lambda world: world.handle(ev.Edited("plan", 3, 1)),
        },
    ),
    "stop": Scenario(
        lambda: Script([work("b"), work("c"), claim()]),
        policy(checkpoints=True),
        ("stopped", 0),
        {("executor", 2): lambda world: world.stop()},
        stopped=True,
    ),
    "stop while a run that has ended is looked at": Scenario(
        lambda: Script([work("b"), work("c"), claim()]),
        policy(checkpoints=True, commit=True, verify_commands=("true",)),
        ("stopped", 0),
        {("looked at", 2): lambda world: world.stop()},
        stopped=True,
    ),
    "steer --now and pause --now while a run that has ended is looked at": Scenario(
        lambda: Script([work("b"), work("c"), claim()]),
        policy(verify_commands=("true",)),
        ("completed", 0),
        {
            ("looked at", 1): lambda world: world.say("late.md", now=True),
            ("looked at", 2): lambda world: world.pause(now=True),
            ("looked at", 3): lambda world: world.pause(now=True),
        },
    ),
    "another message of a name that the iteration had": Scenario(
        lambda: Script([work("b"), claim()], reviewer=[review(True), review(False)]),
        policy(mode="roles"),
        ("completed", 0),
        {
            ("planner", 1): lambda world: world.say("a.md", "one"),
            ("executor", 1): lambda world: world.say("a.md", "two"),
        },
    ),
    "an agent that ends its own recorder": Scenario(
        lambda: Script(
            [
                work("b", cause=EndCause.REQUEST),
                work("c", cause=EndCause.LOST),
            ]
        ),
        policy(max_consecutive_errors=4),
        ("blocked", 4),
    ),
    "stop in the gates": Scenario(
        lambda: Script([work("b"), claim()]),
        policy(verify_commands=("true",)),
        ("stopped", 0),
        {("verify", 2): lambda world: world.stop()},
        stopped=True,
    ),
    "stop after the iteration": Scenario(
        lambda: Script([work("b"), work("c"), claim()]),
        policy(mode="roles"),
        ("stopped", 0),
        {("planner", 2): lambda world: world.stop(after_iteration=True)},
        stopped=True,
    ),
}

MINE = "mine"
WAYS = ("adopted", "killed", "rebooted")


def crash(world: World, way: str) -> None:
    """The supervisor is gone; some time later the next one starts."""
    while True:
        world.pass_time(7.0)
        if way == "rebooted":
            world.agents.gone()
            world.boot_id, world.up = world.boot_id + "+", 20.0
        try:
            world.boot(kill=way == "killed")
            return
        except CrashError:
            continue


def play(world: World, way: str) -> World:
    """From the first start to the end, through every crash."""
    world.executed = 0
    try:
        world.boot()
    except CrashError:
        crash(world, way)
    while world.exit is None:
        try:
            world.run()
        except CrashError:
            crash(world, way)
    return world


def story(world: World) -> list[tuple[str, str, str]]:
    """The journal without what a crash or a person broke off."""
    return [
        (line["verdict"], line["goal_in"], line["next_goal"])
        for line in world.disk.journal
        if line["verdict"] not in ("interrupted", "aborted")
    ]


def compare(scenario: Scenario, world: World, whole: World, way: str) -> None:
    assert world.exit is not None
    assert (world.exit.state.value, world.exit.code) == scenario.end
    assert world.disk.notes == whole.disk.notes
    numbers = [line["iteration"] for line in world.disk.journal]
    assert numbers == list(range(1, len(numbers) + 1))
    told, expected = story(world), story(whole)
    if scenario.stopped:
        assert told == expected[: len(told)] or expected == told[: len(expected)]
    else:
        told = told[: len(expected)]
        # A run that did not survive is done again; a goal that was set in it comes one iteration
        # earlier.
        assert (
            told == expected
            if way == "adopted"
            else [t[0] for t in told] == [e[0] for e in expected]
        )
        assert {goal for _, goal, _ in expected if goal == MINE} <= {goal for _, goal, _ in told}
    for name, readers in world.agents.readers.items():
        assert len(readers) == len(whole.agents.readers.get(name, readers)), name
    if not scenario.stopped:
        assert world.agents.readers.keys() == whole.agents.readers.keys()
    else:
        waiting = set(world.disk.inbox) | {m.name for m in world.state.carried}
        assert set(whole.agents.readers) <= set(world.agents.readers) | waiting


COUNTED: dict[str, int] = {}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_crash_point_leads_to_the_same_end(name: str, way: str) -> None:
    scenario = SCENARIOS[name]
    whole = play(scenario.world(), way)
    assert whole.exit is not None
    assert (whole.exit.state.value, whole.exit.code) == scenario.end
    for point in range(whole.executed):
        world = scenario.world()
        world.crash_at = {point}
        compare(scenario, play(world, way), whole, way)
    COUNTED[f"{name}/{way}"] = whole.executed


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_second_crash_soon_after_the_first_leads_to_the_same_end(name: str, way: str) -> None:
    scenario = SCENARIOS[name]
    whole = play(scenario.world(), way)
    for point in range(whole.executed):
        for next_point in (1, 3):
            world = scenario.world()
            world.crash_at = {point, point + next_point}
            compare(scenario, play(world, way), whole, way)
    COUNTED[f"{name}/{way}/twice"] = 2 * whole.executed


def test_many_points_were_tried(capsys: pytest.CaptureFixture[str]) -> None:
    if not COUNTED:
        pytest.skip("runs after the enumeration")
    with capsys.disabled():
        print(f"\n{sum(COUNTED.values())} crash points in {len(COUNTED)} series", end=" ")
    if len(COUNTED) == 2 * len(SCENARIOS) * len(WAYS):
        assert sum(COUNTED.values()) > 3_000


# -- negative controls -----------------------------------------------------------------------------


def persist_last(commands: tuple[cmd.Command, ...]) -> tuple[cmd.Command, ...]:
    """The fault: the intent is written down after the agent was started."""
    if not any(isinstance(command, cmd.StartRun) for command in commands):
        return commands
    return (*(c for c in commands if not isinstance(c, cmd.Persist)), cmd.Persist())


def journal_last(commands: tuple[cmd.Command, ...]) -> tuple[cmd.Command, ...]:
    """The fault: the snapshot is replaced before the line is in the journal."""
    if not any(isinstance(command, cmd.Journal) for command in commands):
        return commands
    journal = tuple(c for c in commands if isinstance(c, cmd.Journal))
    rest = tuple(c for c in commands if not isinstance(c, cmd.Journal | cmd.Prepare))
    return (cmd.Persist(), *rest, *journal, *(c for c in commands if isinstance(c, cmd.Prepare)))


def take_first(commands: tuple[cmd.Command, ...]) -> tuple[cmd.Command, ...]:
    """The fault: messages leave the inbox before it is written down who has them."""
    if not any(isinstance(command, cmd.TakeMessages) for command in commands):
        return commands
    taken = tuple(c for c in commands if isinstance(c, cmd.TakeMessages))
    return (*taken, *(c for c in commands if not isinstance(c, cmd.TakeMessages)))


def end_unsaid(commands: tuple[cmd.Command, ...]) -> tuple[cmd.Command, ...]:
    """The fault: a run is ended without a word of it on the disk."""
    return tuple(c for c in commands if isinstance(c, cmd.Abort)) or commands


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("goal mode", persist_last),
        ("goal mode", journal_last),
        ("goal mode", take_first),
        ("steer --now", end_unsaid),
    ],
)
def test_negative_control_another_order_is_caught(
    name: str, fault: Callable[..., tuple[cmd.Command, ...]]
) -> None:
    scenario = SCENARIOS[name]
    whole = play(scenario.world(), "adopted")
    caught = 0
    for point in range(whole.executed + 20):
        world = scenario.world(swap=fault)
        world.crash_at = {point}
        try:
            compare(scenario, play(world, "adopted"), whole, "adopted")
        except AssertionError:
            caught += 1
    assert caught
