"""Every way of failing ends; work counts; another agent stands in."""

from __future__ import annotations

import dataclasses

import pytest

from codex_self_iter.core import bounds
from codex_self_iter.core import commands as cmd
from codex_self_iter.core import events as ev
from codex_self_iter.core.agent_report import AgentReport, Failure, FailureClass
from codex_self_iter.core.evidence import GateResult
from codex_self_iter.core.marks import mark
from codex_self_iter.core.plan import newly_ticked, ticks
from codex_self_iter.core.policy import AgentPolicy, SessionPolicy
from codex_self_iter.core.runs import EndCause
from codex_self_iter.core.stagnation import GREEN, UNCOUNTED, advanced, left
from codex_self_iter.core.state import Best, LoopState
from codex_self_iter.core.terms import Role
from tests.support.loop_world import (
    Answer,
    Script,
    World,
    block,
    claim,
    fail,
    plan,
    policy,
    review,
    work,
)
from tests.support.situations import drive, end, ended, kinds, play, preparing

HOUR = 3600.0
MUTE = Answer("no block", changed=False)


def agents_of(world: World) -> list[str]:
    return [line["agent"] for line in world.disk.journal]


# -- bounds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(FailureClass))
def test_every_class_of_failure_ends(kind: FailureClass) -> None:
    world = World(Script([fail(kind)]), policy())
    world.boot()
    world.run(limit=2_000)
    assert end(world) == ("blocked", 4)
    assert "blocked" in world.notified
    assert str(kind) in world.state.reason or kind is FailureClass.AGENT


def test_no_mixture_of_classes_goes_on_for_ever() -> None:
    kinds = [one for one in FailureClass if one not in bounds.PERSON]
    world = World(Script([fail(kind) for kind in kinds] * 100), policy())
    world.boot()
    world.run(limit=2_000)
    assert end(world) == ("blocked", 4)


@pytest.mark.parametrize("kind", sorted(bounds.OUTAGE))
def test_a_night_is_survived_and_weeks_are_not(kind: FailureClass) -> None:
    night = Script([fail(kind)] * 55 + [claim()])
    world = play(night, policy())
    assert end(world) == ("completed", 0)
    assert sum(world.slept) > 12 * HOUR
    assert world.notified == ["outage", "completed"]
    world = World(Script([fail(kind)]), policy())
    world.boot()
    world.run(limit=2_000)
    assert 72 * HOUR <= world.wall - 1_700_000_000.0 < 80 * HOUR
    off = World(Script([*[fail(kind)] * 400, claim()]), policy(max_outage_sec=0.0))
    off.boot()
    off.run(limit=5_000)
    assert end(off) == ("completed", 0)


def test_a_long_limit_alone_is_no_outage() -> None:
    week = [fail(FailureClass.LIMIT, "week", 1_700_000_000.0 + n * 604_800.0) for n in (1, 2, 3)]
    world = play(Script([*week, claim()]), policy())
    assert end(world) == ("completed", 0)


@pytest.mark.parametrize(("hours", "told"), [(5.0, 0), (7.0, 1), (48.0, 1)])
def test_a_wait_of_many_hours_is_told_at_once(hours: float, told: int) -> None:
    limit = fail(FailureClass.LIMIT, "weekly limit", 1_700_000_000.0 + hours * HOUR)
    world = play(Script([limit, claim()]), policy())
    assert world.notified == [*["outage"] * told, "completed"]
    soon = fail(FailureClass.LIMIT, "limit", 1_700_000_000.0 + HOUR)
    world = play(Script([limit, soon, claim()]), policy("one", "two"))
    assert world.notified == ["completed"]  # the other one works, or is free again soon


def test_a_clock_that_is_set_forward_ends_nothing() -> None:
    def jump(world: World) -> None:
        world.wall += 365 * 86_400.0

    script = Script([*[fail(FailureClass.NETWORK)] * 12, claim()])
    world = play(script, policy(), {("executor", 3): jump, ("executor", 12): jump})
    assert end(world) == ("completed", 0)


