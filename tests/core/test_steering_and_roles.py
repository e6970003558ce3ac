"""Messages, goals and edits of a person; planner, executor and reviewer."""

from __future__ import annotations

import dataclasses

import pytest

from codex_self_iter.core import commands as cmd
from codex_self_iter.core import events as ev
from codex_self_iter.core.holds import next_role
from codex_self_iter.core.state import Message
from codex_self_iter.core.terms import Role
from tests.support.loop_world import (
    GOAL,
    Answer,
    Script,
    World,
    claim,
    plan,
    policy,
    review,
    work,
)
from tests.support.situations import (
    ROLES,
    between_roles,
    drive,
    end,
    kinds,
    play,
    running,
    waiting,
)

# -- steering ----------------------------------------------------------------------------------------


def test_steer_now_ends_the_run_and_the_next_has_the_message() -> None:
    def now(world: World) -> None:
        world.say("x.now.md", now=True)

    world = play(Script([work("b"), claim()]), policy(), {("executor", 1): now})
    assert world.verdicts[0] == "aborted"
    assert [m["name"] for m in world.disk.journal[1]["messages"]] == ["x.now.md"]
    assert world.disk.inbox == {}


def test_a_turn_that_takes_messages_is_not_ended_for_one() -> None:
    def now(world: World) -> None:
        world.say("x.now.md", now=True)

    world = play(Script([work("b"), claim()]), policy(steers=True), {("executor", 1): now})
    assert world.verdicts == ["continue", "completed"]
    assert [m["name"] for m in world.disk.journal[0]["messages"]] == ["x.now.md"]
    assert world.disk.inbox == {}
    assert len(world.agents.readers["x.now.md"]) == 1


def test_a_turn_that_has_refused_a_message_is_ended_for_it() -> None:
    rules, at = policy(steers=True), running()
    names = ("x.now.md",)
    state, commands = drive(at, ev.Steer(now=True, names=names), rules=rules)
    assert (state, kinds(commands)) == (at, ["SteerRun"])
    again = drive(state, ev.Steer(now=True, names=names, refused=True), rules=rules)
    assert kinds(again[1]) == ["Persist", "Abort"]
    other = drive(at, ev.Steer(now=True, names=names), rules=policy())
    assert kinds(other[1]) == ["Persist", "Abort"]


def test_what_another_run_has_taken_stays_for_the_next_prompt() -> None:
    message = Message("x.now.md", "text", "mark")
    at = running()
    assert drive(at, ev.Steered("another-run", (message,)), rules=policy(steers=True)) == (at, ())
    assert at.open is not None
    assert at.open.run is not None
    state, commands = drive(
        at, ev.Steered(at.open.run.run_id, (message,)), rules=policy(steers=True)
    )
    assert kinds(commands) == ["Persist", "TakeMessages"]
    given = ev.Steer(now=True, names=(message.name,))
    assert drive(state, given, rules=policy(steers=True)) == (state, ())  # it has it


def test_messages_come_once_in_order_and_stand_in_the_journal() -> None:
    def two(world: World) -> None:
        world.say("b.md", "second")
        world.say("a.md", "first")

    world = play(Script([work("b"), work("c"), claim()]), policy(), {("executor", 1): two})
    assert [[m["text"] for m in line["messages"]] for line in world.disk.journal] == [
        [],
        ["first", "second"],
        [],
    ]
    assert {name: len(runs) for name, runs in world.agents.readers.items()} == {
        "a.md": 1,
        "b.md": 1,
    }


def test_a_goal_of_a_person_wins_over_the_agents() -> None:
    world = play(
        Script([work("b"), claim()]),
        policy(),
        {("executor", 1): lambda world: world.set_goal("mine")},
    )
    assert [line["goal_in"] for line in world.disk.journal] == ["", "mine"]
    assert world.disk.inbox == {}
    state, commands = drive(waiting("no_change"), ev.GoalSet("mine", (GOAL,)))
    assert kinds(commands) == ["Persist", "TakeMessages", "Prepare"]
    again, _ = drive(state, ev.GoalSet("mine", (GOAL,)))
    assert (again.goal, len(again.events)) == ("mine", 1)


def test_edits_between_two_roles_reach_the_journal() -> None:
    def edit(world: World) -> None:
        world.handle(ev.Edited("task", 2, 1))

    world = play(
        Script([claim()], reviewer=[review(False)]), policy(mode="roles"), {("planner", 1): edit}
    )
    assert [event["kind"] for event in world.disk.journal[0]["events"]] == ["task.changed"]


def test_ticks_of_the_agent_are_no_edit() -> None:
    state = dataclasses.replace(running(), goals=("a", "a"))
    assert drive(state, ev.Edited("plan", 1, 1, ticks_only=True, in_run=True))[0] == state
    assert drive(state, ev.Edited("plan", 1, 1, ticks_only=True))[0].goals == ()


# -- roles -------------------------------------------------------------------------------------------


def test_an_iteration_of_roles_has_three_runs() -> None:
    rules = policy(mode="roles", verify_commands=("true",))
    world = play(
        Script([work("b"), claim()], reviewer=[review(True, "focus"), review(False)]), rules
    )
    assert end(world) == ("completed", 0)
    assert [run["role"] for run in world.disk.journal[0]["runs"]] == [
        "planner",
        "executor",
        "reviewer",
    ]
    assert world.disk.journal[0]["next_goal"] == "focus"
    assert world.log == [
        f"loop-00000{n}-{role}" for n in (1, 2) for role in ("planner", "executor", "reviewer")
    ]


