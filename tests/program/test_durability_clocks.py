"""A wrong clock, on the real program: no year-long sleep, no lost wait, no wrong kill, whatever
jumps when.

The clocks are faked by libfaketime inside the processes; the test itself lives in true time and
measures from outside. Once the wall clock alone is faked, once every clock that a C library can
fake."""

from __future__ import annotations

import glob
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.harness import Workspace, wait_until

LIBRARY = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LIBRARY, reason="NOT TESTED HERE: wrong clocks need Debian's faketime"),
]

YEAR = "+365d", "-365d"
OFTEN = pytest.param("+365d", marks=pytest.mark.slow), "-365d"
WALL_ONLY = {"DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
WAIT_SEC = 6.0
START_SEC = 25.0
"""What starting a program may take on a busy machine."""


def fake(offset: str, *, wall_only: bool = True) -> dict[str, str]:
    """Environment of a process whose clocks are off by a fixed time."""
    return {"LD_PRELOAD": LIBRARY, "FAKETIME": offset, **(WALL_ONLY if wall_only else {})}


def movable(ws: Workspace) -> Mapping[str, str]:
    """Environment of a process whose wall clock `move` can set."""
    move(ws, "+0")
    path = str(ws.control / "clock")
    return {
        "LD_PRELOAD": LIBRARY,
        "FAKETIME_TIMESTAMP_FILE": path,
        "FAKETIME_NO_CACHE": "1",
        **WALL_ONLY,
    }


def move(ws: Workspace, offset: str) -> None:
    temporary = ws.control / "clock.tmp"
    temporary.write_text(f"{offset}\n")
    temporary.replace(ws.control / "clock")


def test_the_library_does_fake_the_clocks(ws: Workspace) -> None:
    """Negative control: these tests would be worth nothing if the clocks stayed right."""
    code = (
        "import time; print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))"
    )

    def read(environment: Mapping[str, str]) -> list[float]:
        done = subprocess.run(
            [shutil.which("python3") or "python3", "-S", "-c", code],
            env={**ws.environment, **environment},
            capture_output=True,
            check=True,
        )
        return [float(word) for word in done.stdout.split()]

    true = time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
    wall, monotonic, boot = read(fake("+365d"))
    assert wall > true[0] + 86400 * 300
    assert abs(monotonic - true[1]) < 3600
    assert abs(boot - true[2]) < 3600
    wall, monotonic, boot = read(fake("+365d", wall_only=False))
    assert monotonic > true[1] + 86400 * 300
    assert boot > true[2] + 86400 * 300
    environment = movable(ws)
    move(ws, "-365d")
    assert read(environment)[0] < true[0] - 86400 * 300


@pytest.mark.parametrize("offset", OFTEN)
def test_a_loop_works_under_a_wrong_clock(ws: Workspace, offset: str) -> None:
    ws.config(backoff_base_sec=1, backoff_max_sec=1)
    ws.script({"exit": 3}, {"block": {"completed": True}})
    began = time.monotonic()
    assert ws.run(environment=fake(offset)) == 0
    assert 1.0 <= time.monotonic() - began < START_SEC
    assert ws.verdicts() == ["error", "completed"]


@pytest.mark.slow
@pytest.mark.parametrize("wall_only", [True, False], ids=["wall clock", "every clock"])
@pytest.mark.parametrize("offset", YEAR)
def test_a_wait_that_began_under_another_clock_is_waited_to_its_end(
    ws: Workspace, offset: str, wall_only: bool
) -> None:
    ws.config(backoff_base_sec=WAIT_SEC, backoff_max_sec=WAIT_SEC)
    ws.script({"exit": 3}, {"block": {"completed": True}})
    first = ws.start()
    ws.wait_state("backoff")
    waiting_since = time.monotonic()
    time.sleep(1.5)
    first.kill()
    first.wait()
    second = ws.start(environment=fake(offset, wall_only=wall_only))
    ws.wait_runs(2)
    waited = time.monotonic() - waiting_since
    assert ws.ended(second) == 0
    assert WAIT_SEC - 0.5 <= waited < WAIT_SEC * 1.1 + START_SEC, waited
    assert ws.verdicts() == ["error", "completed"]


@pytest.mark.parametrize("offset", OFTEN)
def test_a_wait_is_neither_lost_nor_prolonged_when_the_clock_is_set_during_it(
    ws: Workspace, offset: str
) -> None:
    ws.config(backoff_base_sec=4, backoff_max_sec=4)
    ws.script({"exit": 3}, {"block": {"completed": True}})
    process = ws.start(environment=movable(ws))
    ws.wait_state("backoff")
    waiting_since = time.monotonic()
    time.sleep(0.5)
    move(ws, offset)
    ws.wait_runs(2)
    waited = time.monotonic() - waiting_since
    assert ws.ended(process) == 0
    assert 3.5 <= waited < 4.4 + START_SEC, waited
    assert "clock.jumped" in ws.log()


@pytest.mark.parametrize("offset", OFTEN)
def test_a_healthy_run_is_not_ended_when_the_clock_is_set(ws: Workspace, offset: str) -> None:
    ws.config(command_timeout_sec=60, idle_timeout_sec=50)
    ws.script({"sleep": 60, "until": "go", "block": {"completed": True}})
    process = ws.start(environment=movable(ws))
    ws.wait_runs(1)
    move(ws, offset)
    time.sleep(2.5)
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["completed"]


@pytest.mark.slow
@pytest.mark.parametrize("offset", YEAR)
def test_a_hung_run_is_ended_in_time_although_the_clock_was_set(ws: Workspace, offset: str) -> None:
    """Negative control of the one above: the limit does hold."""
    ws.config(command_timeout_sec=4)
    ws.script({"sleep": 300}, {"block": {"completed": True}})
    process = ws.start(environment=movable(ws))
    ws.wait_runs(1)
    move(ws, offset)
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["timed_out", "completed"]
    assert 3.5 <= ws.journal()[0]["runs"][0]["duration_sec"] < 4 + START_SEC


@pytest.mark.slow
@pytest.mark.parametrize("wall_only", [True, False], ids=["wall clock", "every clock"])
@pytest.mark.parametrize("offset", YEAR)
def test_the_deadline_of_an_adopted_run_counts_from_its_true_start(
    ws: Workspace, offset: str, wall_only: bool
) -> None:
    limit = 14.0
    ws.config(command_timeout_sec=limit)
    ws.script({"sleep": 300}, {"block": {"completed": True}})
    first = ws.start()
    ws.wait_runs(1)
    agent = ws.runs()[0][1]
    began = time.monotonic()
    time.sleep(1)
    first.kill()
    first.wait()
    second = ws.start(environment=fake(offset, wall_only=wall_only))
    wait_until(lambda: not Path(f"/proc/{agent}").exists(), "the end of the hung agent")
    lived = time.monotonic() - began
    assert ws.ended(second) == 0
    assert "orphan.adopted" in ws.log()
    assert ws.verdicts() == ["timed_out", "completed"]
    assert limit - 1.5 <= lived < limit + 8, lived


@pytest.mark.slow
@pytest.mark.parametrize("offset", YEAR)
def test_an_adopted_run_is_not_ended_by_another_clock(ws: Workspace, offset: str) -> None:
    ws.config(command_timeout_sec=120, idle_timeout_sec=100)
    ws.script({"sleep": 120, "until": "go", "block": {"completed": True}})
    first = ws.start()
    ws.wait_runs(1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = ws.start(environment=fake(offset, wall_only=False))
    wait_until(lambda: "orphan.adopted" in ws.log(), "adoption")
    time.sleep(2)
    (ws.control / "go").touch()
    assert ws.ended(second) == 0
    assert ws.verdicts() == ["completed"]
    assert ws.started() == 1