@pytest.mark.parametrize("kind", sorted(bounds.PERSON))
def test_what_a_person_must_mend_is_told_once(kind: FailureClass) -> None:
    world = play(Script([fail(kind, "do this")]), policy())
    assert (end(world), len(world.disk.journal)) == (("blocked", 4), 2)
    assert world.notified == ["blocked"]
    assert "do this" in world.state.reason
    assert world.slept == [pytest.approx(5.0, rel=0.11)]
    late = [fail(FailureClass.NETWORK)] * 8 + [fail(kind)]
    world = play(Script(late), policy())
    assert world.slept[-1] == pytest.approx(5.0, rel=0.11)  # not the ninth wait of an outage


def test_a_program_that_was_there_is_waited_for_ten_minutes() -> None:
    gone = fail(FailureClass.MISSING, "it is away")
    world = play(Script([*[gone] * 5, claim()]), policy(max_consecutive_errors=1))
    assert end(world) == ("completed", 0)
    assert world.notified == ["outage", "completed"]  # told at once, and once
    world = play(Script([gone] * 40), policy())
    assert (end(world), world.notified) == (("blocked", 4), ["outage", "blocked"])
    assert bounds.MISSING_SEC <= sum(world.slept) < 3 * bounds.MISSING_SEC
    assert "it is away" in world.state.reason
    long = [fail(FailureClass.NETWORK)] * 20  # hours of another outage are not its own
    world = play(Script([*long, gone, claim()]), policy())
    assert end(world) == ("completed", 0)


def test_the_next_agent_stands_in_for_a_program_that_is_away() -> None:
    gone = fail(FailureClass.MISSING)
    world = play(Script([gone, gone, gone, claim()]), policy("one", "two"))
    assert agents_of(world) == ["one", "one", "one", "two"]
    assert (end(world), world.notified) == (("completed", 0), ["outage", "outage", "completed"])


def test_another_end_than_the_one_that_was_told_is_told() -> None:
    script = Script([fail(FailureClass.AUTH), *[MUTE] * 12])
    world = play(script, policy(max_consecutive_errors=4))
    assert (end(world), world.notified) == (("blocked", 4), ["blocked", "blocked"])


# -- the prompt does not fit -------------------------------------------------------------------------


def resuming(session: str) -> LoopState:
    """A loop whose next run resumes this session ("": none)."""
    agents = (AgentPolicy("one", "a", SessionPolicy(resume=True)),)
    rules = dataclasses.replace(policy(), agents=dict.fromkeys(Role, agents))
    state, _ = drive(preparing(), ev.Prepared(), rules=rules)
    report = AgentReport(block("x"), session_id=session)
    event = dataclasses.replace(ended(state, work("x")), report=report)
    return drive(state, event, ev.Prepared(), rules=rules)[0]


@pytest.mark.parametrize(("session", "counts"), [("thread", [1, 2, 3]), ("", [2, 3])])
def test_a_fresh_session_then_a_short_prompt_then_the_end(session: str, counts: list[int]) -> None:
    state = resuming(session)
    for count in counts:
        assert not state.finished
        state, commands = drive(state, ended(state, fail(FailureClass.CONTEXT, "too long")))
        assert state.counters.tries["context"] == count
        if count < 3:
            assert state.preparing  # at once
            state, commands = drive(state, ev.Prepared())
            assert state.open is not None
            assert state.open.run is not None
            assert state.open.run.session_id == ""
    assert "Exit" in kinds(commands)
    assert (state.state, state.exit_code) == ("blocked", 4)


def test_a_short_prompt_stays_short_until_a_person_changes_what_is_asked() -> None:
    state, _ = drive(preparing(), ev.Prepared())
    state, _ = drive(state, ended(state, fail(FailureClass.CONTEXT)), ev.Prepared())
    state, _ = drive(state, ended(state, work("x")))
    assert state.counters.tries == {"context": bounds.BRIEF}
    state, _ = drive(state, ev.Edited("plan", 3, 1))
    assert state.counters.tries == {}


# -- work counts -------------------------------------------------------------------------------------


def cut_short(**more: object) -> Answer:
    return Answer("", EndCause.WALL_TIMEOUT, exit_code=1, **more)  # type: ignore[arg-type]


