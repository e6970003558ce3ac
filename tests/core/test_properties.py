"""Anything may happen at any time, in any order, with crashes and clock jumps in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from codex_self_iter.core import commands as cmd
from codex_self_iter.core import events as ev
from codex_self_iter.core import waits
from codex_self_iter.core.agent_report import FailureClass, Usage
from codex_self_iter.core.policy import BudgetPolicy, Policy
from codex_self_iter.core.state import LoopState, Step, WaitKind
from tests.support.loop_world import (
    GOAL,
    Answer,
    CrashError,
    Script,
    World,
    block,
    claim,
    fail,
    failing,
    invariants,
    passing,
    plan,
    policy,
    review,
    round_trips,
    work,
)

Commands = tuple[cmd.Command, ...]
ANSWERS = [
    work("a"),
    work("b"),
    work("same", changed=False),
    work("unknown", changed=None, usage=Usage(1000, 0, 10, 0.2)),
    claim(),
    Answer("prose"),
    Answer("", exit_code=2),
    Answer(block("", stop=True)),
    *(fail(kind) for kind in FailureClass),
    fail(FailureClass.LIMIT, "limit", 1_700_000_900.0),
    fail(FailureClass.LIMIT, "limit", 1_800_000_000.0),
]
POLICIES: list[Policy] = [
    policy(),
    policy("one", "two", checkpoints=True, commit=True),
    policy(verify_commands=("true",), confirmations=1, verify_every_iteration=True),
    policy("one", "two", mode="roles", verify_commands=("true",), checkpoints=True),
    policy(mode="roles", max_stagnation=3, max_consecutive_errors=3),
    policy(max_iterations=4, budget=BudgetPolicy(max_tokens=9_000, max_hours_per_day=2.0)),
]


class Anything(RuleBasedStateMachine):
    """The loop between a person, an agent, a disk and clocks that do as they please."""

    swap: Callable[[Commands], Commands] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.world: World
        self.pending_goal = ""
        self.said = 0
        self.names: set[str] = set()

    @initialize(
        rules=st.sampled_from(POLICIES),
        answers=st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=12),
        plans=st.lists(st.booleans(), min_size=1, max_size=3),
        reviews=st.lists(st.booleans(), min_size=1, max_size=3),
        gates=st.lists(st.booleans(), min_size=1, max_size=3),
    )
    def begin(
        self, rules: Policy, answers: list[Answer], plans: Any, reviews: Any, gates: Any
    ) -> None:
        script = Script(
            answers,
            planner=[plan(stop) for stop in plans],
            reviewer=[review(go_on, "focus") for go_on in reviews],
            gates=[passing() if good else failing() for good in gates],
        )
        self.world = World(script, rules, swap=self.swap)
        self.world.boot()

    # -- the world goes on -------------------------------------------------------------------------

    @rule()
    def next_thing(self) -> None:
        """What is on ends; else time passes until a wait is over."""
        world = self.world
        if world.exit is not None:
            return
        if world.queue:
            self.handle(world.queue.popleft()())
        elif world.state.wait is not None and not world.state.paused and not world.state.blocked_by:
            rest = waits.rest(world.state.wait, world.moment())
            assert 0 <= rest <= world.state.wait.length
            world.pass_time(rest)
            self.handle(ev.Tick())
            assert world.exit is not None or world.state.preparing or world.state.wait is not None

    @rule(seconds=st.sampled_from([0.1, 5.0, 600.0, 90_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)
        self.handle(ev.Tick())

    @rule(seconds=st.sampled_from([-1e9, -3_600.0, 3_600.0, 1e9]))
    def the_wall_clock_jumps(self, seconds: float) -> None:
        """Within one boot a jump neither shortens nor lengthens what is left."""
        wait = self.world.state.wait
        before = waits.rest(wait, self.world.moment()) if wait else 0.0
        self.world.wall += seconds
        if wait is not None:
            assert waits.rest(wait, self.world.moment()) == before
        self.handle(ev.Tick())

    # -- a person ----------------------------------------------------------------------------------

    @rule(now=st.booleans())
    def message(self, now: bool) -> None:
        self.said += 1
        self.names.add(f"{self.said:03d}.md")
        self.world.disk.inbox[f"{self.said:03d}.md"] = "text"
        self.handle(ev.Steer(now))

    @rule()
    def goal(self) -> None:
        self.said += 1
        self.pending_goal = f"goal {self.said} of a person"
        self.world.disk.inbox[GOAL] = self.pending_goal
        self.handle(ev.GoalSet(self.pending_goal, (GOAL,)))

    @rule(ticks=st.booleans(), in_run=st.booleans(), what=st.sampled_from(["plan", "task"]))
    def edit(self, ticks: bool, in_run: bool, what: str) -> None:
        self.handle(ev.Edited(what, 1, 1, ticks, in_run))

    @rule(now=st.booleans())
    def pause(self, now: bool) -> None:
        self.world.disk.paused = True
        self.handle(ev.Pause("p", now))

    @rule()
    def resume(self) -> None:
        self.world.disk.paused = False
        self.handle(ev.Resume())

    @rule(name=st.sampled_from(["plan", "disk", "storage"]))
    def block(self, name: str) -> None:
        self.handle(ev.Block(ev.Hold(name), f"{name} is not right"))

    @rule(name=st.sampled_from(["plan", "disk", "storage"]))
    def unblock(self, name: str) -> None:
        self.handle(ev.Unblock(ev.Hold(name)))

    @rule(
        account=st.sampled_from(["account-one", "account-two"]),
        length=st.sampled_from([0.0, 50.0, 1e6]),
    )
    def limit_seen(self, account: str, length: float) -> None:
        self.handle(
            ev.LimitSeen(account, waits.make(WaitKind.LIMIT, length, "limit", self.world.moment()))
        )

    @rule()
    def reload(self) -> None:
        self.handle(ev.PolicyChanged())

    @rule(after=st.booleans())
    def stop(self, after: bool) -> None:
        self.world.disk.stop = ev.Stop("a STOP file", after)
        self.handle(self.world.disk.stop)

    @rule()
    def unstop(self) -> None:
        self.world.disk.stop = None
        self.handle(ev.Unstop())

    @rule()
    @precondition(lambda self: self.world.exit is not None)
    def start_again(self) -> None:
        self.world.exit = None
        self.world.disk.stop = None
        self.boot("same")

    # -- faults ------------------------------------------------------------------------------------

    @rule(
        survives=st.integers(0, 4),
        boots=st.sampled_from(["same", "kill", "reboot"]),
        then=st.integers(0, 9),
    )
    def crash(self, survives: int, boots: str, then: int) -> None:
        """The next commands are carried out up to one of them; then another supervisor starts."""
        world = self.world
        world.crash_at = {world.executed + survives}
        try:
            for _ in range(then):
                self.next_thing()
        except CrashError:
            pass
        world.crash_at = set()
        world.exit = None
        self.boot(boots)

    def boot(self, how: str) -> None:
        world = self.world
        world.pass_time(3.0)
        if how == "reboot":
            world.agents.gone()
            world.boot_id, world.up = world.boot_id + "+", 5.0
        length = world.disk.load().wait
        world.boot(kill=how == "kill")
        wait = world.state.wait
        if wait is not None and length is not None and wait.kind == length.kind == "error":
            assert waits.rest(wait, world.moment()) <= length.length

    def handle(self, event: ev.Event) -> None:
        before, executed = self.world.state, self.world.executed
        self.world.handle(event)
        if before.finished:
            assert self.world.state == before
            assert self.world.executed == executed

    # -- what holds --------------------------------------------------------------------------------

    @invariant()
    def the_state_is_legal(self) -> None:
        if hasattr(self, "world"):
            invariants(self.world.state)
            round_trips(self.world.state)

    @invariant()
    def numbers_go_on(self) -> None:
        if hasattr(self, "world"):
            numbers = [line["iteration"] for line in self.world.disk.journal]
            assert numbers == list(range(1, len(numbers) + 1))

    @invariant()
    def no_message_is_lost(self) -> None:
        """It waits in the inbox, or is in an iteration, or was in one."""
        if not hasattr(self, "world"):
            return
        world = self.world
        known = set(world.disk.inbox)
        for state in (world.state, world.disk.load()):
            known |= {message.name for message in state.carried}
            known |= {message.name for message in state.open.messages} if state.open else set()
        known |= {message["name"] for line in world.disk.journal for message in line["messages"]}
        assert self.names <= known

    @invariant()
    def no_goal_is_lost(self) -> None:
        """The last goal of a person waits in the inbox, is the goal, or was the goal of an
        iteration."""
        if not hasattr(self, "world") or not self.pending_goal:
            return
        world = self.world
        places = {world.disk.inbox.get(GOAL, ""), world.state.goal, world.state.goal_set}
        places |= {state.goal for state in (world.state.open, world.disk.load().open) if state}
        places |= {world.disk.load().goal, world.disk.load().goal_set}
        places |= {line["goal_in"] for line in world.disk.journal}
        assert self.pending_goal in places

    @invariant()
    def something_is_on_or_waited_for(self) -> None:
        """The loop never just stands there."""
        if not hasattr(self, "world") or self.world.exit is not None or self.world.queue:
            return
        state = self.world.state
        assert state.paused or state.blocked_by or state.wait is not None
        assert state.open is None or state.open.step is not Step.KEEP

    @invariant()
    def what_is_on_fits_the_state(self) -> None:
        if (
            hasattr(self, "world")
            and self.world.agents.running is not None
            and self.world.exit is None
        ):
            opened = self.world.state.open
            assert opened is not None
            assert opened.run == self.world.agents.running


SETTINGS = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnything = Anything.TestCase
TestAnything.settings = SETTINGS


@pytest.mark.slow
def test_anything_many_times() -> None:
    run_state_machine_as_test(Anything, settings=settings(SETTINGS, max_examples=100))


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["persist after the start", "no journal before the snapshot"])
def test_negative_control_a_wrong_order_is_found(fault: str) -> None:
    def swap(commands: Commands) -> Commands:
        if fault.startswith("persist") and any(isinstance(c, cmd.StartRun) for c in commands):
            return (*(c for c in commands if not isinstance(c, cmd.Persist)), cmd.Persist())
        if fault.startswith("no journal") and isinstance(
            commands[0] if commands else None, cmd.Journal
        ):
            return (cmd.Persist(), *commands)
        return commands

    faulty = type("Faulty", (Anything,), {"swap": staticmethod(swap)})
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        run_state_machine_as_test(
            faulty,
            settings=settings(
                SETTINGS,
                max_examples=2_000,
                phases=[Phase.generate],
                print_blob=False,
                database=None,
                report_multiple_bugs=False,
            ),
        )


def test_the_first_state_is_legal() -> None:
    invariants(LoopState("loop"))
    round_trips(dataclasses.replace(LoopState("loop"), goal="g"))
