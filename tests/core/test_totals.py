"""What a loop has done in all: it only grows, over restarts and kills, and every second is in it once."""

from __future__ import annotations

import dataclasses

import pytest

from codex_self_iter.core import events as ev
from codex_self_iter.core.agent_report import AgentReport, Failure, FailureClass, Usage
from codex_self_iter.core.machine import decide
from codex_self_iter.core.runs import EndCause, RunOutcome
from codex_self_iter.core.state import LoopState
from codex_self_iter.core.terms import Moment
from codex_self_iter.core.totals import (
    DOWN,
    ENDED,
    MOST_AGENTS,
    NO_TOTALS,
    OTHERS,
    OUTAGE,
    Totals,
    until,
    with_run,
)
from tests.support.loop_world import (
    CrashError,
    Script,
    World,
    claim,
    fail,
    failing,
    passing,
    policy,
    work,
)
from tests.support.situations import play

USED = Usage(100, 0, 20, 0.5)
AT = Moment(1_700_000_000.0, 1_000.0, "boot-1")


def later(seconds: float, *, boot: str = "boot-1", up: float | None = None) -> Moment:
    return Moment(AT.wall + seconds, AT.up + seconds if up is None else up, boot)


def total_sec(world: World) -> float:
    return sum(world.state.totals_at(world.moment()).seconds.values())


def test_a_story_is_counted() -> None:
    script = Script(
        [claim(usage=USED), fail(FailureClass.AGENT), claim(usage=USED)],
        gates=[failing(), failing(), passing()],
    )
    world = play(script, policy(verify_commands=("true",)))
    totals = world.state.totals
    counted = {name: world.verdicts.count(name) for name in world.verdicts}
    assert totals.iterations == counted
    ends = [gate["ok"] for line in world.disk.journal for gate in line["gates"]]
    assert totals.gates == {"failed": ends.count(False), "passed": ends.count(True)}
    assert totals.runs == {"exit": len(world.disk.journal)}
    assert (totals.tokens, totals.cost_usd) == ({"one": 240}, {"one": 1.0})
    assert totals.productive_sec == 60.0 * sum(v != "error" for v in world.verdicts)
    assert totals.lost_sec["unproductive"] == pytest.approx(60.0, abs=1)
    assert total_sec(world) == pytest.approx(world.up - 1_000.0, abs=0.1)
    assert 0.5 < (totals.goodput or 0) < 1.0


@pytest.mark.parametrize("kill_at", range(2, 17))
def test_a_killed_supervisor_counts_nothing_twice_and_loses_no_second(kill_at: int) -> None:
    """Whatever it was at: the next one goes on from what was kept."""
    script = Script([work("b", usage=USED), work("c", usage=USED), claim(usage=USED)])
    world = World(script, policy(verify_commands=("true",)))
    world.crash_at = {kill_at}
    world.boot()
    while world.exit is None:
        try:
            world.step()
        except CrashError:
            world.heard = world.wall
            told = world.disk.load().totals_at(world.moment()).seconds  # by the last heartbeat
            world.pass_time(500.0)
            world.boot()
            assert all(world.state.totals.seconds[name] >= sec for name, sec in told.items())
    totals = world.state.totals
    assert sum(totals.iterations.values()) == len(world.disk.journal)
    assert totals.tokens == {"one": 360}
    assert totals.productive_sec == 180.0
    assert total_sec(world) == pytest.approx(world.up - 1_000.0, abs=0.2)
    assert totals.seconds[DOWN] == pytest.approx(500.0, abs=0.1)


def test_time_without_a_supervisor_is_nobodys() -> None:
    state = LoopState("loop", totals=until(NO_TOTALS, "starting", AT))
    heard = play_boot(state, later(3600), heard=AT.wall + 600)
    assert heard.totals.seconds == pytest.approx({"starting": 600.01, DOWN: 2999.99})
    late = play_boot(state, later(60), heard=AT.wall + 9000)
    assert late.totals.seconds == {"starting": 60.0}, "no more than has passed"
    after = play_boot(state, later(3600))
    assert after.totals.seconds == {DOWN: 3600.0}
    ended = dataclasses.replace(state, exit_code=3)
    assert play_boot(ended, later(3600)).totals.seconds == {ENDED: 3600.0}
    rebooted = play_boot(state, later(600, boot="boot-2", up=5.0))
    assert rebooted.totals.seconds == {DOWN: 600.0}


