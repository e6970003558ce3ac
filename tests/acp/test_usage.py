"""What the counts of each agent mean: of three calls of 700 tokens in, 380 of them cached, 90 out."""

from __future__ import annotations

import pytest

from codex_self_iter.acp_host.usage import Spending, tokens_of
from codex_self_iter.core.acp_agents import ACP_AGENTS, Counts

MEANT = (700, 380, 90)


@pytest.mark.parametrize(
    "usage",
    [
        {"inputTokens": 320, "cachedReadTokens": 380, "outputTokens": 90, "totalTokens": 790},
        {"inputTokens": 700, "cachedReadTokens": 380, "outputTokens": 90, "totalTokens": 790},
        {"inputTokens": 700, "cachedReadTokens": 380, "outputTokens": 60, "thoughtTokens": 30,
         "totalTokens": 790},
        {"inputTokens": 320, "cachedReadTokens": 380, "outputTokens": 60, "thoughtTokens": 30,
         "totalTokens": 790},
        {"inputTokens": 200, "cachedReadTokens": 380, "cachedWriteTokens": 120,
         "outputTokens": 90, "totalTokens": 790},
    ],
)  # fmt: skip
def test_the_total_tells_how_to_read_the_parts(usage: dict[str, int]) -> None:
    assert tokens_of(usage) == MEANT


def test_without_a_total_the_parts_are_taken_as_they_are() -> None:
    assert tokens_of({"input_tokens": 200, "output_tokens": 40}) == (200, 0, 40)
    assert tokens_of({"inputTokens": 10, "cachedReadTokens": 380, "outputTokens": 1}) == (
        380,
        380,
        1,
    )


@pytest.mark.parametrize(
    "odd", [{}, {"inputTokens": "many"}, {"inputTokens": -3}, {"outputTokens": True}]
)
def test_what_is_no_count_is_none(odd: dict[str, object]) -> None:
    assert tokens_of(odd) is None


TURN = {
    "usage": {"inputTokens": 320, "cachedReadTokens": 380, "outputTokens": 90, "totalTokens": 790}
}
TWICE = {"usage": {"inputTokens": 1400, "cachedReadTokens": 760, "outputTokens": 180,
                   "totalTokens": 1580}}  # fmt: skip
BOTH = (1400, 760, 180)


def test_counts_of_a_turn_add_up() -> None:
    spending = Spending(Counts.TURN)
    spending.answer(TURN)
    spending.answer(TURN)
    assert spending.tokens == BOTH


def test_counts_of_a_process_do_not() -> None:
    spending = Spending(Counts.PROCESS)
    spending.answer(TURN)
    spending.answer(TWICE)
    assert spending.tokens == BOTH


def test_of_a_session_that_went_on_only_what_is_new_counts() -> None:
    spending = Spending(Counts.SESSION, (700, 380, 90, 0.25))
    spending.answer(TWICE)
    spending.update({"sessionUpdate": "usage_update", "cost": {"amount": 0.75, "currency": "USD"}})
    assert spending.tokens == MEANT
    assert spending.cost_usd == pytest.approx(0.5)


def test_counts_of_model_calls_add_up() -> None:
    spending = Spending(Counts.CALLS)
    for _ in range(2):
        spending.update({"sessionUpdate": "agent_message_chunk", "_meta": TURN})
    spending.answer({"stopReason": "end_turn"})
    assert spending.tokens == BOTH


def test_googles_count_of_the_turn() -> None:
    spending = Spending(Counts.TURN)
    quota = {"token_count": {"input_tokens": 200, "output_tokens": 40}}
    spending.answer({"_meta": {"quota": quota}})
    assert spending.tokens == (200, 0, 40)


def test_counts_that_mean_something_else_are_not_used() -> None:
    """opencode's are of the last model call alone."""
    spending = Spending(Counts.NONE)
    spending.answer(TURN)
    assert spending.tokens is None
    assert spending.told


def test_other_money_is_no_money() -> None:
    spending = Spending(Counts.NONE)
    for cost in ({"amount": 3, "currency": "EUR"}, {"amount": -1, "currency": "USD"}, 3, None):
        spending.update({"sessionUpdate": "usage_update", "cost": cost})
    assert spending.cost_usd is None


def test_every_row_that_was_measured_says_what_its_counts_cover() -> None:
    silent = {
        name for name, row in ACP_AGENTS.items() if row.measured and row.counts is Counts.NONE
    }
    assert silent == {"kilo", "opencode"}
