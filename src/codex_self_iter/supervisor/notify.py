"""Telling a person what has happened: the log, and those whom `[notify]` names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from codex_self_iter.core.foreign import as_int, as_text
from codex_self_iter.core.mailbox import Notice, key_of
from codex_self_iter.core.state import LoopState
from codex_self_iter.supervisor import courier
from codex_self_iter.supervisor.context import Context

TOLD = ("agent_stopped", "blocked", "budget", "cooldown", "outage")
"""What is in the log as a warning; an end has a line of its own."""


def tell(ctx: Context, event: str, text: str, state: LoopState, cause: str = "") -> None:
    """Log what needs a person, and have it sent. `cause`: the same for what has one cause."""
    if event in TOLD:
        ctx.log.warning("loop.notify", about=event, text=text)
    ctx.start("notify", courier.keep, ctx, [(notice(ctx, event, text, state), cause)])


async def tell_end(ctx: Context, *, gone: bool) -> None:
    """The same for a loop that has ended badly: its state says how. `gone`: so is its workspace."""
    state = ctx.state
    word = notice(ctx, state.state.value, state.reason, state)
    await courier.keep(ctx, [(dataclasses.replace(word, gone=gone), "")])


def notice(
    ctx: Context, event: str, text: str, state: LoopState, record: Mapping[str, Any] | None = None
) -> Notice:
    """A word about this loop, now; without secrets. `record`: the journal's line of the iteration that
    has just ended, where it is not yet written."""
    last = record or (ctx.recent[-1] if ctx.recent else {})
    done, total, _ = ctx.plan.progress()
    redact = ctx.store.redactor.text
    return Notice(
        key=key_of(state.loop_id, state.iteration, event, text),
        event=event,
        text=redact(text),
        at=ctx.shared.clock.wall(),
        loop=ctx.name,
        workspace=str(ctx.paths.workspace),
        state_dir=str(ctx.paths.state_dir),
        state=state.state.value,
        since=state.since,
        iteration=state.iteration,
        done=done,
        total=total,
        changed=as_int(last.get("changed_count")),
        said=redact(as_text(last.get("summary"))),
        config=ctx.settings.given_file,
    )
