"""Lanes as people see them: the field `lanes` of `status.json`, and what is made of it. Pure.

Only light imports: `status` comes through here."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from codex_self_iter.core.lanes import Lane, Lanes


def told(state: Lanes, most: int, state_dir: str) -> dict[str, Any]:
    """The field `lanes` of `status.json`: those that are not over, in the order of their items.

    `most`: how many may be at work at once; `state_dir`: of the loop with the lanes."""
    from codex_self_iter.core.lanes import LaneState, active  # who only reads needs neither

    return {
        "most": most,
        "target": state.target,
        "held": state.held,
        "landing": list(state.landing.lanes) if state.landing else [],
        "landed": len(state.of(LaneState.LANDED)),
        "left": len(state.open_items),
        "lanes": [_told(one, state_dir) for one in active(state)],
    }


def _told(lane: Lane, state_dir: str) -> dict[str, Any]:
    from codex_self_iter.core.text import iso

    return {
        "lane": lane.id,
        "number": lane.number,
        "item": lane.title,
        "state": lane.state.value,
        "since": iso(lane.since),
        "why": lane.why,
        "place": lane.place,
        "state_dir": f"{state_dir}/lanes/{lane.id}/state",
        "returns": lane.returns,
    }
