"""Controls under disturbance: a flood of file events, a vanished state directory, no watcher."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.control_steps import CLAIM, WORK, long_run, reach, wait_log
from tests.support.harness import Workspace, wait_until, wipe

CHURN = """
import os, sys, time
began, n = time.monotonic(), 0
while True:
    for directory in sys.argv[1:]:
        path = os.path.join(directory, f"churn-{n % 50}.tmp")
        try:
            with open(path, "w") as file:
                file.write("x")
            os.rename(path, path + ".done")
            os.unlink(path + ".done")
        except OSError:
            pass
        n += 3
    ahead = began + n / 1000 - time.monotonic()
    if ahead > 0:
        time.sleep(ahead)
"""
NO_INOTIFY = (
    "unshare", "-U", "-r", "sh", "-c",
    'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"', "sh",
)  # fmt: skip


@contextmanager
def churn(*directories: Path) -> Iterator[None]:
    """1,000 files made, renamed and deleted each second, all together."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", CHURN, *map(str, directories)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def stopped_after(ws: Workspace, process: subprocess.Popen[bytes], path: Path) -> float:
    """Seconds from the STOP file to the first sign of it in status.json or to the end."""
    began = time.monotonic()
    path.touch()
    wait_until(
        lambda: ws.state_is("stopping", "stopped")() or process.poll() is not None,
        "STOP to be seen",
    )
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("where", ["workspace", "state"])
def test_stop_acts_at_once_under_a_thousand_events_a_second(
    ws: Workspace, where: str, record_property: pytest.RecordProperty
) -> None:
    process = reach(ws, "running")
    with churn(ws.path, ws.state):
        time.sleep(2)
        took = stopped_after(
            ws, process, ws.path / ".codex-stop" if where == "workspace" else ws.state / "STOP"
        )
        assert ws.ended(process) == 0
    print(f"STOP acted after {took:.3f} s under churn ({where})")
    record_property("stop_sec", took)
    assert took < 3


@pytest.mark.slow
def test_a_state_directory_deleted_in_mid_run_is_restored_and_still_obeyed(ws: Workspace) -> None:
    ws.script(WORK, long_run(until="go"), long_run())
    process = ws.start()
    ws.wait_runs(2)
    wipe(ws.state)
    wait_log(ws, "state.restored")
    wait_until(lambda: ws.status().get("state") == "running", "status to be back")
    assert [line["iteration"] for line in ws.journal()] == [1]
    assert ws.run() == 75  # the lock still excludes
    (ws.control / "go").touch()
    ws.wait_runs(3)
    assert [line["iteration"] for line in ws.journal()] == [1, 2]
    (ws.state / "STOP").touch()
    assert ws.ended(process) == 0
    assert [line["iteration"] for line in ws.journal()] == [1, 2, 3]
    assert ws.runtime()["iteration"] == 3


def test_a_stop_in_a_directory_that_somebody_else_made_again(ws: Workspace) -> None:
    process = reach(ws, "cooldown")
    wipe(ws.state)
    ws.state.mkdir(exist_ok=True)
    (ws.state / "STOP").touch()
    assert ws.ended(process) == 0
    assert ws.status()["state"] == "stopped"
    assert len(ws.journal()) == 1


def test_git_clean_by_the_agent_costs_nothing(ws: Workspace) -> None:
    ws.script({**WORK, "git": [["clean", "-xdffq"]]}, WORK, CLAIM)
    (ws.path / ".git" / "info" / "exclude").write_text("")
    process = ws.start()
    assert ws.ended(process) == 0
    assert ws.verdicts() == ["continue", "continue", "completed"]


@pytest.mark.skipif(
    sys.platform != "linux"
    or subprocess.run([*NO_INOTIFY, "true"], capture_output=True).returncode != 0,
    reason="needs user namespaces",
)
@pytest.mark.slow
def test_without_inotify_polling_serves_and_says_so_once(ws: Workspace) -> None:
    ws.config(no_change_backoff_sec=600)
    ws.script({"block": {"next_goal": "x"}}, long_run())
    process = ws.start(prefix=NO_INOTIFY)
    ws.wait_state("cooldown")
    ws.plan("# Plan\n\n- [ ] other\n")
    ws.wait_runs(2)
    time.sleep(6)  # long enough for a second try of the watcher
    took = stopped_after(ws, process, ws.state / "STOP")
    assert ws.ended(process) == 0
    print(f"STOP acted after {took:.3f} s by polling")
    assert ws.log().count("watching by events failed") == 1
