"""Whole stories of agents honest and not, and the bounds that end them."""

from __future__ import annotations

from typing import Any

import pytest

from codex_self_iter.core import events as ev
from codex_self_iter.core.agent_report import AgentReport, Usage
from codex_self_iter.core.judge import changed_gate_files
from codex_self_iter.core.policy import BudgetPolicy
from codex_self_iter.core.runs import EndCause, RunOutcome
from codex_self_iter.core.stagnation import HISTORY
from codex_self_iter.core.state import Dropped, LoopState
from tests.support.loop_world import (
    Answer,
    Script,
    World,
    block,
    claim,
    failing,
    passing,
    policy,
    work,
)
from tests.support.situations import (
    AT,
    drive,
    end,
    ended,
    play,
    preparing,
)


def test_an_honest_agent_completes() -> None:
    world = play(Script([work("b"), claim()]), policy(verify_commands=("true",)))
    assert end(world) == ("completed", 0)
    assert world.verdicts == ["continue", "completed"]
    assert [line["next_goal"] for line in world.disk.journal] == ["b", "b"]


@pytest.mark.parametrize(
    "text",
    [
        block("more", summary="PLAN_COMPLETE"),
        block("", summary="PLAN_COMPLETE"),
        "Everything is done.\nPLAN_COMPLETE\n",
    ],
)
def test_the_promise_word_is_a_claim(text: str) -> None:
    assert end(play(Script([Answer(text)]), policy())) == ("completed", 0)
    world = play(Script([Answer(text)]), policy(completion_promise="", max_iterations=2))
    assert world.verdicts in (["continue"] * 2, ["error"] * 2)


def test_a_word_dropper_is_not_believed() -> None:
    text = block(
        "PLAN_COMPLETE", reason="I shall write PLAN_COMPLETE later", evidence=["PLAN_COMPLETE"]
    )
    world = play(Script([Answer("not yet PLAN_COMPLETE\n" + text)]), policy(max_iterations=2))
    assert world.verdicts == ["continue", "continue"]


@pytest.mark.parametrize("bound", [2, 3, 6])
def test_a_liar_stagnates_and_is_shown_what_failed(bound: int) -> None:
    world = play(
        Script([claim()], gates=[failing("2 failed in 0.31s")]),
        policy(verify_commands=("true",), max_stagnation=bound),
    )
    assert end(world) == ("stagnated", 3)
    assert len(world.disk.journal) == max(3, bound)
    assert set(world.verdicts) == {"claim_rejected"}
    assert "2 failed in 0.31s" in world.state.feedback
    assert "same failure for the" in world.state.feedback


def test_identical_failures_are_recognised_although_their_times_differ() -> None:
    gates = [failing(f"1 failed in {n}.{n} s") for n in range(9)]
    world = play(
        Script([work(f"goal {n}") for n in range(9)], gates=gates),
        policy(verify_commands=("true",), verify_every_iteration=True, max_stagnation=4),
    )
    assert end(world) == ("stagnated", 3)
    assert len(world.disk.journal) == 4
    assert "the same gate failure" in world.state.reason
    assert "; the goal: goal " in world.state.reason


def test_a_goal_that_nobody_named_is_not_spoken_of() -> None:
    world = play(
        Script([claim()] * 9, gates=[failing("1 failed")]),
        policy(verify_commands=("true",), max_stagnation=4),
    )
    assert end(world) == ("stagnated", 3)
    assert world.state.reason.endswith("(max_stagnation = 4)")


def test_an_idler_stagnates_in_exactly_so_many_iterations() -> None:
    for bound in (2, 3, 6):
        script = Script([work(f"goal {n}", changed=False) for n in range(20)])
        world = play(script, policy(max_stagnation=bound, no_change_gate=0))
        assert end(world) == ("stagnated", 3)
        assert len(world.disk.journal) == bound
        assert [line["warned"] for line in world.disk.journal] == [False] * (bound - 1) + [True]


def test_the_same_goal_has_three_times_the_bound_when_content_changes() -> None:
    for bound, longest in ((3, 9), (6, 18), (40, HISTORY)):
        world = play(
            Script([work("Fix  the tests!"), work("fix the TESTS")] * 40),
            policy(max_stagnation=bound),
        )
        assert end(world) == ("stagnated", 3)
        assert len(world.disk.journal) == longest
        assert world.disk.journal[-1]["warned"]
        assert not any(line["warned"] for line in world.disk.journal[:-1])


def test_ping_pong_stagnates_and_progress_does_not() -> None:
    world = play(Script([work("a"), work("b")] * 9), policy(max_stagnation=4))
    assert (end(world), len(world.disk.journal)) == (("stagnated", 3), 12)
    assert "2 goals in turn" in world.state.reason
    world = play(
        Script([work(f"goal {n}") for n in range(40)]), policy(max_stagnation=1, max_iterations=30)
    )
    assert end(world) == ("stopped", 0)
    assert not any(line["warned"] for line in world.disk.journal)