def test_a_run_that_changed_content_counts_no_error() -> None:
    script = Script([*[cut_short()] * 9, MUTE, MUTE, cut_short(), MUTE, MUTE, claim()])
    world = play(script, policy(max_consecutive_errors=3))
    assert end(world) == ("completed", 0)
    assert max(world.slept[:9]) < 6  # each starts the backoff anew
    world = play(Script([cut_short(changed=False)]), policy(max_consecutive_errors=3))
    assert end(world) == ("blocked", 4)


def test_what_a_planner_writes_is_no_work() -> None:
    script = Script([claim()], planner=[Answer("no JSON")])
    world = play(script, policy(mode="roles", max_consecutive_errors=3))
    assert (end(world), len(world.disk.journal)) == (("blocked", 4), 3)


@pytest.mark.parametrize("kind", [None, *FailureClass])
def test_the_next_prompt_says_that_the_work_is_kept(kind: FailureClass | None) -> None:
    state, _ = drive(preparing(), ev.Prepared())
    failure = Failure(kind, "why") if kind else None
    answer = cut_short() if failure is None else Answer("", exit_code=1, failure=failure)
    event = dataclasses.replace(ended(state, answer), changed_files=("a.py",))
    state, _ = drive(state, event)
    assert "cut short" in state.feedback
    assert "is kept" in state.feedback
    assert "a.py" in state.feedback


def test_an_answer_that_cannot_be_read_is_told_as_that() -> None:
    state, _ = drive(preparing(), ev.Prepared())
    answer = Answer('{"summary": "a "quoted" word", "next_goal": "n", "stop": false}')
    state, _ = drive(state, dataclasses.replace(ended(state, answer), changed_files=("a.py",)))
    assert "could not be read" in state.feedback
    assert "broken at its line 1" in state.feedback
    assert "is kept" in state.feedback
    assert "a.py" in state.feedback
    assert "cut short" not in state.feedback
    assert "smaller steps" not in state.feedback


REFUSALS = sorted(bounds.WAITED | bounds.PERSON)


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_is_counted_waited_for_and_told_whatever_changed(kind: FailureClass) -> None:
    worlds = []
    for changed in (True, False):
        answer = dataclasses.replace(fail(kind, "no"), changed=changed)
        worlds.append(World(Script([answer]), policy()))
        worlds[-1].boot()
        worlds[-1].run(limit=2_000)
    one, other = worlds
    assert (end(one), one.notified, one.slept) == (end(other), other.notified, other.slept)
    answer = dataclasses.replace(fail(kind, "no"), changed=True)
    world = play(Script([*[answer] * 3, *[claim()] * 3]), policy(*TWO))
    first = 1 if kind in bounds.PERSON or kind is FailureClass.LIMIT else bounds.HAND_OVER
    assert agents_of(world)[first - 1 : first + 1] == ["one", "two"]


def test_a_limits_end_is_waited_for_whatever_changed() -> None:
    limit = fail(FailureClass.LIMIT, "limit", 1_700_009_000.0)
    world = play(Script([dataclasses.replace(limit, changed=True), claim()]), policy())
    assert world.slept == [pytest.approx(9_000, abs=300)]


def test_an_outage_of_runs_that_tick_items_starts_anew() -> None:
    ticking = dataclasses.replace(fail(FailureClass.NETWORK), ticked=1)
    world = play(Script([*[ticking] * 9, claim()]), policy())
    assert max(world.slept) < 6


@pytest.mark.parametrize("kind", [FailureClass.AGENT, FailureClass.CONTEXT, FailureClass.NETWORK])
@pytest.mark.parametrize("guessed", [True, False])
def test_a_file_is_no_work_of_a_run_that_did_nothing(kind: FailureClass, guessed: bool) -> None:
    failure = Failure(kind, "no", guessed=guessed, idle=True)
    state, _ = drive(preparing(), ev.Prepared())
    state, _ = drive(state, ended(state, Answer("", exit_code=1, failure=failure, changed=True)))
    assert state.last is not None
    assert state.last.failure_class == kind
    assert bounds.WORKED not in state.counters.tries
    assert state.counters.agent_errors == (kind is FailureClass.AGENT)


