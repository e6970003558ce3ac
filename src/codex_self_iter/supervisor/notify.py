"""Telling a person: the `[notify] command`, with one JSON object on its standard input."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio

from codex_self_iter.world.process.tool import run_tool

if TYPE_CHECKING:
    from codex_self_iter.supervisor.loop import Loop

TIMEOUT_SEC = 30.0


async def send(loop: Loop, command: tuple[str, ...], payload: dict[str, Any]) -> None:
    """Run the command; a notification that fails is logged and changes nothing."""
    with anyio.CancelScope(shield=True):  # the loop may be ending: that is what is being told
        result = await run_tool(
            command,
            cwd=str(loop.paths.workspace),
            timeout_sec=TIMEOUT_SEC,
            stdin=json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace"),
        )
    if result.exit_code != 0:
        loop.log.warning(
            "notify.failed",
            command=command[0],
            exit_code=result.exit_code,
            timed_out=result.timed_out,
        )
