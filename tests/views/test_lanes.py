"""What is told of lanes: the field of `status.json`, and the texts that are made of it."""

from __future__ import annotations

import json

from codex_self_iter.core.lane_items import items
from codex_self_iter.core.lanes import Landing, Lane, Lanes, LaneState
from codex_self_iter.views.lanes import told

PLAN = "# Plan\n\n" + "".join(f"- [ ] Item {number}\n" for number in range(1, 8))


def lane(which: str, state: LaneState, **more: object) -> Lane:
    number = int(which.split("-")[0].rstrip("abc"))
    fields = {"item": f"Item {number}", "title": f"Item {number}", "body": f"- [ ] Item {number}"}
    return Lane(id=which, number=number, state=state, since=1_800_000_000.0, **(fields | more))  # type: ignore[arg-type]


STATE = Lanes(
    target="refs/heads/main",
    items=items(PLAN),
    lanes=(
        lane("4", LaneState.NEEDS_YOU, why="its loop has stagnated", place="/trees/4", returns=2),
        lane("2", LaneState.WORKING, place="/trees/2"),
        lane("1", LaneState.LANDED, landed="1" * 40),
        lane("3", LaneState.LANDING, place="/trees/3"),
        lane("5", LaneState.DROPPED),
    ),
    landing=Landing(("3",)),
    settled=("Item 1",),
)


def test_what_the_status_says_of_lanes() -> None:
    found = told(STATE, 4, "/state")
    assert json.loads(json.dumps(found)) == found
    assert {key: found[key] for key in ("most", "target", "held", "landing", "landed", "left")} == {
        "most": 4,
        "target": "refs/heads/main",
        "held": "",
        "landing": ["3"],
        "landed": 1,
        "left": 6,
    }
    assert [one["lane"] for one in found["lanes"]] == ["2", "3", "4"]  # those that are not over
    assert found["lanes"][-1] == {
        "lane": "4",
        "number": 4,
        "item": "Item 4",
        "state": "needs you",
        "since": "2027-01-15T08:00:00.000Z",
        "why": "its loop has stagnated",
        "place": "/trees/4",
        "state_dir": "/state/lanes/4/state",
        "returns": 2,
    }
