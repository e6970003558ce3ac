"""What each class of failure leads to."""

from __future__ import annotations

import dataclasses

import pytest

from codex_self_iter.core import commands as cmd
from codex_self_iter.core import events as ev
from codex_self_iter.core import waits
from codex_self_iter.core.agent_report import AgentReport, Failure, FailureClass, Usage
from codex_self_iter.core.machine import decide
from codex_self_iter.core.policy import AgentPolicy, SessionPolicy
from codex_self_iter.core.runs import EndCause
from codex_self_iter.core.state import (
    LoopState,
    Message,
    Step,
    WaitKind,
)
from codex_self_iter.core.terms import Role, State
from tests.support.loop_world import (
    Answer,
    Script,
    block,
    claim,
    fail,
    plan,
    policy,
    work,
)
from tests.support.situations import (
    AT,
    ROLES,
    drive,
    end,
    ended,
    events_for,
    kinds,
    later,
    play,
    preparing,
    running,
    running_planner,
    waiting,
)

PROVEN = policy(verify_commands=("true",))


@pytest.mark.parametrize(
    ("kind", "wait", "agent_errors", "auth_errors", "told"),
    [
        (FailureClass.AGENT, "error", 1, 0, True),
        (FailureClass.LIMIT, "limit", 0, 0, False),
        (FailureClass.OVERLOAD, "error", 0, 0, False),
        (FailureClass.NETWORK, "error", 0, 0, False),
        (FailureClass.AUTH, "auth", 0, 1, False),
        (FailureClass.CONFIG, "auth", 0, 1, False),
        (FailureClass.SANDBOX, "auth", 0, 1, True),
        (FailureClass.CONTEXT, None, 0, 0, False),
        (FailureClass.MEMORY, "error", 0, 0, True),
        (FailureClass.KILLED, "error", 0, 0, False),
    ],
)
def test_each_failure_class_has_its_policy(
    kind: FailureClass,
    wait: str | None,
    agent_errors: int,
    auth_errors: int,
    told: bool,
) -> None:
    state, _ = drive(preparing(), ev.Prepared((Message("a.md", "a"),)))
    state, commands = drive(state, ended(state, fail(kind, "the reason")))
    assert (state.wait.kind if state.wait else None) == wait
    assert state.counters.agent_errors == agent_errors
    assert state.counters.auth_errors == auth_errors
    assert ("the reason" in state.feedback) is told
    assert state.carried  # whatever the class
    assert kinds(commands)[0] == "Journal"
    assert state.preparing is (wait is None)
    assert ("Notify" in kinds(commands)) is (wait == "auth")
    if wait is not None:
        assert state.state is waits.STATES[wait]


@pytest.mark.parametrize(
    ("cause", "verdict"),
    [(EndCause.WALL_TIMEOUT, "timed_out"), (EndCause.IDLE_TIMEOUT, "timed_out"),
     (EndCause.MEMORY, "error"),
     (EndCause.SPAWN_FAILED, "error"), (EndCause.LOST, "interrupted"),
     (EndCause.REQUEST, "error")],
)  # fmt: skip
def test_what_the_host_saw_counts_more_than_the_answer(cause: EndCause, verdict: str) -> None:
    world = play(Script([Answer(claim().text, cause), claim()]), policy())
    assert world.verdicts == [verdict, "completed"]


def test_messages_of_a_run_that_never_started_go_into_the_next_prompt() -> None:
    state, _ = drive(preparing(), ev.Prepared((Message("a.md", "a"),)))
    never = events_for(state)["never started"]
    state, _ = drive(state, ev.Steer(now=True), never, ev.Prepared((Message("b.md", "b"),)))
    assert state.open is not None
    assert [message.name for message in state.open.messages] == ["a.md", "b.md"]


