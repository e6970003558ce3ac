"""Stops, pauses and signals in each phase of a lane: nothing is lost, nothing is left, and the next
start goes on from there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import psutil
import pytest

from tests.lanes.conftest import Make
from tests.lanes.faults.judged import IN_LANDING, JUDGE, judged_at
from tests.support.checkouts import whole
from tests.support.harness import wait_until
from tests.support.lanes import LaneWorkspace

WAIT = 'touch "$LANE_AGENT/at.{0}"; until test -e "$LANE_AGENT/go"; do sleep 0.05; done'
ONCE = 'if test ! -e "$LANE_AGENT/go"; then ' + WAIT + "; fi"
PHASES = ("making", "setup", "working", "landing", "moving")


def begin(make: Make, phase: str) -> LaneWorkspace:
    """Two items, the first of which stands still in this phase until `go` is there."""
    at = ONCE.format(phase)
    script = {"working": at + "; echo 1 > 1.txt"}.get(phase, "")
    gate = JUDGE + (f"; if {IN_LANDING}; then {at}; fi" if phase == "landing" else "")
    setup = [at] if phase == "setup" else []
    ws = make({"first": script, "second (after: 1)": ""}, gates=[gate], setup=setup)
    if phase in ("making", "moving"):  # git stands still while it writes files
        sign = "=" if phase == "moving" else "!="
        smudge = f'if test "$PWD" {sign} "{ws.path}"; then {at}; fi; cat'
        (ws.agents / "smudge.sh").write_text(smudge + "\n")
        ws.git("config", "filter.slow.smudge", 'sh "$LANE_AGENT/smudge.sh"')
        ws.git("config", "filter.slow.clean", "cat")
        (ws.path / ".gitattributes").write_text("*.txt filter=slow\n")
        (ws.path / "there.txt").write_text("there\n")
        ws.git("add", "-A")
        ws.git("commit", "-q", "-m", "with a filter")
    return ws


def there(ws: LaneWorkspace, phase: str) -> Callable[[], bool]:
    return lambda: (ws.agents / f"at.{phase}").exists()


def ends_well(ws: LaneWorkspace) -> None:
    """Everything has landed, by green gates, and nothing is left."""
    assert ws.contents("main") >= {"1.txt", "2.txt"}
    assert ws.git("status", "--porcelain") == ""
    for one in ws.events("landed"):
        assert judged_at(ws, one["commit"])[-1] == "green"
    assert not any(ws.trees.glob("*/*"))
    assert not list((ws.path / ".git").rglob("*.lock"))
    assert ws.lost() == set()


@pytest.mark.parametrize(
    ("how", "phase"),
    [
        *(("SIGTERM", phase) for phase in PHASES),
        *(("SIGINT twice", phase) for phase in ("working", "landing")),
        *(("stop", phase) for phase in ("setup", "moving")),
    ],
)
def test_a_stop_in_each_phase(make: Make, phase: str, how: str) -> None:
    ws = begin(make, phase)
    process = ws.start_lanes()
    wait_until(there(ws, phase), lambda: f"{phase}\n{ws.log()[-3000:]}")
    before = whole(ws.path)
    if how == "stop":
        assert ws.cli("stop").returncode == 0
    else:
        for number in [signal.SIGTERM] if how == "SIGTERM" else [signal.SIGINT] * 2:
            process.send_signal(number)
    if phase == "moving":  # it is not cut off
        wait_until(lambda: ws.state_is("stopping", "stopped")() or process.poll() is not None,
                   lambda: f"it to be heard\n{ws.log()[-2000:]}")  # fmt: skip
        (ws.agents / "go").touch()
    ws.ended(process)
    assert ws.leftovers() == []
    if phase != "moving":
        assert whole(ws.path) == before
        assert ws.events("landed") == []
    (ws.agents / "go").touch()
    assert ws.run_lanes("--clear-stop") == 0, ws.log()[-4000:]
    ends_well(ws)


def test_a_stop_ends_at_once_what_is_being_made(make: Make) -> None:
    """Not only when the agent of another lane, which does not heed it, has ended."""
    own = 'echo $$ > "$LANE_AGENT/pid.{}"; {}'
    wait = "while sleep 0.05; do :; done"
    setup = own.format(2, wait)
    ws = make(
        {"first": own.format(1, f"trap '' TERM; {wait}"), "second": ""},
        setup=[f"case $CODEX_SELF_ITER_LANE in 2) {setup};; esac"],
    )
    ws.environment["CODEX_SELF_ITER_KILL_GRACE_SEC"] = "100"
    process = ws.start_lanes()
    pids = [ws.agents / f"pid.{number}" for number in (1, 2)]
    wait_until(
        lambda: all(one.exists() and one.read_text() for one in pids),
        lambda: f"both\n{ws.log()[-3000:]}",
    )
    agent, made = (int(one.read_text()) for one in pids)
    process.send_signal(signal.SIGTERM)
    wait_until(
        lambda: not psutil.pid_exists(made), lambda: f"the set-up to end\n{ws.log()[-2000:]}"
    )
    assert psutil.pid_exists(agent)
    os.kill(agent, signal.SIGKILL)
    ws.ended(process)
    assert ws.leftovers() == []


def test_a_stop_after_the_iteration_lets_the_agent_end_and_begins_nothing(make: Make) -> None:
    ws = begin(make, "working")
    process = ws.start_lanes()
    wait_until(there(ws, "working"), lambda: f"an agent\n{ws.log()[-3000:]}")
    assert ws.cli("stop", "--after-iteration").returncode == 0
    wait_until(ws.state_is("stopping"), lambda: f"it to be heard\n{ws.log()[-2000:]}")
    (ws.agents / "go").touch()
    assert ws.ended(process) == 0, ws.log()[-3000:]
    assert ws.seen(2) == []
    assert len(ws.seen(1)) == 1
    assert ws.run_lanes("--clear-stop") == 0, ws.log()[-3000:]
    ends_well(ws)


def test_a_pause_begins_no_lane_and_no_landing_until_it_is_taken_back(make: Make) -> None:
    ws = begin(make, "working")
    process = ws.start_lanes()
    wait_until(there(ws, "working"), lambda: f"an agent\n{ws.log()[-3000:]}")
    assert ws.cli("pause").returncode == 0
    wait_until(ws.state_is("paused"), lambda: f"it to be heard\n{ws.log()[-2000:]}")
    (ws.agents / "go").touch()
    wait_until(
        lambda: ws.lane(1).get("state") == "ready" or '"verdict"' in ws.log(),
        lambda: f"the agent to end\n{ws.log()[-3000:]}",
    )
    assert ws.events("landed") == []
    assert ws.seen(2) == []
    assert ws.cli("resume").returncode == 0
    assert ws.ended(process) == 0, ws.log()[-3000:]
    ends_well(ws)
