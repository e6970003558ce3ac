"""Bringing a loop of the real program into a phase, quickly and for long enough to act on it."""

from __future__ import annotations

import subprocess
from typing import Any

import psutil

from tests.support.harness import Workspace, wait_until

WORK: dict[str, Any] = {"append": {"work.txt": "x\n"}}
CLAIM: dict[str, Any] = {**WORK, "block": {"completed": True}}
IDLE: dict[str, Any] = {"block": {"next_goal": "look again"}}
FAILS: dict[str, Any] = {"exit": 3}
LIMITED: dict[str, Any] = {
    "raw": "ERROR: usage limit reached, try again in 20 minutes\n",
    "exit": 1,
}
SLOW_GATE = "[verify]\ncommands = ['until test -e \"{}/gate\"; do sleep 0.05; done']\n"


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
