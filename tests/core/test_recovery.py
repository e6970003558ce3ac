"""Snapshot and journal after a crash: the table of `recovery`."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core.recovery import RecoveryError
from codex_self_iter.core.state import LoopState, to_json
from codex_self_iter.world.state.codec import recover
from tests.support.loop_world import Script, World, claim, policy, work


def history() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every snapshot and every journal line of a short loop."""
    world = World(Script([work("b"), work("c"), claim()]), policy())
    snapshots: list[dict[str, Any]] = []
    world.boot()
    while world.exit is None:
        world.step()
        assert world.disk.runtime is not None
        snapshots.append(json.loads(json.dumps(to_json(world.disk.runtime))))
    return snapshots, [json.loads(json.dumps(line)) for line in world.disk.journal]


SNAPSHOTS, LINES = history()
OPEN_2 = next(s for s in SNAPSHOTS if s["open"] and s["open"]["number"] == 2)
AT_3 = SNAPSHOTS[-1]
OPEN_1 = next(s for s in SNAPSHOTS if s["open"] and s["open"]["number"] == 1)


def test_nothing_is_a_new_loop() -> None:
    assert recover(None, None, "fresh") == LoopState("fresh")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_line_alone_carries_the_state(number: int) -> None:
    state = recover(None, LINES[number - 1], "fresh")
    assert (state.iteration, state.open, state.loop_id) == (number, None, "loop")
    assert state.goal == LINES[number - 1]["next_goal"]


@pytest.mark.parametrize(
    ("snapshot", "line", "iteration", "is_open"),
    [
        (OPEN_2, LINES[1], 2, False),  # the snapshot was about to be replaced
        (OPEN_2, LINES[0], 2, True),  # the iteration goes on
        (OPEN_1, None, 1, True),
        (AT_3, LINES[2], 3, False),
        (AT_3, LINES[1], 3, False),  # the journal lost its last line: numbers still go on
        (AT_3, None, 3, False),
        (OPEN_1, LINES[2], 3, False),  # an old copy of the snapshot
        (OPEN_2, {"foreign": True}, 2, True),
        (OPEN_2, {"iteration": "2"}, 2, True),
        (OPEN_2, {"iteration": 800, "next_goal": "a lie"}, 2, True),  # anybody can append
        (OPEN_2, {"iteration": 800, "after": {"loop_id": 3}}, 2, True),
        (OPEN_1, LINES[2] | {"after": LINES[2]["after"] | {"loop_id": "other"}}, 1, True),
    ],
)
def test_snapshot_and_line(
    snapshot: dict[str, Any], line: dict[str, Any] | None, iteration: int, is_open: bool
) -> None:
    state = recover(snapshot, line, "fresh")
    assert (state.iteration, state.open is not None, state.loop_id) == (iteration, is_open, "loop")


def test_a_line_without_the_state_still_gives_number_and_goal() -> None:
    line = {key: value for key, value in LINES[1].items() if key != "after"}
    state = recover(None, line, "fresh")
    assert (state.iteration, state.goal, state.loop_id) == (2, "c", "fresh")
    assert recover(OPEN_2, line, "fresh").loop_id == "loop"


@pytest.mark.parametrize(
    "snapshot",
    [
        {}, {"loop_id": 3}, {"loop_id": "x", "open": 3}, {"loop_id": "x", "open": []},
        {"loop_id": "x", "counters": []},
        {"loop_id": "x", "state": "dancing"}, {"loop_id": "x", "goals": "abc"},
        {"loop_id": "x", "iteration": "3"},
        {"loop_id": "x", "iteration": True}, {"loop_id": "x", "limits": []},
        {"loop_id": "x", "wait": {"kind": "error"}},
    ],
)  # fmt: skip
def test_what_is_no_state_is_refused_clearly(snapshot: dict[str, Any]) -> None:
    with pytest.raises(RecoveryError, match=r"runtime\.json is not the state of a loop"):
        recover(snapshot, None, "fresh")
    with pytest.raises(RecoveryError, match="journal's last line"):
        recover(None, {"iteration": 3, "after": snapshot}, "fresh")


def test_a_line_without_a_number_cannot_stand_alone() -> None:
    with pytest.raises(RecoveryError, match="no iteration number"):
        recover(None, {"summary": "x"}, "fresh")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
FIELDS = [field.name for field in dataclasses.fields(LoopState)]


@given(st.sampled_from(FIELDS), values)
def test_one_damaged_field_gives_a_state_or_a_clear_refusal(name: str, value: Any) -> None:
    try:
        state = recover(OPEN_2 | {name: value}, LINES[0], "fresh")
    except RecoveryError:
        return
    assert isinstance(state, LoopState)


@given(st.sampled_from(sorted(OPEN_2["open"])), values)
def test_one_damaged_field_of_the_open_iteration_too(name: str, value: Any) -> None:
    try:
        state = recover(OPEN_2 | {"open": OPEN_2["open"] | {name: value}}, LINES[0], "fresh")
    except RecoveryError:
        return
    assert isinstance(state, LoopState)
