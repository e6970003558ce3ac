"""What people and programs see of a real run: status in every phase, its documented schema, logs,
history, show."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.control_steps import CLAIM, WORK, long_run, reach
from tests.support.harness import Workspace, wait_until
from tests.support.program import PROGRAM

DOCUMENT = Path(__file__).parents[2] / "docs" / "status.md"
ROW = re.compile(r"\| `([a-z_.\[\]]+)` \| ([a-z ]+) \| .+ \|")


def documented() -> dict[str, str]:
    return dict(ROW.findall(DOCUMENT.read_text(encoding="utf-8").partition("## The states")[0]))


def fits(value: object, kind: str) -> bool:
    """True when a value is of a documented type."""
    if kind.endswith(" or null"):
        return value is None or fits(value, kind.removesuffix(" or null"))
    if kind == "time":
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    if kind == "list of str":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if kind == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    wanted = {"int": int, "str": str, "bool": bool, "object": dict, "list": list}[kind]
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value, containers included."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        found[prefix + key] = item
        if isinstance(item, dict):
            found |= flat(item, f"{prefix}{key}.")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            for one in item:
                found |= flat(one, f"{prefix}{key}[].")
    return found


OF_THE_COMMAND = {"alive", "stale_sec", "waiting_goal", "waiting_messages", "orphan_pid"}


def check_schema(status: dict[str, Any], *, command: bool = False) -> None:
    """Every field of a status is documented with its type, and none that is documented is
    missing."""
    known, found = documented(), flat(status)
    assert found.keys() <= known.keys()
    for path, value in found.items():
        assert fits(value, known[path]), (path, value, known[path])
    for path in known:
        parent = re.sub(r"(\[\])?\.[a-z_]+$", "", path) if "." in path else ""
        if path not in OF_THE_COMMAND and (not parent or found.get(parent)):
            assert path in found
    assert OF_THE_COMMAND & found.keys() == (OF_THE_COMMAND if command else set())


def test_the_type_check_itself_notices_what_is_wrong() -> None:
    assert not fits("3", "int")
    assert not fits(True, "int")
    assert not fits(None, "str")
    assert not fits("yesterday", "str or null") or fits("yesterday", "str")
    assert len(documented()) > 70
    with pytest.raises(AssertionError):
        check_schema({"schema": 1})


@pytest.mark.slow
@pytest.mark.parametrize(
    "phase", ["running", "verifying", "backoff", "cooldown", "limited", "paused"]
)
def test_status_answers_at_a_glance_in_every_phase(ws: Workspace, phase: str) -> None:
    process = reach(ws, phase)
    if phase == "running":
        wait_until(
            lambda: (ws.status()["run"] or {}).get("age_sec") is not None, "the first sample"
        )
    if phase in ("backoff", "cooldown", "limited"):  # a state is told before its iteration's line
        wait_until(lambda: ws.status()["recent"], "the line of the iteration")
    check_schema(ws.status())
    shown = ws.cli("status")
    assert shown.returncode == 0
    assert phase in shown.stdout.splitlines()[0]
    assert f"alive, pid {process.pid}" in shown.stdout
    assert "since" in shown.stdout.splitlines()[0]
    assert "0 of 2" in shown.stdout
    for word in {
        "running": ["pid", "cpu", "must end by", "stuck?"],
        "verifying": ["gates of iteration 1"],
        "backoff": ["until", "code 3", "perhaps: 1 error", "#1 error"],
        "cooldown": ["until", "changed nothing", "#1 no_change"],
        "limited": ["until", "usage lim", "#1 limited"],
        "paused": ["PAUSE", "resume"],
    }[phase]:
        assert word in shown.stdout
    found = json.loads(ws.cli("status", "--json").stdout)
    check_schema(found, command=True)
    assert found["alive"] is True
    assert found["stale_sec"] < 60
    ws.cli("stop")
    assert ws.ended(process) == 0
    check_schema(ws.status())
    ended = ws.cli("status").stdout
    assert "stopped" in ended.splitlines()[0]
    assert "exit 0" in ended
    assert json.loads(ws.cli("status", "--json").stdout)["alive"] is False


@pytest.mark.slow
def test_a_killed_supervisor_is_not_called_alive(ws: Workspace) -> None:
    process = reach(ws, "cooldown")
    process.kill()
    process.wait()
    shown = ws.cli("status")
    assert "gone" in shown.stdout.splitlines()[0]
    assert json.loads(ws.cli("status", "--json").stdout)["alive"] is False


@pytest.mark.slow
def test_logs_history_and_show_after_a_real_run(ws: Workspace) -> None:
    ws.config('[verify]\ncommands = ["echo the gate speaks; true"]')
    ws.script(
        {
            **WORK,
            "say": "looking around",
            "block": {"summary": "made a start", "next_goal": "finish"},
        },
        {**CLAIM, "say": "all of it", "block": {"summary": "finished it", "completed": True}},
    )
    assert ws.run() == 0
    assert "all of it" in ws.cli("logs").stdout
    assert "looking around" in ws.cli("logs", "1").stdout
    assert "looking around" in ws.cli("logs", "--raw", "1").stdout
    history = ws.cli("history").stdout
    assert "made a start" in history
    assert "finished it" in history
    rows = [json.loads(line) for line in ws.cli("history", "--json").stdout.splitlines()]
    rows = rows[0] if rows and isinstance(rows[0], list) else rows
    assert [row["iteration"] for row in rows] == [1, 2]
    shown = ws.cli("show", "2").stdout
    for word in ("finish", "finished it", "the gate speaks", "work.txt"):
        assert word in shown


@pytest.mark.slow
def test_logs_follow_across_iterations(ws: Workspace) -> None:
    import subprocess

    ws.script(
        long_run(until="go", say="first words"), long_run(until="go on", say="second words"), CLAIM
    )
    process = ws.start()
    ws.wait_runs(1)
    out = ws.root / "followed"
    with out.open("wb") as file:
        follower = subprocess.Popen(
            [*PROGRAM, "logs", "-f", "--workspace", str(ws.path)],
            cwd=ws.root, env=ws.environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        wait_until(lambda: "first words" in out.read_text(), "the first run's words")
        (ws.control / "go").touch()
        wait_until(lambda: "second words" in out.read_text(), "the second run's words")
        (ws.control / "go on").touch()
        assert ws.ended(process) == 0
    finally:
        follower.terminate()
        follower.wait()


@pytest.mark.slow
def test_a_lone_loop_replaces_its_status_at_every_heartbeat(ws: Workspace) -> None:
    """A whole new file, although only the time has moved; many loops write the time in place."""
    process = reach(ws, "cooldown")
    path = ws.state / "status.json"
    seen = {}

    def beaten() -> bool:
        with path.open() as file:  # name and content of the same one
            seen[os.fstat(file.fileno()).st_ino] = json.load(file)["updated_at"]
        return len(seen) > 2

    wait_until(beaten, "two further files")
    assert len(set(seen.values())) > 2
    ws.cli("stop")
    assert ws.ended(process) == 0