def test_messages_are_carried_until_an_answered_run_had_them() -> None:
    state, _ = drive(preparing(), ev.Prepared((Message("a.md", "a"),)))
    state, _ = drive(
        state, ev.Steer(now=True), ended(state, Answer("", EndCause.REQUEST)), ev.Prepared()
    )
    assert state.open is not None
    assert [message.name for message in state.open.messages] == ["a.md"]
    state, _ = drive(state, ended(state, work("b")), ev.Prepared())
    assert state.open is not None
    assert state.open.messages == ()


def test_another_file_of_a_name_is_another_message() -> None:
    first, again = Message("a.md", "one", "1"), Message("a.md", "two", "2")
    state, _ = drive(preparing(), ev.Prepared((first,)), rules=ROLES)
    state, commands = drive(state, ended(state, plan()), ev.Prepared((first, again)), rules=ROLES)
    assert state.open is not None
    assert state.open.messages == (first, again)
    assert cmd.TakeMessages(1, (first, again)) in commands


def test_a_run_that_only_others_ended_is_the_agents_error() -> None:
    """An agent that signals its parents would be started again at once, for ever."""
    world = play(Script([work("b", cause=EndCause.REQUEST)]), policy(max_consecutive_errors=3))
    assert (end(world), world.verdicts) == (("blocked", 4), ["error"] * 3)
    assert world.slept == [pytest.approx(length, rel=0.11) for length in (5.0, 10.0)]
    world = play(Script([work("b", cause=EndCause.LOST)]), policy(max_consecutive_errors=3))
    assert (end(world), world.verdicts) == (("blocked", 4), ["interrupted"] * 3)


def late(state: LoopState, what: str) -> LoopState:
    """Somebody asks for an end while a run that has ended by itself is being looked at."""
    event: ev.Event = {
        "stop": ev.Stop("enough"),
        "pause": ev.Pause("p", now=True),
        "steer": ev.Steer(now=True),
    }[what]
    return drive(state, event, rules=PROVEN)[0]


@pytest.mark.parametrize("what", ["stop", "pause", "steer"])
def test_a_run_that_had_ended_is_judged_whatever_is_asked_meanwhile(what: str) -> None:
    state, commands = drive(late(running(), what), ended(running(), work("next")), rules=PROVEN)
    assert state.last is not None
    assert (state.last.verdict, state.goal) == ("continue", "next")
    assert kinds(commands)[0] == "Journal"
    assert state.finished is (what == "stop")
    assert state.ending is None


@pytest.mark.parametrize(
    ("what", "expected"), [("stop", "stopped"), ("pause", "paused"), ("steer", "running")]
)
def test_a_claim_whose_gates_were_called_off_is_kept(what: str, expected: str) -> None:
    state, commands = drive(late(running(), what), ended(running(), claim()), rules=PROVEN)
    assert state.state == expected
    assert "RunGates" not in kinds(commands)
    if what != "steer":
        assert state.open is not None
        assert (state.open.step, state.open.claim) == (Step.VERIFY, True)


def test_the_next_role_hears_of_a_message_that_came_too_late_for_the_last() -> None:
    state, commands = drive(late(running_planner(), "steer"), ended(running_planner(), plan()),
                            rules=ROLES)  # fmt: skip
    assert kinds(commands) == ["Persist", "Prepare"]
    state, _ = drive(state, ev.Prepared((Message("a.now.md", "a"),)), rules=ROLES)
    assert state.open is not None
    assert (state.open.number, len(state.open.messages)) == (1, 1)


def test_too_many_agent_errors_need_a_person() -> None:
    world = play(Script([Answer("no block", changed=False)]), policy(max_consecutive_errors=4))
    assert (end(world), len(world.disk.journal)) == (("blocked", 4), 4)
    assert world.slept == [pytest.approx(length, rel=0.11) for length in (5.0, 10.0, 20.0)]


def test_other_classes_never_use_up_the_errors() -> None:
    kinds = [
        FailureClass.NETWORK,
        FailureClass.OVERLOAD,
        FailureClass.LIMIT,
        FailureClass.MEMORY,
        FailureClass.KILLED,
    ]
    world = play(
        Script([fail(kind) for kind in kinds] * 4 + [claim()]), policy(max_consecutive_errors=2)
    )
    assert end(world) == ("completed", 0)
    assert max(world.slept) <= 900 * 1.1