def test_waits_grow_for_runs_that_change_something_and_exit_with_an_error() -> None:
    """Negative controls: those that are cut short, and those that tick items, have worked."""
    gives_up = dataclasses.replace(fail(FailureClass.AGENT), changed=True)
    waited = []
    for answer in (gives_up, cut_short(), dataclasses.replace(gives_up, ticked=1)):
        world = play(Script([*[answer] * 6, claim()]), policy())
        assert end(world) == ("completed", 0)
        waited.append(max(world.slept))
    assert waited[0] > 16 * waited[1] > 0
    assert waited[2] < 2 * waited[1]
    state = play(Script([gives_up]), policy()).state
    assert state.counters.agent_errors == 0
    two = play(Script([*[gives_up] * 3, claim()]), policy(*TWO))
    assert agents_of(two)[-2:] == ["one", "two"]


def test_an_agent_that_always_works_and_never_answers_ends() -> None:
    world = play(Script([cut_short()]), policy(max_stagnation=4))
    assert (end(world), len(world.disk.journal)) == (("blocked", 4), bounds.WORKED_TRIES)
    assert "timed out" in world.state.reason
    ticking = Script([*[cut_short()] * 30, cut_short(ticked=1), *[cut_short()] * 30, claim()])
    assert end(play(ticking, policy())) == ("completed", 0)


def test_a_list_that_is_worked_through_is_no_circle() -> None:
    ticking = work("Continue with the next open item", ticked=1)
    world = play(Script([*[ticking] * 30, claim()]), policy(max_stagnation=3))
    assert end(world) == ("completed", 0)
    idle = work("Continue with the next open item", ticked=1, changed=False)
    world = play(Script([*[idle] * 30, claim()]), policy(max_stagnation=3, no_change_gate=0))
    assert end(world) == ("completed", 0)  # a plan outside of the repository


def test_who_ticks_and_unticks_goes_in_circles() -> None:
    swap = [work("on", ticked=1), work("on", ticked=-1)]
    world = play(Script(swap * 40), policy(max_stagnation=3))
    assert end(world) == ("stagnated", 3)
    assert len(world.disk.journal) <= 10


def test_who_ticks_deletes_and_adds_again_goes_in_circles() -> None:
    before, ticked, gone = "- [ ] a\n- [ ] b\n", "- [x] a\n- [ ] b\n", "- [ ] b\n"
    around = [(before, ticked), (ticked, gone), (gone, before)]
    steps = [
        work("on", ticked=ticks(*step), ticked_marks=tuple(map(mark, newly_ticked(*step))))
        for step in around
    ]
    assert [step.ticked for step in steps] == [1, 0, 0]
    world = play(Script(steps * 40), policy(max_stagnation=3))
    assert end(world) == ("stagnated", 3)
    assert len(world.disk.journal) <= 12


def test_new_items_are_progress_though_old_ones_are_deleted() -> None:
    steps = []
    for n in range(40):  # a plan that holds one item at a time
        step = f"- [ ] item {n}\n", f"- [x] item {n}\n"
        marks = tuple(map(mark, newly_ticked(*step)))
        steps.append(work("on", ticked=ticks(*step), ticked_marks=marks))
    world = play(Script([*steps, claim()]), policy(max_stagnation=3))
    assert end(world) == ("completed", 0)
    assert len(world.state.best.done) == 40
    assert newly_ticked("- [x] a\n- [ ] a\n", "- [x] a\n- [x] a\n") == ["a 2"]


