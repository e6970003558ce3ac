"""The report that is left at the end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core.state import LoopState, Spent
from codex_self_iter.core.terms import State
from codex_self_iter.views.report import duration, report

LINE: dict[str, Any] = {
    "iteration": 3, "verdict": "completed", "duration_sec": 61.5, "usage": {"total_tokens": 1234}, "changed_count": 2,
    "summary": "did | it\nall", "commit": "abc123", "gates": [{"command": "pytest -q", "ok": True}],
}  # fmt: skip


def make(
    state: LoopState | None = None, lines: list[dict[str, Any]] | None = None, **more: Any
) -> str:
    state = state or LoopState(
        "x", iteration=3, state=State.COMPLETED, reason="all is done", goal="nothing"
    )
    given: dict[str, Any] = {
        "plan": "the plan",
        "task": "",
        "times": {},
        "now": 0.0,
    } | more
    return report(state, lines if lines is not None else [LINE], **given)


def test_everything_that_a_person_asks_is_there() -> None:
    text = make(
        LoopState("x", iteration=3, state=State.STAGNATED, reason="in circles", spent=Spent(1234, 0.5, 2.0),
                  feedback="1 failed"),
        times={"running": 7_200.0, "backoff": 5.0}, changes=[("Changed in it 3", " a.py | 2 +-")], task="The task.",
    )  # fmt: skip
    for part in (
        "# Report: stagnated", "in circles", "The task.", "3 iterations; the last 1: 1 completed", "abc123", "Changed in it 3:",
        "a.py | 2 +-",
        "`pytest -q`: passed", "1234 tokens, $0.50, 2 h 0 min", "- running: 2 h 0 min", "1 failed",
        "| 3 | completed | 1 min 1 s | 1234 | 2 | did \\| it all |",
    ):  # fmt: skip
        assert part in text


def test_a_report_says_how_a_gate_ended() -> None:
    gate = {"command": "x", "exit_code": 127, "ok": False}
    text = make(lines=[LINE | {"gates": [gate, gate | {"timed_out": True}]}])
    assert "- `x`: exited with code 127 (a program of it is not there)" in text
    assert "- `x`: timed out" in text


def test_a_loop_that_never_began_has_a_report_too() -> None:
    text = make(LoopState("x", state=State.STOPPED, reason="a STOP file"), [])
    assert "0 iterations." in text
    assert "No tokens, 0 s of agent runs." in text
    assert "the plan" in text


@given(st.dictionaries(st.sampled_from(sorted(LINE)), st.none()))
def test_foreign_lines_do_no_harm(line: dict[str, Any]) -> None:
    assert make(lines=[line]).startswith("# Report")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (-5, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3_599, "59 min 59 s"), (3_600, "1 h 0 min"),
     (86_400, "1 d 0 h"), (200_000, "2 d 7 h"), (float("nan"), "0 s"), (float("inf"), "?")],
)  # fmt: skip
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def priced(spent: Spent, *lines: dict[str, Any]) -> str:
    given = [{"agent": "codex", "usage": {}, "cost_usd": 0.1} | line for line in lines]
    return make(LoopState("x", iteration=len(lines), spent=spent), given)


def test_what_is_not_known_of_the_cost_is_said() -> None:
    line = {"usage": {"total_tokens": 9}, "cost_usd": None, "model": "gpt-5.5"}
    for spent, said in (
        (Spent(120, 0.0, unpriced_tokens=120),
         "120 tokens; what they cost is not known ([prices] lacks the price of gpt-5.5), "),
        (Spent(150, 0.25, unpriced_tokens=100),
         "150 tokens, $0.25 so far as known (the cost of 100 of the tokens is not known: [prices] lacks"),
        (Spent(150, 0.25), "150 tokens, $0.25, "),
        (Spent(0, 0.0, 1.0), "Tokens and money are not known, 1 h 0 min of agent runs"),
    ):  # fmt: skip
        text = priced(spent, line)
        assert said in text
        assert "$0.00" not in text


def test_what_is_open_is_listed_and_nothing_comes_after_the_end() -> None:
    plan = "- [x] one\n- [ ] two\n" + "- [ ] more\n" * 30
    text = make(LoopState("x", state=State.COMPLETED, goal="Do step 2."), plan=plan)
    assert "- two" in text.partition("## What is open")[2]
    assert "- and 11 more" in text
    assert "Do step 2." not in text
    assert "Nothing." in make(
        LoopState("x", state=State.COMPLETED, goal="Do it."), plan="- [x] one"
    )
    text = make(LoopState("x", state=State.STOPPED, goal="Do step 2."), plan="")
    assert "The next goal would be: Do step 2." in text


def test_counts_and_short_times_are_said_as_people_say_them() -> None:
    text = make(LoopState("x", iteration=1), [LINE | {"duration_sec": 0.41}])
    assert "1 iteration: 1 completed." in text
    assert "| 0.4 s |" in text


def test_a_completion_that_no_gate_has_proven_is_called_what_it_is() -> None:
    said = "None was run: that it is complete is the agent's word."
    assert said in make(lines=[LINE | {"gates": []}])
    assert said not in make()
    assert said not in make(LoopState("x", state=State.STOPPED), lines=[LINE | {"gates": []}])
