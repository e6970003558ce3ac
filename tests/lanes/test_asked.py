"""What a person asks of lanes by `run --lanes` and `lanes keep|drop|retry`, from outside."""

from __future__ import annotations

import os

from tests.lanes.conftest import Make
from tests.support.harness import wait_until

WAIT = 'until [ -e "$LANE_AGENT/go" ]; do sleep 0.05; done; '


def test_so_many_lanes_as_the_flag_says_each_with_its_own_item(make: Make) -> None:
    own = 'cp .codex-self-iter/plan.md "$LANE_AGENT/plan.{0}"; echo {0} > {0}.txt'
    ws = make(
        {word: WAIT + own.format(n) for n, word in enumerate(("one", "two", "three"), 1)}, max=1
    )
    (ws.path / "TASK.md").write_text("Write it in one line.\n")
    process = ws.start_lanes("--lanes", "2")
    wait_until(lambda: all(ws.seen(which) for which in "12"), "two lanes at work")
    assert [one["id"] for one in ws.known["lanes"]] == ["1", "2"]  # the third waits for room
    (ws.agents / "go").touch()
    assert ws.ended(process) == 0
    assert ws.contents() >= {"1.txt", "2.txt", "3.txt"}
    assert all("Write it in one line." in ws.seen(which)[0] for which in "123")
    plan = (ws.agents / "plan.2").read_text()
    assert "- [ ] two" in plan
    assert "one" not in plan


def test_a_lane_is_dropped_begun_anew_and_kept_when_asked(make: Make) -> None:
    ws = make({"one": WAIT + "echo 1 > 1.txt", "two": WAIT + "echo 2 > 2.txt"}, max=2)
    process = ws.start_lanes()
    wait_until(lambda: all(ws.seen(which) for which in "12"), "both lanes at work")
    place = ws.lane("1")["place"]
    said = ws.cli("lanes", "drop", "1").stdout
    assert "ends lane 1 and removes the work tree" in said
    assert ws.cli("lanes", "keep", "2").returncode == 0
    (ws.agents / "go").touch()
    wait_until(lambda: ws.lane("1").get("state") == "dropped", "the lane to be dropped")
    assert ws.ended(process) == 4
    assert not os.path.exists(place)
    assert ws.lane("2")["state"] == "kept"
    assert os.path.exists(ws.lane("2")["place"])
    assert "1.txt" not in ws.contents()
    assert ws.git("rev-parse", "--verify", ws.ref(1))

    # asked while no supervisor lives: the next start does it
    assert "the next start begins lanes 1, 2 again" in ws.cli("lanes", "retry", "1", "2").stdout
    assert ws.run_lanes() == 0
    assert ws.contents() >= {"1.txt", "2.txt"}
    assert {one["id"] for one in ws.known["lanes"]} == {"1", "1-2", "2"}
    assert ws.lane("2")["state"] == ws.lane("1-2")["state"] == "landed"
    assert not list((ws.state / "lanes" / "asked").iterdir())
