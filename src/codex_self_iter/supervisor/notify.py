"""Telling a person: the log, and the `[notify] command` with one JSON object on its input."""

from __future__ import annotations

import json
import os
from typing import Any

import anyio

from codex_self_iter.core.state import LoopState
from codex_self_iter.supervisor.context import Context
from codex_self_iter.world.process.tool import run_tool

TIMEOUT_SEC = 30.0


def tell(ctx: Context, event: str, text: str, state: LoopState) -> None:
    """Log what needs a person, and run the command if the event is among those asked for."""
    if event in ("agent_stopped", "blocked", "budget", "cooldown", "outage"):
        ctx.log.warning("loop.notify", about=event, text=text)
    if _asked(ctx, event):
        ctx.start("notify", _send, ctx, _payload(ctx, event, text, state))


async def tell_end(ctx: Context) -> None:
    """The same for a loop that has ended badly: its state says how, and its tasks are gone."""
    event = ctx.state.state.value
    if _asked(ctx, event):
        await _send(ctx, _payload(ctx, event, ctx.state.reason, ctx.state))


def _asked(ctx: Context, event: str) -> bool:
    return bool(ctx.settings.notify.command) and event in ctx.settings.notify.events


def _payload(ctx: Context, event: str, text: str, state: LoopState) -> dict[str, Any]:
    payload = {
        "event": event,
        "text": text,
        "loop": ctx.name,
        "workspace": str(ctx.paths.workspace),
        "iteration": state.iteration,
        "state": state.state.value,
    }
    redacted: dict[str, Any] = ctx.store.redactor.value(payload)
    return redacted


async def _send(ctx: Context, payload: dict[str, Any]) -> None:
    """Run the command; a notification that fails is told and changes nothing."""
    command, workspace = tuple(ctx.settings.notify.command), str(ctx.paths.workspace)
    with anyio.CancelScope(shield=True):  # the loop may be ending: that is what is being told
        result = await run_tool(
            command,
            cwd=workspace if os.path.isdir(workspace) else "/",
            timeout_sec=TIMEOUT_SEC,
            stdin=json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace"),
        )
    if result.exit_code == 0:
        ctx.warnings.clear("notify")
        return
    how = {"exit_code": result.exit_code, "timed_out": result.timed_out}
    ctx.log.warning("notify.failed", command=command[0], **how)
    why = "it timed out" if result.timed_out else result.error or f"exit code {result.exit_code}"
    ctx.warnings.tell("notify", f"the [notify] command {command[0]!r} failed: {why}")
