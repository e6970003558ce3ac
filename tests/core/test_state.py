"""What is written is what is read, also by the next version."""

from __future__ import annotations

import json
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core import state as states
from codex_self_iter.core.state import Iteration, LoopState, Wait, to_json
from codex_self_iter.core.terms import Moment
from codex_self_iter.world.state.codec import from_json

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)
notes = st.lists(st.builds(states.GoalNote) | st.builds(states.EditNote), max_size=2).map(tuple)
loop_states = st.builds(
    LoopState, events=notes, last=st.none() | st.builds(states.Last),
    open=st.none() | st.builds(states.Iteration, events=notes,
                               planner=st.none() | st.builds(states.PlannerAnswer),
                               reviewer=st.none() | st.builds(states.Review)),
)  # fmt: skip


@given(loop_states)
def test_every_state_survives_json(state: LoopState) -> None:
    text = json.dumps(to_json(state))
    # as text: NaN is not itself
    assert json.dumps(to_json(from_json(LoopState, json.loads(text)))) == text


def test_missing_fields_default_and_unknown_ones_are_ignored() -> None:
    assert from_json(LoopState, {"loop_id": "x", "of the next version": 1}) == LoopState("x")


def test_whole_numbers_are_floats_where_floats_are_meant() -> None:
    wait = from_json(
        Wait, {"kind": "error", "until": 1, "length": 2, "reason": "", "up_until": 3, "boot_id": ""}
    )
    assert [type(value) for value in (wait.until, wait.length, wait.up_until)] == [float] * 3


@pytest.mark.parametrize("value", [None, [], "text", 3, [["loop_id", "x"]]])
def test_what_is_no_object_is_refused(value: typing.Any) -> None:
    with pytest.raises(TypeError, match="expected an object"):
        from_json(LoopState, value)


def test_an_iteration_lasts_as_long_as_the_boot_clock_says() -> None:
    opened = Iteration(1, "", started_at=1000.0, boot_id="one", up=5.0)
    assert opened.lasted(Moment(wall=1e9, up=65.0, boot_id="one")) == 60.0  # the clock was set
    assert opened.lasted(Moment(wall=1030.0, up=2.0, boot_id="two")) == 30.0  # after a reboot
    assert opened.lasted(Moment(wall=900.0, up=2.0, boot_id="two")) == 0.0
