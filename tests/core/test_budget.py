"""What a loop has spent, by itself and by day, and when it is told."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core import budget
from codex_self_iter.core.agent_report import Usage
from codex_self_iter.core.policy import BudgetPolicy
from codex_self_iter.core.state import Spent

NOON = 1_700_006_400.0 // 86_400 * 86_400 + 43_200
RUN = Usage(70, 50, 30, 0.25)


def spend(*days: float) -> Spent:
    spent = Spent()
    for day in days:
        spent = budget.add(spent, RUN, 1_800.0, NOON + day * 86_400)
    return spent


def test_runs_add_up_in_all_and_by_day() -> None:
    spent = spend(0, 0, 1)
    assert (spent.tokens, spent.cost_usd, spent.hours) == (300, 0.75, 1.5)
    assert (spent.day_tokens, spent.day_cost_usd, spent.day_hours) == (100, 0.25, 0.5)


def test_unknown_usage_costs_its_time_only() -> None:
    spent = budget.add(Spent(), None, 3_600.0, NOON)
    assert (spent.tokens, spent.cost_usd, spent.hours) == (0, 0.0, 1.0)
    spent = budget.add(Spent(), Usage(1, 0, 1, None), 0.0, NOON)
    assert (spent.tokens, spent.cost_usd) == (2, 0.0)


@pytest.mark.parametrize(
    ("bound", "value", "spent_up"),
    [
        ("max_tokens", 300, True), ("max_tokens", 301, False), ("max_cost_usd", 0.75, True),
        ("max_hours", 1.5, True),
        ("max_hours", 1.6, False), ("max_tokens_per_day", 100, True),
        ("max_tokens_per_day", 101, False),
        ("max_cost_usd_per_day", 0.25, True), ("max_hours_per_day", 0.5, True),
        ("max_hours_per_day", 0.6, False),
    ],
)  # fmt: skip
def test_each_bound_is_looked_at(bound: str, value: float, spent_up: bool) -> None:
    policy = dataclasses.replace(BudgetPolicy(), **{bound: value})
    text = budget.exceeded(spend(0, 0, 1), policy, NOON + 86_400)
    assert (bound in text) is spent_up
    if bound.endswith("per_day"):
        assert budget.exceeded(spend(0, 0, 1), policy, NOON + 2 * 86_400) == ""


def test_no_bound_is_no_bound() -> None:
    assert budget.exceeded(Spent(10**12, 1e9, 1e9), BudgetPolicy(), NOON) == ""


def test_a_notice_comes_once_and_each_day_again_for_the_days_bounds() -> None:
    policy = BudgetPolicy(max_tokens=220, max_tokens_per_day=100)
    spent, texts = budget.notices(spend(0), policy)
    assert [text.split("]")[1].split()[0] for text in texts] == ["max_tokens_per_day"]
    assert budget.notices(spent, policy)[1] == ()
    spent, texts = budget.notices(budget.add(spent, RUN, 0.0, NOON + 86_400), policy)
    assert [text.split("]")[1].split()[0] for text in texts] == ["max_tokens", "max_tokens_per_day"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**6)), max_size=20))
def test_the_day_is_part_of_the_whole(runs: list[tuple[int, int]]) -> None:
    spent = Spent()
    for day, tokens in sorted(runs):
        spent = budget.add(spent, Usage(tokens), 1.0, NOON + day * 86_400)
    assert spent.tokens == sum(tokens for _, tokens in runs)
    last = max((day for day, _ in runs), default=0)
    assert spent.day_tokens == sum(tokens for day, tokens in runs if day == last)
