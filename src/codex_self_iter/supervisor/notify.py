"""Telling a person: the log, and the `[notify] command` with one JSON object on its input."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import anyio

from codex_self_iter.core.state import LoopState
from codex_self_iter.settings import Settings
from codex_self_iter.supervisor.context import Context
from codex_self_iter.world.bounded import ToolResult
from codex_self_iter.world.process.tool import run_tool

TIMEOUT_SEC = 30.0


def tell(ctx: Context, event: str, text: str, state: LoopState) -> None:
    """Log what needs a person, and run the command if the event is among those asked for."""
    if event in ("agent_stopped", "blocked", "budget", "cooldown", "outage"):
        ctx.log.warning("loop.notify", about=event, text=text)
    if asked(ctx.settings, event):
        ctx.start("notify", _send, ctx, _payload(ctx, event, text, state))


async def tell_end(ctx: Context) -> None:
    """The same for a loop that has ended badly: its state says how, and its tasks are gone."""
    event = ctx.state.state.value
    if asked(ctx.settings, event):
        await _send(ctx, _payload(ctx, event, ctx.state.reason, ctx.state))


def asked(settings: Settings, event: str) -> bool:
    """True when somebody wants to be told of it."""
    return bool(settings.notify.command) and event in settings.notify.events


def _payload(ctx: Context, event: str, text: str, state: LoopState) -> dict[str, Any]:
    redacted: dict[str, Any] = ctx.store.redactor.value(
        payload(ctx.name, str(ctx.paths.workspace), event, text, state)
    )
    return redacted


def payload(name: str, workspace: str, event: str, text: str, state: LoopState) -> dict[str, Any]:
    """What the command is told (docs/notify.md)."""
    return {
        "event": event,
        "text": text,
        "loop": name,
        "workspace": workspace,
        "iteration": state.iteration,
        "state": state.state.value,
    }


async def run(command: tuple[str, ...], payload: Mapping[str, Any]) -> ToolResult:
    """Run the command with this on its input, in the payload's workspace."""
    workspace = str(payload["workspace"])
    return await run_tool(
        command,
        cwd=workspace if os.path.isdir(workspace) else "/",
        timeout_sec=TIMEOUT_SEC,
        stdin=json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace"),
    )


async def _send(ctx: Context, payload: dict[str, Any]) -> None:
    """Run the command; a notification that fails is told and changes nothing."""
    command = tuple(ctx.settings.notify.command)
    with anyio.CancelScope(shield=True):  # the loop may be ending: that is what is being told
        result = await run(command, payload)
    if result.exit_code == 0:
        ctx.warnings.clear("notify")
        return
    how = {"exit_code": result.exit_code, "timed_out": result.timed_out}
    ctx.log.warning("notify.failed", command=command[0], **how)
    why = "it timed out" if result.timed_out else result.error or f"exit code {result.exit_code}"
    ctx.warnings.tell("notify", f"the [notify] command {command[0]!r} failed: {why}")
