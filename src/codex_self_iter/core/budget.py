"""What a loop has spent, and whether it may go on."""

from __future__ import annotations

import dataclasses

from codex_self_iter.core.agent_report import Usage
from codex_self_iter.core.policy import BudgetPolicy
from codex_self_iter.core.state import Spent

DAY_SEC = 86_400
BOUNDS = (
    "max_tokens", "max_cost_usd", "max_hours",
    "max_tokens_per_day", "max_cost_usd_per_day", "max_hours_per_day",
)  # fmt: skip


def today(spent: Spent, now: float) -> Spent:
    """The same account with the day's figures cleared when the UTC day has changed."""
    day = int(now // DAY_SEC)
    if day == spent.day:
        return spent
    kept = tuple(name for name in spent.noticed if not name.endswith("_per_day"))
    return dataclasses.replace(
        spent, day=day, day_tokens=0, day_cost_usd=0.0, day_hours=0.0, noticed=kept
    )


def add(spent: Spent, usage: Usage | None, duration_sec: float, now: float) -> Spent:
    """Add one run. Unknown usage adds its time only: nothing is made up."""
    spent = today(spent, now)
    tokens = usage.total_tokens if usage else 0
    cost = (usage.cost_usd or 0.0) if usage else 0.0
    hours = duration_sec / 3600.0
    return dataclasses.replace(
        spent,
        tokens=spent.tokens + tokens,
        cost_usd=spent.cost_usd + cost,
        hours=spent.hours + hours,
        unpriced_tokens=spent.unpriced_tokens + (tokens if usage and usage.cost_usd is None else 0),
        day_tokens=spent.day_tokens + tokens,
        day_cost_usd=spent.day_cost_usd + cost,
        day_hours=spent.day_hours + hours,
    )


def _shares(spent: Spent, budget: BudgetPolicy) -> list[tuple[str, float, float]]:
    """(name, used, bound) of every bound that is set."""
    used = (
        spent.tokens, spent.cost_usd, spent.hours,
        spent.day_tokens, spent.day_cost_usd, spent.day_hours,
    )  # fmt: skip
    rows = (
        (name, float(now), float(getattr(budget, name)))
        for name, now in zip(BOUNDS, used, strict=True)
    )
    return [row for row in rows if row[2] > 0]


def exceeded(spent: Spent, budget: BudgetPolicy, now: float) -> str:
    """Say which bound is spent, or ""."""
    for name, used, bound in _shares(today(spent, now), budget):
        if used >= bound:
            return f"budget spent: [budget] {name} = {bound:g}, used {used:.6g}"
    return ""


def notices(spent: Spent, budget: BudgetPolicy) -> tuple[Spent, tuple[str, ...]]:
    """Notices that are due (a share of `notice_at` reached for the first time; 0: none), and the
    account that remembers them."""
    due = {name: text for name, text in near(spent, budget).items() if name not in spent.noticed}
    if not due:
        return spent, ()
    return dataclasses.replace(spent, noticed=(*spent.noticed, *due)), tuple(due.values())


def near(spent: Spent, budget: BudgetPolicy) -> dict[str, str]:
    """What there is to say of every bound of which a share of `notice_at` is used (0: none)."""
    if not budget.notice_at:
        return {}
    return {
        name: f"{100 * used / bound:.0f} % of [budget] {name} = {bound:g} is used"
        for name, used, bound in _shares(spent, budget)
        if used >= budget.notice_at * bound
    }