def play_boot(state: LoopState, at: Moment, heard: float = 0.0) -> LoopState:
    return decide(state, ev.Boot(heard=heard), policy(), at)[0]


def test_a_clock_that_is_set_takes_nothing_back() -> None:
    totals = until(until(NO_TOTALS, "running", AT), "running", later(60))
    back = Moment(AT.wall - 9_000, AT.up + 60, "boot-1")
    assert until(totals, "running", back).seconds == {"running": 60.0}
    other = Moment(AT.wall - 9_000, 5.0, "boot-2")
    assert until(totals, "running", other).seconds == {"running": 60.0}


def test_an_outage_is_no_time_of_ours() -> None:
    world = World(
        Script([fail(FailureClass.NETWORK), fail(FailureClass.NETWORK), claim()]), policy()
    )
    world.boot()
    world.run()
    totals = world.state.totals
    assert totals.seconds[OUTAGE] > 0
    assert "backoff" not in totals.seconds
    others = World(Script([fail(FailureClass.AGENT), claim()]), policy())
    others.boot()
    others.run()
    assert others.state.totals.seconds["backoff"] > 0
    assert OUTAGE not in others.state.totals.seconds


@pytest.mark.parametrize(
    ("cause", "kind", "counts"),
    [
        (EndCause.EXIT, None, True),
        (EndCause.EXIT, FailureClass.LIMIT, True),
        (EndCause.EXIT, FailureClass.NETWORK, True),
        (EndCause.EXIT, FailureClass.AGENT, False),
        (EndCause.IDLE_TIMEOUT, None, False),
        (EndCause.REQUEST, None, False),
        (EndCause.LOST, None, False),
    ],
)
def test_what_is_productive(cause: EndCause, kind: FailureClass | None, counts: bool) -> None:
    """As docs/simulation.md says it."""
    failure = Failure(kind, "x") if kind else None
    outcome = RunOutcome("r", cause, 0, None, 0.0, 60.0)
    totals = with_run(NO_TOTALS, "one", outcome, AgentReport("", failure=failure))
    assert totals.productive_sec == (60.0 if counts else 0.0)


def test_so_many_agents_are_told_apart() -> None:
    totals = NO_TOTALS
    outcome = RunOutcome("r", EndCause.EXIT, 0, None, 0.0, 1.0)
    for number in range(MOST_AGENTS + 5):
        totals = with_run(totals, f"agent-{number}", outcome, AgentReport("", usage=USED))
    assert len(totals.tokens) == MOST_AGENTS + 1
    assert totals.tokens[OTHERS] == 5 * 120
    assert set(totals.cost_usd) == set(totals.tokens)


def test_nothing_is_made_up_where_usage_is_not_known() -> None:
    outcome = RunOutcome("r", EndCause.EXIT, 0, None, 0.0, 1.0)
    totals = with_run(NO_TOTALS, "one", outcome, AgentReport(""))
    assert (totals.tokens, totals.cost_usd) == ({}, {})


def test_before_anything_there_is_no_goodput() -> None:
    assert NO_TOTALS.goodput is None
    assert Totals(seconds={DOWN: 9.0}).goodput is None
    assert Totals(seconds={"running": 10.0}, productive_sec=12.0).goodput == 1.0
    assert Totals(seconds={"running": 10.0}).goodput is None, "no run has ended yet"


def test_a_run_that_goes_on_is_not_lost_before_it_has_ended() -> None:
    """What is said to be lost is never taken back."""
    at_work = until(Totals(up=AT.up, wall=AT.wall, boot_id="boot-1"), "running", later(40))
    assert at_work.lost_sec == {"unproductive": 0.0}
    outcome = RunOutcome("r", EndCause.EXIT, 0, None, 0.0, 40.0)
    good = with_run(at_work, "one", outcome, AgentReport(""))
    assert (good.lost_sec["unproductive"], good.goodput) == (0.0, 1.0)
    bad = with_run(
        good, "one", dataclasses.replace(outcome, cause=EndCause.IDLE_TIMEOUT), AgentReport("")
    )
    assert (bad.lost_sec["unproductive"], bad.goodput) == (40.0, 0.5)
