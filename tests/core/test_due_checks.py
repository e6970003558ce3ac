"""Whose checks are due after a run, and what their failure means for what was done."""

from __future__ import annotations

import dataclasses

import pytest

from codex_self_iter.core.due_checks import due
from codex_self_iter.core.evidence import GateResult
from codex_self_iter.core.marks import mark
from codex_self_iter.core.plan import newly_ticked
from codex_self_iter.core.state import Iteration

A, B = "a; check: make a", "b; check: make b"


def names(text: str, before: str = "", *, claim: bool = False, done: tuple[str, ...] = ()) -> str:
    """The titles of the items that are due when a run has ticked what is new since `before`; a new
    tick is told by a letter in upper case."""
    marks = tuple(map(mark, newly_ticked(before, text)))
    opened = Iteration(1, "", 0.0, claim=claim, ticked_marks=marks)
    found = due(text, opened, tuple(map(mark, done)))
    return "".join(one.item.title.upper() if one.fresh else one.item.title for one in found)


@pytest.mark.parametrize(
    ("before", "now", "expected", "claimed"),
    [
        (f"- [ ] {A}", f"- [x] {A}", "A", "A"),
        (f"- [ ] {A}\n- [ ] {B}", f"- [ ] {A}\n- [x] {B}", "B", "Ba"),
        (f"- [x] {A}\n- [ ] {B}", f"- [x] {A}\n- [x] {B}", "B", "B"),
        ("- [ ] a", "- [x] a", "", ""),
        (f"- [ ] {A}", f"- [ ] {A}", "", "a"),
        (f"- [x] {A}", f"- [x] {A}", "", ""),
        (f"- [x] {A}\n- [ ] {A}", f"- [x] {A}\n- [x] {A}", "A", "A"),
    ],
)
def test_new_ticks_are_due_and_with_a_claim_what_is_open(
    before: str, now: str, expected: str, claimed: str
) -> None:
    assert names(now, before) == expected
    assert names(now, before, claim=True) == claimed


def test_what_earlier_runs_have_ticked_is_due_with_a_claim() -> None:
    text = f"- [x] {A}\n- [x] {B}"
    assert names(text, text, claim=True, done=(f"{A} 1",)) == "a"
    assert names(text, text, done=(f"{A} 1",)) == ""


def test_a_tick_that_was_taken_back_is_due_once_more() -> None:
    """By a supervisor that was killed before it could say so."""
    opened = Iteration(1, "", 0.0, ticked_marks=(mark(f"{A} 1"),))
    assert [one.fresh for one in due(f"- [ ] {A}", opened, ())] == [True]
    other = dataclasses.replace(opened, ticked_marks=(mark(f"{B} 1"),))
    assert [*due(f"- [ ] {A}", other, ())] == []


def test_the_items_of_a_check_survive_a_restart() -> None:
    from codex_self_iter.world.state.codec import from_json

    gate = GateResult("make a", 1, 0.1, "", items=("a",), tick="taken back", refused=("m",))
    assert from_json(GateResult, gate.to_json()) == gate
    old = {"command": "make", "exit_code": 0, "duration_sec": 0.1, "output": ""}
    assert from_json(GateResult, old).items == ()
