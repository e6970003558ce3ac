"""What is left of a wait after anything that clocks, restarts and pauses do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core import waits
from codex_self_iter.core.state import WaitKind
from codex_self_iter.core.terms import Moment, State

AT = Moment(1_700_000_000.0, 5_000.0, "boot-1", 0.0)
moments = st.builds(
    Moment,
    st.floats(0, 4e9),
    st.floats(0, 1e8),
    st.sampled_from(["boot-1", "boot-2", ""]),
    st.floats(0, 0.99),
)


@pytest.mark.parametrize(
    ("wall", "up", "boot", "left"),
    [
        (0, 0, "boot-1", 600), (60, 60, "boot-1", 540), (600, 600, "boot-1", 0),
        (9_999, 9_999, "boot-1", 0),
        (-3_600, 60, "boot-1", 540), (86_400, 60, "boot-1", 540),  # the wall clock jumped
        (60, -4_900, "boot-2", 540), (-3_600, -4_900, "boot-2", 600),
        (86_400, -4_900, "boot-2", 0),  # after a reboot
    ],
)  # fmt: skip
def test_what_is_left(wall: float, up: float, boot: str, left: float) -> None:
    wait = waits.make(WaitKind.ERROR, 600.0, "why", AT)
    now = Moment(AT.wall + wall, AT.up + up, boot)
    assert waits.rest(wait, now) == left
    again = waits.reanchored(wait, now)
    assert waits.rest(again, now) == left
    assert (again.until, again.length) == (now.wall + left, 600.0)


@given(st.floats(0, 1e6), st.lists(moments, max_size=6), moments)
def test_no_chain_of_restarts_makes_a_wait_longer(
    length: float, boots: list[Moment], now: Moment
) -> None:
    wait = waits.make(WaitKind.ERROR, length, "", AT)
    for moment in boots:
        wait = waits.reanchored(wait, moment)
    assert 0 <= waits.rest(wait, now) <= length


@given(st.floats(1, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_frozen_wait_keeps_what_was_left(length: float, before: float, pause: float) -> None:
    wait = waits.make(WaitKind.ERROR, length, "", AT)
    began = Moment(AT.wall + before, AT.up + before, AT.boot_id)
    now = Moment(AT.wall + before + pause, AT.up + before + pause, AT.boot_id)
    frozen = waits.frozen(wait, began.up, now)
    assert waits.rest(frozen, now) == pytest.approx(waits.rest(wait, began), abs=1e-3)


def test_every_kind_of_wait_has_a_state_of_its_own_kind() -> None:
    assert set(waits.STATES.values()) == {
        State.BACKOFF,
        State.LIMITED,
        State.BLOCKED,
        State.COOLDOWN,
    }
    assert {"no_change", "planner_stop", "continue_false"} == waits.COOLDOWNS
