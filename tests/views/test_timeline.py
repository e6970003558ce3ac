"""The journal as it is shown, and the numbers that are drawn from it."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core.marks import mark
from codex_self_iter.core.plan import parse_plan
from codex_self_iter.views import plan_view, series, timeline
from tests.support.shown_loops import GATE, NOW, record
from tests.views.test_loops_shown import JSON


def waited(kind: str) -> dict[str, Any]:
    return {"kind": kind, "until": NOW, "length": 60.0, "reason": "why"}


def test_a_line_is_shown_with_all_that_it_says() -> None:
    one = timeline.iteration(
        record(7, gates=[GATE], unproven="", wait=waited("no_change"), failure_class="overload",
               verdict="error", changed_count=300)
    )  # fmt: skip
    assert (one.number, one.began, one.ended, one.took_sec) == (7, NOW - 60, NOW, 60.0)
    assert (one.told_verdict, one.colour) == ("error (overload)", "red")
    assert one.summary == "gate `pytest -q` failed: Step 7 is done"
    assert (one.tokens, one.cost_usd, one.changed, one.files) == (1000, 0.01, 300, ("a.py",))
    assert one.waited == "no change: why"
    (gate,) = one.gates
    assert (gate.command, gate.ok, gate.end) == ("pytest -q", False, "exited with code 1")


def test_what_is_not_known_is_none_and_not_nought() -> None:
    one = timeline.iteration(record(1, usage=None, cost_usd=None))
    assert (one.tokens, one.cost_usd) == (None, None)
    assert timeline.spent(record(1, usage=None, cost_usd=None)) == ("", "")
    assert timeline.spent(record(1, usage={"input_tokens": 900}, cost_usd=0.0)) == ("900", "$0.00")


def test_of_two_lines_of_one_number_the_last_counts() -> None:
    lines = [record(1), record(2, verdict="interrupted"), record(2), record(3)]
    found = timeline.iterations(lines)
    assert [(one.number, one.verdict) for one in found] == [
        (1, "continue"), (2, "continue"), (3, "continue"),
    ]  # fmt: skip


@given(st.dictionaries(st.sampled_from(sorted(record(1))), JSON, max_size=10))
def test_whatever_a_line_says_it_is_shown_clean(line: dict[str, Any]) -> None:
    one = timeline.iteration(record(1) | line)
    texts = [one.verdict, one.summary, one.goal, one.error, one.agent, one.waited, *one.files]
    texts += [text for gate in one.gates for text in (gate.command, gate.end, gate.output)]
    assert not {"\x1b", "\x9b", "\u202e"} & set("".join(texts))
    assert one.took_sec >= 0
    several = [one, timeline.iteration(record(2))]
    for bars in (series.seconds_by_state(several), series.tokens_by_day(several)):
        assert all(math.isfinite(bar.value) and bar.value >= 0 for bar in bars)
    assert sum(stack.total for stack in series.verdicts(several)) <= 2


@given(st.lists(st.tuples(st.floats(0, 4e9), st.sampled_from(["error", "continue", "limited"]))))
def test_every_iteration_is_in_one_stretch_and_there_are_not_too_many(
    ends: list[tuple[float, str]],
) -> None:
    done = [
        timeline.iteration(record(n, at, verdict=verdict)) for n, (at, verdict) in enumerate(ends)
    ]
    stacks = series.verdicts(done, most=20)
    assert sum(stack.total for stack in stacks) == len(ends)
    assert len(stacks) <= 22
    assert [stack.at for stack in stacks] == sorted(stack.at for stack in stacks)
    assert sum(bar.value for bar in series.by_verdict(done)) == len(ends)


def test_an_hour_of_work_is_drawn_in_minutes_and_a_year_in_weeks() -> None:
    hour = [timeline.iteration(record(n, NOW + 60 * n)) for n in range(60)]
    first, second = series.verdicts(hour)[:2]
    assert second.at - first.at == 300
    year = [timeline.iteration(record(n, NOW + 86400 * n)) for n in range(365)]
    first, second = series.verdicts(year)[:2]
    assert second.at - first.at == 28 * 86400


def test_the_time_is_told_by_what_was_done_in_it() -> None:
    gate = GATE | {"duration_sec": 20.0}
    lines = [
        record(1, NOW, gates=[gate], wait=waited("limit")),
        record(2, NOW + 1000),
        record(3, NOW + 1100, wait=waited("no_change")),
        record(4, NOW + 1200),
    ]
    found = {bar.label: bar.value for bar in series.seconds_by_state(timeline.iterations(lines))}
    assert found == {
        "running": 220.0, "verifying": 20.0, "limited": 940.0, "between": 40.0, "cooldown": 40.0,
    }  # fmt: skip


def test_tokens_and_money_are_summed_by_day_and_gates_by_command() -> None:
    lines = [
        record(1, NOW, gates=[GATE, GATE | {"command": "mypy", "ok": True}]),
        record(2, NOW + 60, gates=[GATE | {"ok": True}], usage=None, cost_usd=None),
        record(3, NOW + 3 * 86400),
    ]
    done = timeline.iterations(lines)
    assert [bar.value for bar in series.tokens_by_day(done)] == [1000, 1000]
    assert [bar.value for bar in series.money_by_day(done)] == [0.01, 0.01]
    first, second = series.gate_times(done)
    assert first.command == "pytest -q"
    assert first.runs == ((1, 3.0, False), (2, 3.0, True))
    assert second.runs == ((1, 3.0, True),)


def test_a_plan_is_shown_with_what_is_next_and_who_ticked_it() -> None:
    plan = parse_plan(
        "- [x] Write\n  - [ ] deeper; check: `make`\n- [ ] \x1b[31mLast\n- [x] Write\n"
    )
    found = plan_view.lines(plan, {mark("Write 2"): 9})
    assert [(line.title, line.level, line.next, line.since) for line in found] == [
        ("Write", 0, False, None), ("deeper", 1, True, None), ("Last", 0, False, None),
        ("Write", 0, False, 9),
    ]  # fmt: skip
    assert found[1].checks == ("make",)