@pytest.mark.parametrize("ticking", [False, True])
def test_ever_other_goals_of_which_nothing_comes_are_told_once(*, ticking: bool) -> None:
    goals = [work(f"goal {n}", ticked=int(ticking and n % 6 == 5)) for n in range(40)]
    world = play(Script(goals), policy(max_stagnation=2, max_iterations=40))
    assert end(world) == ("stopped", 0)
    assert world.notified.count("cooldown") == (not ticking)
    off = play(Script(goals), policy(max_stagnation=0, max_iterations=40))
    assert "cooldown" not in off.notified


def test_claims_are_something_that_came() -> None:
    gates = policy(max_stagnation=2, max_iterations=12, require_plan_done=True)
    goals = [work(f"goal {n}", plan_open=1) for n in range(5)]
    claims = [claim(plan_open=1), *goals] * 4
    assert "cooldown" not in play(Script(claims), gates).notified


def test_a_warned_loop_that_finds_another_way_goes_on() -> None:
    answers = [work("same", changed=False)] * 3 + [work(f"new {n}") for n in range(9)]
    world = play(Script(answers), policy(max_stagnation=4, max_iterations=9))
    assert end(world) == ("stopped", 0)
    assert [line["warned"] for line in world.disk.journal].count(True) == 1


def test_stagnation_can_be_switched_off() -> None:
    world = play(Script([work("same", changed=False)]), policy(max_stagnation=0, max_iterations=30))
    assert end(world) == ("stopped", 0)


def test_an_edit_gives_a_stagnating_loop_a_new_start() -> None:
    def edit(world: World) -> None:
        world.handle(ev.Edited("plan", 5, 2))

    def note(world: World) -> None:
        world.handle(ev.Edited("plan", 1, 0, in_run=True))

    still = Script([work("same", changed=False)])
    rules = policy(max_stagnation=4, no_change_gate=0)
    world = play(still, rules, {("executor", 3): edit})
    assert (end(world), len(world.disk.journal)) == (("stagnated", 3), 6)
    notes = {("executor", number): note for number in range(1, 9)}
    noted = play(still, rules, notes)
    assert (end(noted), len(noted.disk.journal)) == (("stagnated", 3), 4)  # it is the agent's
    agreed = play(Script([claim()]), policy(confirmations=1), notes)
    assert agreed.verdicts == ["awaiting_confirmation", "completed"]
    assert [event["kind"] for line in world.disk.journal for event in line["events"]] == [
        "plan.changed"
    ]


@pytest.mark.parametrize("confirmations", [0, 1, 3])
def test_so_many_iterations_must_agree(confirmations: int) -> None:
    world = play(Script([claim()]), policy(confirmations=confirmations, verify_commands=("true",)))
    assert world.verdicts == ["awaiting_confirmation"] * confirmations + ["completed"]


def test_one_disagreement_starts_the_confirmations_again() -> None:
    script = Script([claim(), work("more"), claim(), claim()])
    world = play(script, policy(confirmations=1))
    assert world.verdicts == [
        "awaiting_confirmation",
        "continue",
        "awaiting_confirmation",
        "completed",
    ]


def test_an_agent_that_edits_the_gates_proves_nothing() -> None:
    def meddler(world: World) -> None:
        return

    clean, edited = {"test.py": "1"}, {"test.py": "2"}
    rules = policy(verify_commands=("true",), max_iterations=3)
    world = World(Script([Answer(claim().text, gate_files=edited)]), rules)
    world._prepared = lambda: ev.Prepared((), "h", clean if not world.log else edited)  # type: ignore[method-assign]
    world.boot()
    world.run()
    assert set(world.verdicts) == {"claim_rejected"}
    assert "gate files were changed by the agent: test.py" in world.disk.journal[-1]["gate_flaw"]


@pytest.mark.parametrize("between", ["never started", "killed", "crashed"])
def test_a_run_that_nobody_looked_after_does_not_launder_the_gates(between: str) -> None:
    rules = policy(verify_commands=("true",))
    clean, edited = {"test.py": "1"}, {"test.py": "2"}
    state, _ = drive(preparing(), ev.Prepared(gate_files=clean), rules=rules)
    state, _ = drive(
        state, ended(state, Answer(block("x"), gate_files=edited)), ev.Prepared(gate_files=edited)
    )
    assert state.open is not None
    assert state.open.run is not None
    if between == "crashed":
        state, _ = drive(state, ev.Boot(ev.Trace.GONE), rules=rules)
    else:
        run_id = state.open.run.run_id
        seen = None if between == "never started" else edited
        outcome = RunOutcome(run_id, EndCause.REQUEST, None, None, AT.wall, 0.0)
        event = ev.RunEnded(run_id, outcome, AgentReport(""), changed=False, gate_files=seen)
        state, _ = drive(state, ev.Steer(now=True), event, rules=rules)
    state, _ = drive(state, ev.Prepared(gate_files=edited), rules=rules)
    state, _ = drive(state, ended(state, Answer(claim().text, gate_files=edited)), rules=rules)
    assert state.open is not None
    assert "test.py" in state.open.gate_flaw


