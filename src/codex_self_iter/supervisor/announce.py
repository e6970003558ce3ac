"""What a loop says of itself before its first run."""

from __future__ import annotations

import os

from codex_self_iter.core.text import one_line
from codex_self_iter.supervisor import fencing
from codex_self_iter.supervisor.context import Context
from codex_self_iter.views.preface import terms

_SHOWN = 100
"""Characters of a task in words."""


def tell_terms(ctx: Context) -> None:
    """Log who works on what and in which mode, what proves the end, and the limits."""
    for text in lines(ctx):
        ctx.log.info("loop.terms", text=ctx.store.redactor.text(text))


def lines(ctx: Context) -> list[str]:
    """The same, as three lines."""
    settings, policy = ctx.settings, ctx.policy
    done, total, _ = ctx.plan.progress()
    work = os.path.basename(ctx.plan.path)
    if total:
        work += f" ({done} of {total} items done)"
    if ctx.paths.in_words:
        work = f'"{one_line(ctx.task.text, _SHOWN)}"'
    first = (policy.agents[role][0].name for role in policy.roles)
    bounds = {"max_iterations": settings.max_iterations, **settings.budget.model_dump()}
    bounds["command_timeout_sec"] = settings.command_timeout_sec
    bounds["max_stagnation"] = settings.max_stagnation
    return terms(
        [*dict.fromkeys(first)],
        settings.agent_mode,
        work,
        settings.verify.commands,
        settings.remark,
        bounds,
        fencing.level(settings, policy),
    )