def test_the_reviewer_must_agree_to_a_completion() -> None:
    world = play(
        Script([claim()], reviewer=[review(True, "the edge cases"), review(False)]),
        policy(mode="roles"),
    )
    assert world.verdicts == ["claim_rejected", "completed"]
    assert world.disk.journal[0]["unproven"].startswith("the reviewer does not agree: ")
    assert world.disk.journal[1]["goal_in"] == "the edge cases"


def test_the_planner_and_the_reviewer_can_start_cooldowns() -> None:
    script = Script(
        [work("x"), claim()], planner=[plan(stop=True), plan()], reviewer=[review(False)]
    )
    world = play(script, policy(mode="roles"))
    assert world.verdicts == ["planner_stop", "continue_false", "completed"]
    assert world.slept == [pytest.approx(600, rel=0.11), pytest.approx(300, rel=0.11)]


@pytest.mark.parametrize(
    ("ticked", "lengths", "told"),
    [(0, [300, 600, 1200], ["cooldown"]), (1, [300, 300, 300], [])],
)
def test_a_reviewer_that_sees_nothing_to_do_is_asked_less_often_unless_items_are_ticked(
    ticked: int, lengths: list[float], told: list[str]
) -> None:
    """The executor changes content each time: that alone is no reason to ask again soon."""
    works = [dataclasses.replace(work(str(n)), ticked=ticked) for n in range(3)]
    world = play(Script([*works, claim()], reviewer=[review(False)]), policy(mode="roles"))
    assert world.verdicts == ["continue_false"] * 3 + ["completed"]
    assert world.slept == [pytest.approx(length, rel=0.11) for length in lengths]
    assert world.notified == [*told, "completed"]


@pytest.mark.parametrize(
    ("rules", "lengths"),
    [
        ({}, [600, 1200, 2400, 4800, 4800]),
        ({"planner_stop_backoff_sec": 10, "backoff_max_sec": 30}, [10, 20, 40, 80, 80]),
        ({"planner_stop_backoff_sec": 100, "backoff_max_sec": 900}, [100, 200, 400, 800, 900]),
    ],
)
def test_nothing_to_do_again_and_again_is_asked_less_often_and_told_once(
    rules: dict[str, float], lengths: list[float]
) -> None:
    seen: list[str] = []
    script = Script([claim()], planner=[*[plan(stop=True)] * 5, plan()], reviewer=[review(False)])
    look = {("cooldown", n): lambda world: seen.append(world.state.reason) for n in range(1, 6)}
    world = play(script, policy(mode="roles", **rules), look)
    assert world.verdicts == ["planner_stop"] * 5 + ["completed"]
    assert world.slept == [pytest.approx(length, rel=0.11) for length in lengths]
    assert world.notified == ["cooldown", "completed"]
    assert [reason.partition(":")[0] for reason in seen] == [
        "r", "r", *(f"nothing to do, {n} times in a row" for n in (3, 4, 5)),
    ]  # fmt: skip


def test_an_edit_or_work_starts_the_cooldown_anew() -> None:
    stop, edit = [plan(stop=True)] * 2, ev.Edited("plan", 1, 1)
    script = Script(
        [work("x"), claim()],
        planner=[*stop, *stop, plan(), *stop, plan()],
        reviewer=[review(True), review(False)],
    )
    world = play(script, policy(mode="roles"), {("cooldown", 2): lambda world: world.handle(edit)})
    assert world.verdicts == [*["planner_stop"] * 4, "continue", *["planner_stop"] * 2, "completed"]
    assert world.slept == [pytest.approx(n, rel=0.11) for n in (600, 600, 1200, 600, 1200)]
    assert world.notified == ["completed"]


def test_the_same_focus_again_and_again_stagnates() -> None:
    answers = [work(f"g{n}", changed=False) for n in range(9)]
    world = play(
        Script(answers, reviewer=[review(True, "The Tests")]),
        policy(mode="roles", max_stagnation=3, no_change_gate=0),
    )
    assert (end(world), len(world.disk.journal)) == (("stagnated", 3), 3)


@pytest.mark.parametrize("role", ["planner", "reviewer"])
@pytest.mark.parametrize(
    "text", ["prose", '{"objective": "o", "continue": "perhaps", "stop": "perhaps"}', "{}"]
)
def test_a_role_that_does_not_answer_is_an_error(role: str, text: str) -> None:
    script = Script([claim()], reviewer=[review(False)])
    setattr(script, role, [Answer(text), *getattr(script, role)])
    world = play(script, policy(mode="roles"))
    assert world.verdicts == ["error", "completed"]
    assert world.disk.journal[0]["error"]


def test_a_crash_between_roles_goes_on_at_the_role() -> None:
    for trace in ("none", "gone"):
        state, commands = drive(between_roles(), ev.Boot(ev.Trace(trace)), rules=ROLES)
        assert commands == (cmd.Prepare(),)
        assert next_role(state.open, ROLES) is Role.EXECUTOR
        assert state.iteration == 1