def test_a_person_may_change_the_gates_between_two_runs() -> None:
    rules = policy(verify_commands=("true",))
    clean, mine = {"test.py": "1"}, {"test.py": "2", "new.py": "1"}
    state, _ = drive(preparing(), ev.Prepared(gate_files=clean), rules=rules)
    state, _ = drive(
        state, ended(state, Answer(block("x"), gate_files=clean)), ev.Prepared(gate_files=mine)
    )
    state, _ = drive(state, ended(state, Answer(claim().text, gate_files=mine)), rules=rules)
    assert state.open is not None
    assert state.open.gate_flaw == ""


@pytest.mark.parametrize("when", ["in the run", "after it"])
def test_a_person_may_take_what_a_run_has_changed(when: str) -> None:
    rules = policy(verify_commands=("true",))
    clean, edited = {"loop.toml": "1"}, {"loop.toml": "2"}
    taken = ev.GateFilesTaken(edited | {"other.toml": "1"})
    state, _ = drive(preparing(), ev.Prepared(gate_files=clean), rules=rules)
    if when == "in the run":
        state, _ = drive(state, taken, rules=rules)
    end = ended(state, Answer(claim().text, gate_files=edited))
    state, _ = drive(state, end, rules=rules)
    if when == "after it":
        assert changed_gate_files(state) == ["loop.toml"]
        state, _ = drive(state, taken, rules=rules)
    assert changed_gate_files(state) == []
    assert state.gate_baseline == edited


def test_the_gates_in_force_are_remembered() -> None:
    state, _ = drive(LoopState("loop"), ev.Boot(), rules=policy(verify_commands=("a",)))
    assert state.gates == ("a",)
    assert drive(state, ev.PolicyChanged(), rules=policy())[0].gates == ()


def test_open_plan_items_void_a_claim_when_asked_for() -> None:
    answer = Answer(claim().text, plan_open=2)
    assert end(play(Script([answer]), policy())) == ("completed", 0)
    world = play(Script([answer, claim()]), policy(require_plan_done=True))
    assert world.verdicts == ["claim_rejected", "completed"]
    why = "2 of 0 plan items are still open"
    assert [line["unproven"] for line in world.disk.journal] == [why, ""]


def test_what_stands_against_a_claim_is_recorded() -> None:
    gates = policy(verify_commands=("true",), confirmations=1)
    world = play(Script([claim()], gates=[failing(), passing()]), gates)
    assert world.verdicts == ["claim_rejected", "awaiting_confirmation", "completed"]
    agree = "1 more iteration(s) must agree"
    assert [line["unproven"] for line in world.disk.journal] == [
        "`true` exited with code 1",
        agree,
        "",
    ]
    lasts = [line["after"]["last"]["unproven"] for line in world.disk.journal]
    assert lasts == [line["unproven"] for line in world.disk.journal]


def test_items_taken_out_of_the_plan_void_a_claim_when_asked_for() -> None:
    out = Answer(claim().text, dropped=Dropped(("b", "c"), "1"))
    assert end(play(Script([out]), policy())) == ("completed", 0)
    script = Script([out, claim(), Answer(claim().text, dropped=Dropped((), "2"))])
    world = play(script, policy(require_plan_done=True))
    assert world.verdicts == ["claim_rejected", "claim_rejected", "completed"]
    told = world.disk.journal[0]["after"]["feedback"]
    assert "2 open plan item(s) were removed, not ticked: b; c (put" in told


@pytest.mark.parametrize(
    ("gates", "expected", "told"),
    [
        (passing(), ("stopped", 0), ["agent_stopped", "stopped"]),
        (failing(), ("blocked", 4), ["blocked"]),
    ],
)
def test_stop_ends_the_loop_and_unmet_gates_need_a_person(
    gates: Any, expected: tuple[str, int], told: list[str]
) -> None:
    script = Script([Answer(block("", stop=True, reason="a person must choose"))], gates=[gates])
    world = play(script, policy(verify_commands=("true",)))
    assert end(world) == expected
    assert world.exit is not None
    assert "a person must choose" in world.exit.reason
    assert world.notified == told


# -- budget and bounds -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "runs"),
    [
        (BudgetPolicy(max_tokens=250), 3),
        (BudgetPolicy(max_cost_usd=1.0), 2),
        (BudgetPolicy(max_hours=1.5), 2),
        (BudgetPolicy(max_tokens_per_day=100), 1),
    ],
)
def test_a_spent_budget_ends_the_loop(budget: BudgetPolicy, runs: int) -> None:
    spender = [work(f"g{n}", usage=Usage(60, 0, 40, 0.5), seconds=3_600.0) for n in range(9)]
    world = play(Script(spender), policy(budget=budget))
    assert (end(world), len(world.disk.journal)) == (("blocked", 4), runs)
    assert world.notified[-1] == "blocked"
    assert ("budget" in world.notified) is True


@pytest.mark.parametrize("bound", [1, 3])
def test_the_iteration_limit_counts_this_run(bound: int) -> None:
    world = play(Script([work(f"g{n}") for n in range(9)]), policy(max_iterations=bound))
    assert (end(world), len(world.disk.journal)) == (("stopped", 0), bound)
    world.exit = None
    world.boot()
    world.run()
    assert len(world.disk.journal) == 2 * bound