def test_faults_of_login_have_a_bound_of_their_own() -> None:
    world = play(
        Script([fail(FailureClass.AUTH, "log in first")]), policy(max_consecutive_errors=9)
    )
    assert (end(world), len(world.disk.journal)) == (("blocked", 4), 2)
    assert "log in first" in world.state.reason
    assert "blocked" in world.notified


def test_a_success_starts_the_backoff_again() -> None:
    world = play(
        Script(
            [
                Answer("?", changed=False),
                Answer("?", changed=False),
                work("x"),
                Answer("?", changed=False),
                claim(),
            ]
        ),
        policy(),
    )
    assert world.slept == [pytest.approx(length, rel=0.11) for length in (5.0, 10.0, 5.0)]


def test_an_agent_that_others_kill_is_not_started_again_at_once() -> None:
    world = play(Script([fail(FailureClass.KILLED, "signal 9")] * 4 + [claim()]), policy())
    assert world.slept == [pytest.approx(length, rel=0.11) for length in (5.0, 10.0, 20.0, 40.0)]


def test_a_limit_is_waited_for_and_shared() -> None:
    reset = 1_700_003_600.0
    world = play(Script([fail(FailureClass.LIMIT, "limit", reset), claim()]), policy())
    assert world.slept == [pytest.approx(3_560, abs=60)]
    assert [share.account for share in world.shared] == ["account-one"]
    assert reset < world.disk.journal[1]["after"]["last"]["ended_at"]


def test_a_reset_that_has_passed_is_not_believed_again_and_again() -> None:
    world = play(Script([fail(FailureClass.LIMIT, "limit", 1_000.0)] * 4 + [claim()]), policy())
    assert world.slept == [pytest.approx(length, rel=0.11) for length in (5.0, 10.0, 20.0, 40.0)]


def test_the_second_agent_takes_over_and_the_first_is_taken_back() -> None:
    script = Script(
        [
            fail(FailureClass.LIMIT, "limit", 1_700_000_200.0),
            *(work(f"g{n}") for n in range(6)),
            claim(),
        ]
    )
    world = play(script, policy("one", "two"))
    assert [line["agent"] for line in world.disk.journal] == [
        "one",
        "two",
        "two",
        "two",
        *["one"] * 4,
    ]
    assert world.slept == []


def test_the_loop_waits_for_the_first_account_when_all_are_limited() -> None:
    script = Script(
        [
            fail(FailureClass.LIMIT, "a", 1_700_009_000.0),
            fail(FailureClass.LIMIT, "b", 1_700_005_000.0),
            claim(),
        ]
    )
    world = play(script, policy("one", "two"))
    assert [line["agent"] for line in world.disk.journal] == ["one", "two", "two"]
    assert world.slept[0] == pytest.approx(5_000, abs=200)


def test_an_agent_that_cannot_log_in_is_replaced_until_a_person_acts() -> None:
    state, _ = drive(preparing(), ev.Prepared(), rules=policy("one", "two"))
    state, _ = drive(
        state, ended(state, fail(FailureClass.AUTH)), ev.Prepared(), rules=policy("one", "two")
    )
    assert state.open is not None
    assert state.open.run is not None
    assert state.open.run.agent == "two"
    state, _ = drive(
        state,
        ev.PolicyChanged(),
        ended(state, work("x")),
        ev.Prepared(),
        rules=policy("one", "two"),
    )
    assert state.open is not None
    assert state.open.run is not None
    assert state.open.run.agent == "one"


