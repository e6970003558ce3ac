"""Telling a person: the log, and the `[notify] command` with one JSON object on its input."""

from __future__ import annotations

import json
from typing import Any

import anyio

from codex_self_iter.core.state import LoopState
from codex_self_iter.supervisor.context import Context
from codex_self_iter.world.process.tool import run_tool

TIMEOUT_SEC = 30.0


def tell(ctx: Context, event: str, text: str, state: LoopState) -> None:
    """Log what needs a person, and run the command if the event is among those asked for."""
    if event in ("blocked", "budget"):
        ctx.log.warning("loop.notify", about=event, text=text)
    settings = ctx.settings.notify
    if settings.command and event in settings.events:
        payload = {
            "event": event,
            "text": text,
            "loop": ctx.name,
            "workspace": str(ctx.paths.workspace),
            "iteration": state.iteration,
            "state": state.state.value,
        }
        ctx.start("notify", _send, ctx, tuple(settings.command), payload)


async def _send(ctx: Context, command: tuple[str, ...], payload: dict[str, Any]) -> None:
    """Run the command; a notification that fails is logged and changes nothing."""
    with anyio.CancelScope(shield=True):  # the loop may be ending: that is what is being told
        result = await run_tool(
            command,
            cwd=str(ctx.paths.workspace),
            timeout_sec=TIMEOUT_SEC,
            stdin=json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace"),
        )
    if result.exit_code != 0:
        how = {"exit_code": result.exit_code, "timed_out": result.timed_out}
        ctx.log.warning("notify.failed", command=command[0], **how)
