"""Bringing a loop of the real program into a phase, quickly and for long enough to act on it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import psutil

from tests.support.harness import Workspace, wait_until

WORK: dict[str, Any] = {"append": {"work.txt": "x\n"}}
CLAIM: dict[str, Any] = {**WORK, "block": {"completed": True}}
IDLE: dict[str, Any] = {"block": {"next_goal": "look again"}}
PLANNED: dict[str, Any] = {
    "objective": "o", "execution_prompt": "do it", "done_if": "d", "stop": False, "rationale": "r",
}  # fmt: skip
"""What a planner answers."""
FAILS: dict[str, Any] = {"exit": 3}
LIMITED: dict[str, Any] = {
    "raw": "ERROR: usage limit reached, try again in 20 minutes\n",
    "exit": 1,
}
KEEP = 'x=$(cat); printf "%s\\n" "$x" >> "$0"'
"""Shell text of a notify command that adds what it is given to the file that is named. It writes a line in one
piece: two loops may tell something at once."""
SLOW_GATE = "[verify]\ncommands = ['until test -e \"{}/gate\"; do sleep 0.05; done']\n"


def notify(ws: Workspace, **keys: Any) -> str:
    """A [notify] table that keeps what it is told, one object a line, in the file `told`."""
    table = {"command": ["sh", "-c", KEEP, str(ws.root / "told")], **keys}
    return "\n".join(
        ["[notify]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""]
    )


def told(ws: Workspace) -> list[dict[str, Any]]:
    """What the notify command was given."""
    path = ws.root / "told"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def long_run(until: str = "never", **step: Any) -> dict[str, Any]:
    """A step that works until the file `until` is there."""
    return {**WORK, "sleep": 120, "until": until, **step}


def reach(ws: Workspace, phase: str, *then: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start a supervisor and bring its loop into `phase`, where it stays; later runs do `then`, or
    work on."""
    first = {
        "running": [long_run()],
        "verifying": [CLAIM],
        "backoff": [FAILS],
        "cooldown": [IDLE],
        "limited": [LIMITED, LIMITED],  # a class that words alone tell counts from the second on
    }
    slow = {"backoff_base_sec": 600, "backoff_max_sec": 900, "no_change_backoff_sec": 600}
    if phase == "limited":
        slow["backoff_base_sec"] = 0
    ws.config(SLOW_GATE.format(ws.control) if phase == "verifying" else "", **slow)
    ws.script(*first.get(phase, [long_run()]), *(then or (long_run(),)))
    if phase == "paused":
        ws.cli("pause")
    process = ws.start()
    ws.wait_state(phase)
    if phase == "running":
        ws.wait_runs(1)
    return process


def wait_log(ws: Workspace, text: str) -> None:
    """Wait until the supervisors have logged `text`."""
    wait_until(lambda: text in ws.log(), f"{text!r} in the log:\n{ws.log()[-3000:]}")


def agents_alive(ws: Workspace) -> list[int]:
    """Pids of agent runs that still live; the supervisor may go on."""
    return [pid for word, pid, _ in ws.runs() if word == "start" and psutil.pid_exists(pid)]
