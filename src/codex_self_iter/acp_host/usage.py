"""What an agent's counts of tokens and money mean, as one sum for the run. Pure.

Measured: the total tells whether cached tokens and thoughts are counted in the input and output or
beside them; there is no field for it. What an answer covers differs from agent to agent
(`core.acp_agents.Counts`); money is the session's, also of earlier processes."""

from __future__ import annotations

from codex_self_iter.core.acp_agents import Counts
from codex_self_iter.core.foreign import as_cost, as_dict, as_int

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

Tokens = tuple[int, int, int]
"""Input (with what was cached), of it cached, output (with thoughts)."""


class Spending:
    """Adds up what one run has used.

    Attributes:
        tokens: so far, or None while nothing is known.
        cost_usd: so far, or None.
        told: the last turn came with counts."""

    def __init__(self, counts: Counts, before: tuple[int, int, int, float] | None = None) -> None:
        """`before`: what an old session has used before this run: tokens, and dollars."""
        self._counts = counts
        self._before = before or (0, 0, 0, 0.0)
        self.tokens: Tokens | None = None
        self.cost_usd: float | None = None
        self.told = False

    def update(self, given: Json) -> None:
        """Take a `session/update`."""
        cost = as_dict(given.get("cost"))
        if given.get("sessionUpdate") == "usage_update" and cost.get("currency") == "USD":
            amount = as_cost(cost.get("amount"))
            if amount is not None:
                self.cost_usd = max(0.0, amount - self._before[3])
        elif self._counts is Counts.CALLS:
            self._add(tokens_of(as_dict(as_dict(given.get("_meta")).get("usage"))))

    def answer(self, given: Json) -> None:
        """Take the answer to a prompt."""
        quota = as_dict(as_dict(as_dict(given.get("_meta")).get("quota")).get("token_count"))
        found = tokens_of(as_dict(given.get("usage"))) or tokens_of(quota)
        self.told = found is not None
        if self._counts is Counts.PROCESS:
            self.tokens = found or self.tokens
        elif self._counts is Counts.SESSION and found is not None:
            into, cached, out = (
                max(0, now - was) for now, was in zip(found, self._before[:3], strict=True)
            )
            self.tokens = (into, cached, out)
        elif self._counts is Counts.TURN:
            self._add(found)

    def _add(self, found: Tokens | None) -> None:
        if found is not None:
            before = self.tokens or (0, 0, 0)
            self.tokens = (before[0] + found[0], before[1] + found[1], before[2] + found[2])


def tokens_of(usage: Json) -> Tokens | None:
    """The counts that one object holds, or None.

    With a total, input and output are read so that they make it: cached input and thoughts are
    counted beside them or in them."""
    given = as_int(usage.get("inputTokens") or usage.get("input_tokens"))
    made = as_int(usage.get("outputTokens") or usage.get("output_tokens"))
    if not (given or made):
        return None
    cached = as_int(usage.get("cachedReadTokens") or usage.get("cachedInputTokens"))
    written = as_int(usage.get("cachedWriteTokens"))
    thought = as_int(usage.get("thoughtTokens") or usage.get("reasoningTokens"))
    total = as_int(usage.get("totalTokens") or usage.get("total_tokens"))
    readings = (
        (given, made),
        (given + cached + written, made),
        (given + cached, made),
        (given, made + thought),
        (given + cached + written, made + thought),
        (given + cached, made + thought),
    )
    fitting = (one for one in readings if sum(one) == total)
    into, out = next(fitting, (max(given, cached), made))
    return into, min(cached, into), out