def gate(output: str, code: int = 1, command: str = "check") -> GateResult:
    return GateResult(command, code, 1.0, output)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("Found 12 errors in 3 files (checked 40 source files)", 12),
        ("==== 3 failed, 10 passed in 0.12s ====", 3),
        ("FAILED (failures=2, errors=5)", 7),
        ("Tests:       4 failed, 6 passed, 10 total", 4),
        ("x.py:12: error: no\nFound 9 type errors", 9),
        ("step 1: 40 errors\nstep 2: 7 errors", 7),
        ("Errors: 6", 6),
        ("still to do: 17", 17),
        ("17", 17),
        ("took 17 ms", UNCOUNTED),
        ("2 mismatches, 40 MiB left", 2),
        ("x-ratelimit-remaining: 4999", UNCOUNTED),
        ("requests remaining: 4999", UNCOUNTED),
        ("12 call sites remaining", 12),
        ("5 files left", 5),
        ("75000 MiB left", UNCOUNTED),
        ("75000 MiB missing", UNCOUNTED),
        ("failed: 12 ms", UNCOUNTED),
        ("17 seconds until failure", UNCOUNTED),
        ("tokens: 4999", UNCOUNTED),
        ("3 passed", UNCOUNTED),
        ("no number", UNCOUNTED),
        ("line 3: at 4", UNCOUNTED),
        ("", UNCOUNTED),
    ],
)
def test_what_a_gate_says_is_left(output: str, expected: int) -> None:
    assert left(gate(output)) == expected
    assert left(gate(output, 0)) == GREEN


def test_falling_counts_and_gates_that_turn_green_are_progress_once() -> None:
    best, steps = Best(), []
    for output, code in (("9 errors", 1), ("8 errors", 1), ("9 errors", 1), ("8 errors", 1),
                         ("7 errors", 1), ("", 0), ("9 errors", 1), ("", 0)):  # fmt: skip
        best, forward = advanced(best, 0, [gate(output, code)])
        steps.append(forward)
    assert steps == [False, True, False, False, True, True, False, False]


@pytest.mark.parametrize("falling", [True, False])
def test_a_gate_whose_count_falls_keeps_the_loop_going(falling: bool) -> None:
    counts = [60 - n if falling else 60 - n % 2 for n in range(30)]
    gates = [(gate(f"Found {count} errors"),) for count in counts]
    rules = policy(verify_commands=("check",), verify_every_iteration=True, max_stagnation=4)
    world = play(Script([*[work("fix the errors")] * 29, claim()], gates=[*gates, ()]), rules)
    assert end(world) == (("completed", 0) if falling else ("stagnated", 3))


@pytest.mark.parametrize("changed", [True, False])
def test_a_count_that_falls_by_itself_is_no_progress(changed: bool) -> None:
    gates = [(gate(f"{'x-ratelimit-remaining:' if changed else 'errors:'} {99 - n}"),)
             for n in range(60)]  # fmt: skip
    rules = policy(
        verify_commands=("check",),
        verify_every_iteration=True,
        max_stagnation=4,
        no_change_gate=0,
    )
    world = play(Script([work("fix the errors", changed=changed)], gates=gates), rules)
    assert end(world) == ("stagnated", 3)
    assert len(world.disk.journal) < 20


# -- another agent stands in -------------------------------------------------------------------------


TWO = ("one", "two")


def test_an_agent_that_simply_fails_hands_over() -> None:
    world = play(Script([*[MUTE] * 3, work("a"), work("b"), claim()]), policy(*TWO))
    assert agents_of(world) == ["one"] * 3 + ["two"] * 3
    assert world.notified == ["outage", "completed"]
    world = play(Script([MUTE]), policy(*TWO, max_consecutive_errors=2))
    assert (end(world), agents_of(world)) == (("blocked", 4), ["one"] * 2 + ["two"] * 2)


def test_both_fail_and_the_loop_ends_whatever_the_bound() -> None:
    for bound in (1, 3, 10, 30):
        world = play(Script([MUTE]), policy(*TWO, max_consecutive_errors=bound))
        assert end(world) == ("blocked", 4)
        assert set(agents_of(world)) == set(TWO)


@pytest.mark.parametrize("kind", sorted(bounds.PERSON))
def test_a_broken_agent_is_replaced_at_once_and_tried_again_each_hour(kind: FailureClass) -> None:
    runs = [work(f"g{n}", seconds=600.0) for n in range(20)]
    script = Script([fail(kind, "log in"), *runs[:3], fail(kind, "log in"), *runs[3:], claim()])
    world = World(script, policy(*TWO))
    world.at = {("executor", n): lambda w: w.pass_time(600.0) for n in range(2, 24)}
    world.boot()
    world.run()
    assert world.notified == ["blocked", "completed"]  # one notice, not one a try
    assert agents_of(world)[:9] == ["one", *["two"] * 3, "one", *["two"] * 3, "one"]


