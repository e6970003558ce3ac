"""The checks of plan items, run with the gates; ticks whose check fails are taken back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from codex_self_iter.core.due_checks import Due, due
from codex_self_iter.core.evidence import GateResult
from codex_self_iter.core.plan import parse_plan
from codex_self_iter.core.text import listed
from codex_self_iter.core.verdict import NAMED
from codex_self_iter.supervisor.context import Context

Commands = Mapping[str, Sequence[Due]]
"""By command the items whose check it is."""


def there(ctx: Context) -> bool:
    """Whether an item of the plan has a check, and such are run."""
    text = ctx.plan.text
    asked = ctx.policy.item_checks and "check:" in text
    return asked and any(item.checks for item in parse_plan(text).items)


def commands(ctx: Context) -> Commands:
    """The checks that are due for the open iteration."""
    found: dict[str, list[Due]] = {}
    if ctx.state.open is not None and there(ctx):
        for one in due(ctx.plan.text, ctx.state.open, ctx.state.best.done):
            for command in one.item.checks:
                found.setdefault(command, []).append(one)
    return found


async def judged(
    ctx: Context, results: Sequence[GateResult], checks: Commands
) -> tuple[GateResult, ...]:
    """The results with the items whose checks they are; the ticks of those that failed are taken
    back, and so is said. One that could not run says nothing of its items."""
    failed = [result for result in results if not (result.ok or result.flaw)]
    of_failed = (one for result in failed for one in checks.get(result.command, ()) if one.fresh)
    items = tuple(dict.fromkeys(one.item for one in of_failed))
    stand = await ctx.shared.in_thread(ctx.plan.untick, items) if items else {}
    ends = {item: _end(stand.get(item, "")) for item in items}
    for item, end in ends.items():
        ctx.log.warning("tick.refused", item=ctx.shown(item.title, 200), line=item.line, end=end)
    if stand:
        named = listed([f"{item.title[:200]!r} ({why})" for item, why in stand.items()], NAMED)
        text = f"the ticks of items whose check fails could not be taken back: {named}"
        ctx.warnings.tell("ticks", text, agent=True)
    else:
        ctx.warnings.clear("ticks")
    found = []
    for result in results:
        of = checks.get(result.command, ())
        told = [one for one in of if result in failed and one.item in ends]
        found.append(
            dataclasses.replace(
                result,
                items=tuple(one.item.title for one in of),
                tick=", ".join(dict.fromkeys(ends[one.item] for one in told)),
                refused=tuple(one.mark for one in told if one.item not in stand),
            )
        )
    return tuple(found)


def _end(problem: str) -> str:
    return f"its tick stands: {problem}" if problem else "its tick was taken back"
