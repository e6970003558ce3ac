"""Tokens to money, from the configured table. Pure. An unknown model has no price; none is ever
made up."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from codex_self_iter.core.agent_report import Usage


@dataclasses.dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens. `cached_input_per_mtok` None: cached input costs what other input
    costs. `as_of` is the date of the price list, for people."""

    input_per_mtok: float
    output_per_mtok: float
    cached_input_per_mtok: float | None = None
    as_of: str = ""

    def cost(self, usage: Usage) -> float:
        """Money for these tokens."""
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        cached_price = (
            self.input_per_mtok
            if self.cached_input_per_mtok is None
            else self.cached_input_per_mtok
        )
        fresh = (usage.input_tokens - cached) * self.input_per_mtok
        return (
            fresh + cached * cached_price + usage.output_tokens * self.output_per_mtok
        ) / 1_000_000


def priced(usage: Usage | None, model: str, prices: Mapping[str, Price]) -> Usage | None:
    """Add the cost where the CLI gave none and the table knows the model (exact name, or without
    its provider's prefix: `openai/gpt-x` finds `gpt-x`)."""
    if usage is None or usage.cost_usd is not None or not model:
        return usage
    price = price_of(model, prices)
    return usage if price is None else dataclasses.replace(usage, cost_usd=price.cost(usage))


def price_of(model: str, prices: Mapping[str, Price]) -> Price | None:
    """The model's price, if the table has one."""
    return prices.get(model) or prices.get(model.rpartition("/")[2])