def test_a_reload_or_steer_now_forgets_logins_but_no_limits() -> None:
    limit = waits.make(WaitKind.LIMIT, 500.0, "limit", AT)
    for event in (ev.PolicyChanged(), ev.Steer(now=True)):
        state = dataclasses.replace(
            waiting("auth"), limits={**waiting("auth").limits, "account-two": limit}
        )
        state, _ = drive(state, event)
        assert state.preparing
        assert state.limits == {"account-two": limit}
        state, _ = drive(waiting("limit"), event)
        assert state.state is State.LIMITED


def test_no_run_is_started_into_a_limit_that_another_loop_found() -> None:
    wait = waits.make(WaitKind.LIMIT, 500.0, "limit of another loop", AT)
    state, commands = drive(preparing(), ev.LimitSeen("account-one", wait), ev.Prepared())
    assert state.state is State.LIMITED
    assert "StartRun" not in kinds(commands)
    state, _ = drive(running(), ev.LimitSeen("account-one", wait))
    state, _ = drive(state, ended(state, work("x")))
    assert (state.state, state.wait) == (State.LIMITED, wait)
    state, _ = decide(state, ev.Tick(), policy(), later(501.0))
    assert state.preparing


def test_a_context_that_is_too_long_gets_a_fresh_session_at_once() -> None:
    agents = (AgentPolicy("one", "a", SessionPolicy(resume=True)),)
    rules = dataclasses.replace(policy(), agents=dict.fromkeys(Role, agents))
    state, _ = drive(preparing(), ev.Prepared(), rules=rules)
    report = AgentReport(block("x"), session_id="thread-1")
    assert state.open is not None
    assert state.open.run is not None
    event = ended(state, work("x"))
    state, _ = drive(state, dataclasses.replace(event, report=report), ev.Prepared(), rules=rules)
    assert state.open is not None
    assert state.open.run is not None
    assert state.open.run.session_id == "thread-1"
    state, _ = drive(state, ended(state, fail(FailureClass.CONTEXT)), ev.Prepared(), rules=rules)
    assert state.open is not None
    assert state.open.run is not None
    assert state.open.run.session_id == ""


@pytest.mark.parametrize(
    ("field", "value"), [("max_turns", 1), ("max_tokens", 5), ("max_sec", 10.0)]
)
def test_a_thread_is_resumed_only_within_its_bounds(field: str, value: float) -> None:
    for bounds, resumed in (
        (SessionPolicy(True), "thread-1"),
        (SessionPolicy(True, **{field: value}), ""),
    ):  # type: ignore[arg-type]
        agents = (AgentPolicy("one", "a", bounds),)
        rules = dataclasses.replace(policy(), agents=dict.fromkeys(Role, agents))
        state = running()
        report = AgentReport(block("x"), Usage(4, 0, 4), session_id="thread-1")
        event = dataclasses.replace(ended(state, work("x")), report=report)
        state, _ = decide(state, event, rules, later(60))
        state, _ = decide(state, ev.Prepared(), rules, later(60))
        assert state.open is not None
        assert state.open.run is not None
        assert state.open.run.session_id == resumed


GUESS = Failure(FailureClass.LIMIT, "limit", 1e12, "a", guessed=True)


def test_a_limit_that_is_only_guessed_is_probed_once_before_it_holds_the_account() -> None:
    said = Answer("", exit_code=1, failure=GUESS, changed=False)
    state, _ = drive(preparing(), ev.Prepared())
    state, commands = drive(state, ended(state, said))
    assert state.wait is not None
    assert state.wait.length < 60
    assert state.limits == {}
    assert "ShareLimit" not in kinds(commands)
    assert state.last is not None
    world = play(Script([said, said, claim()]), policy())
    assert world.verdicts == ["limited", "limited", "completed"]


def test_a_class_that_was_guessed_of_a_run_that_worked_is_the_agents() -> None:
    said = Answer("", exit_code=1, failure=GUESS, changed=True)
    state, _ = drive(preparing(), ev.Prepared())
    state, _ = drive(state, ended(state, said))
    assert (state.counters.tries, state.counters.failures) == ({"worked": 1}, 1)
    assert "(agent)" in state.feedback