def test_who_has_answered_again_is_told_of_again() -> None:
    runs = [work(f"g{n}", seconds=600.0) for n in range(9)]
    script = Script([fail(FailureClass.AUTH), *runs[:4], fail(FailureClass.AUTH), *runs, claim()])
    world = World(script, policy(*TWO))
    world.at = {("executor", n): lambda w: w.pass_time(600.0) for n in range(2, 24)}
    world.boot()
    world.run()
    assert agents_of(world)[:7] == ["one", *["two"] * 3, "one", "one", "two"]
    assert world.notified == ["blocked", "blocked", "completed"]


def test_two_broken_agents_have_two_tries_each_at_most() -> None:
    world = play(Script([fail(FailureClass.AUTH, "log in")]), policy(*TWO))
    assert (end(world), agents_of(world)) == (("blocked", 4), ["one", "two", "two"])


def test_a_broken_agent_waits_for_the_limit_of_the_other() -> None:
    limit = fail(FailureClass.LIMIT, "limit", 1_700_001_000.0)
    world = play(Script([limit, fail(FailureClass.AUTH), claim()]), policy(*TWO))
    assert (end(world), agents_of(world)) == (("completed", 0), ["one", "two", "one"])


def test_the_first_of_all_limits_to_end_is_waited_for() -> None:
    limits = [fail(FailureClass.LIMIT, "x", 1_700_000_000.0 + end) for end in (1_000.0, 9_000.0)]
    world = play(Script([*limits, claim()]), policy(*TWO))
    assert (agents_of(world), world.slept[0]) == (
        ["one", "two", "one"],
        pytest.approx(900, abs=200),
    )


# -- the iteration limit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (fail(FailureClass.LIMIT, "l", 1_700_020_000.0), ("stopped", 0)),
        (fail(FailureClass.NETWORK), ("stopped", 0)),
        (MUTE, ("stopped", 0)),
        (work("x", changed=False), ("stopped", 0)),
        *[(fail(kind, "do this"), ("blocked", 4)) for kind in sorted(bounds.PERSON)],
    ],
)
def test_the_last_iteration_waits_for_nothing(answer: Answer, expected: tuple[str, int]) -> None:
    world = play(Script([answer]), policy(max_iterations=1))
    assert end(world) == expected
    assert world.slept == []
    assert len(world.disk.journal) == 1
    assert ("do this" in world.state.reason) is (expected[1] == 4)
    assert world.notified == [expected[0]]


def test_a_cooldown_is_not_waited_for_either() -> None:
    roles = Script([work("x")], planner=[plan(stop=True)], reviewer=[review(False)])
    world = play(roles, policy(mode="roles", max_iterations=1))
    assert (end(world), world.slept) == (("stopped", 0), [])


# -- sessions ----------------------------------------------------------------------------------------


def test_each_role_has_a_conversation_of_its_own() -> None:
    agents = (AgentPolicy("one", "a", SessionPolicy(resume=True)),)
    rules = dataclasses.replace(policy(mode="roles"), agents=dict.fromkeys(Role, agents))
    state, _ = drive(LoopState("loop"), ev.Boot(), rules=rules)
    resumed: list[str] = []
    for answer in (plan(), work("x"), review(True)) * 2:
        state, commands = drive(state, ev.Prepared(), rules=rules)
        start = next(command for command in commands if isinstance(command, cmd.StartRun))
        resumed.append(start.run.session_id)
        event = ended(state, answer)
        report = dataclasses.replace(event.report, session_id=f"thread of {start.run.role}")
        state, _ = drive(state, dataclasses.replace(event, report=report), rules=rules)
    roles = [f"thread of {role}" for role in ("planner", "executor", "reviewer")]
    assert resumed == ["", "", "", *roles]
