"""`[service] inhibit_sleep`: while a run or a gate of any loop is on, the machine stays awake.

What cannot be had is said once, and holds up nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from codex_self_iter.agents.passed_env import agent_environment
from codex_self_iter.core import asked
from codex_self_iter.core.text import clean
from codex_self_iter.supervisor.context import Context


def look(ctx: Context) -> None:
    """See to it that the machine is held awake if, and only if, somebody works."""
    shared, wanted = ctx.shared, ctx.settings.service.inhibit_sleep
    flaw = shared.inhibitor.flaw
    if wanted and flaw:
        said = clean(f"the machine may sleep while a run is on ([service] inhibit_sleep): {flaw}")
        ctx.warnings.tell("awake", said)
    else:
        ctx.warnings.clear("awake")
    at_work = wanted and asked.working(ctx.state) and not ctx.state.finished
    now = shared.clock.monotonic()
    environ = partial(agent_environment, shared.environ)
    if job := shared.inhibitor.due(ctx.name, environ, now, at_work=at_work):
        ctx.start("awake", _do, ctx, job)


async def leave(ctx: Context) -> None:
    """This loop has ended; the last one lets go."""
    if ctx.shared.inhibitor.leave(ctx.name):
        await _do(ctx, ctx.shared.inhibitor.let_go)


async def _do(ctx: Context, job: Callable[[], bool]) -> None:
    if not await ctx.shared.in_thread(job):
        return
    if ctx.shared.inhibitor.held:
        ctx.log.info("awake.held")
    else:
        ctx.log.info("awake.released")
