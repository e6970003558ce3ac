"""Nobody reads what the supervisor prints: it works on and ends in time."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from tests.support.harness import Workspace, wait_until
from tests.support.program import PROGRAM

ON = {"append": {"work.txt": "x\n"}, "number": True}
END = {**ON, "block": {"completed": True}}
IN_TIME = 30.0
"""Seconds for an end on a busy machine; a reader that is waited for takes for ever."""


def start(ws: Workspace, out: int, *flags: str) -> subprocess.Popen[bytes]:
    """A supervisor that prints to `out`."""
    process = subprocess.Popen(
        [*PROGRAM, "--workspace", str(ws.path), *flags],
        cwd=ws.root, env={**ws.environment, "TERM": "xterm"},
        stdin=subprocess.DEVNULL, stdout=out, stderr=out,
    )  # fmt: skip
    ws.supervisors.append(process)
    return process


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The smallest pipe: (read end, write end)."""
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    yield ends
    for end in ends:
        os.close(end)


def logged(ws: Workspace, event: str) -> int:
    """Lines of this event in the log's file."""
    path = ws.state / "logs" / "supervisor.log"
    return path.read_text().count(f'"event": "{event}"') if path.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_reader_that_stands_still_stops_nothing(
    ws: Workspace, pipe: tuple[int, int], kind: str
) -> None:
    ws.script(ON)
    flags = ["--debug"] if kind == "pipe" else []
    ends = pty.openpty() if kind == "terminal" else pipe
    process = start(ws, ends[1], *flags)
    try:
        wait_until(lambda: len(ws.journal()) > 24, "iterations with nobody reading")
        process.send_signal(signal.SIGTERM)
        assert ws.ended(process, IN_TIME) == 0
    finally:
        if kind == "terminal":
            os.close(ends[0])
            os.close(ends[1])
    assert logged(ws, "iteration.ended") == len(ws.journal())
    assert logged(ws, "loop.ended") == 1


def test_the_last_words_wait_for_nobody(ws: Workspace, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x" * 4096)
    (ws.path / "plan.md").unlink()
    assert ws.ended(start(ws, pipe[1]), IN_TIME) == 2


def test_a_reader_that_went_away_is_no_failure(ws: Workspace) -> None:
    ws.script(ON, END)
    read, write = os.pipe()
    os.close(read)
    process = start(ws, write)
    os.close(write)
    assert ws.ended(process) == 0


@pytest.mark.slow
def test_a_terminal_shows_lines_above_the_live_line(ws: Workspace) -> None:
    ws.script({**ON, "sleep": 2.5}, END)
    reading, writing = pty.openpty()
    process = start(ws, writing)
    os.close(writing)
    said = b""
    try:
        while block := os.read(reading, 65536):
            said += block
    except OSError:  # its last writer has gone
        pass
    finally:
        os.close(reading)
    assert ws.ended(process) == 0
    shown = said.decode("utf-8", "replace").split("\r\x1b[2K")
    assert any(line.startswith("running · iteration") for line in shown)
    assert not any(line.startswith("running") and "\n" in line for line in shown)
    assert "loop.ended" in "".join(shown[-2:])


def test_lines_for_people_have_no_empty_fields(ws: Workspace) -> None:
    ws.script({"block": {"completed": True, "next_goal": "Do step 2."}})
    assert ws.run() == 0
    started = next(line for line in ws.log().splitlines() if "run.started" in line)
    assert "goal=" not in started
    assert "output=/" in started or "output='/" in started
    ended = next(line for line in ws.log().splitlines() if "iteration.ended" in line)
    assert "Do step 2." not in ended


def test_people_read_their_own_time_and_programs_one_that_says_its_zone(ws: Workspace) -> None:
    ws.script(END)
    assert ws.run("--log-format", "console", environment={"TZ": "XYZ-5:30"}) == 0
    lines = (ws.state / "logs" / "supervisor.log").read_text().splitlines()
    stamps = [datetime.fromisoformat(json.loads(line)["timestamp"]) for line in lines]
    assert all(at.tzinfo for at in stamps)
    ours = stamps[-1] + timedelta(hours=5, minutes=30)
    assert f"{ours:%H:%M:%S}" in ws.log()
