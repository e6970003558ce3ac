"""Going in circles is noticed; going on is not taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core.marks import mark, normalise
from codex_self_iter.core.stagnation import HISTORY, circle


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Fix  tests!", "fix tests"),
        ("ﬁx", "FIX"),
        ("Straße", "STRASSE"),
        ("a\nb", "a b"),
        ("a_b", "a-b"),
        ("...", ""),
    ],
)
def test_case_space_and_punctuation_do_not_matter(one: str, two: str) -> None:
    assert normalise(one) == normalise(two)


@pytest.mark.parametrize(("one", "two"), [("fix 1", "fix 2"), ("a", "b"), ("修复测试", "修复构建")])
def test_words_do(one: str, two: str) -> None:
    assert normalise(one) != normalise(two)


@given(st.text())
def test_normalising_twice_changes_nothing(goal: str) -> None:
    once = normalise(goal)
    assert normalise(normalise(once)) == normalise(once)
    assert normalise(f"  {goal} !") == once


@pytest.mark.parametrize(
    ("goals", "idle", "gates", "length", "what"),
    [
        ("", 0, 0, 0, ""),
        ("A", 0, 0, 0, ""),
        ("AB", 0, 0, 0, ""),
        ("AA", 0, 0, 2, "the same goal"),
        ("BAAA", 0, 0, 3, "the same goal"),
        ("ABA", 0, 0, 0, ""),
        ("ABAB", 0, 0, 4, "2 goals in turn"),
        ("CABABA", 0, 0, 5, "2 goals in turn"),
        ("ABCAB", 0, 0, 0, ""),
        ("ABCABC", 0, 0, 6, "3 goals in turn"),
        ("AAB", 0, 0, 0, ""),
        ("AB", 3, 0, 3, "no change"),
        ("AAAA", 3, 0, 4, "the same goal"),
        ("AB", 0, 2, 2, "the same gate failure"),
        ("AB", 0, 3, 3, "the same gate failure"),
    ],
)
def test_circles(goals: str, idle: int, gates: int, length: int, what: str) -> None:
    found = circle(tuple(goals), idle, gates)
    assert found.length == length
    if length:
        assert what in found.what


@given(st.lists(st.integers(), unique=True, max_size=HISTORY), st.integers(0, 9))
def test_goals_that_are_all_different_are_no_circle(goals: list[int], idle: int) -> None:
    assert circle([str(goal) for goal in goals], idle).length == idle


@given(st.lists(st.sampled_from("AB"), max_size=9), st.integers(2, HISTORY))
def test_a_circle_is_as_long_as_it_is(before: list[str], rounds: int) -> None:
    assert circle([*before, "x", *["C"] * rounds], 0).length == rounds
    assert circle([*before, "x", *["C", "D"] * rounds], 0).length == 2 * rounds


def test_a_mark_says_nothing_of_its_goal_but_which_it_is() -> None:
    assert mark("Fix  the tests!") == mark("fix the tests")
    assert mark("fix the tests") != mark("fix the test")
    assert "fix" not in mark("fix")
