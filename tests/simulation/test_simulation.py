"""A few simulated weeks, and proof that the simulation would notice."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_self_iter.testing import VirtualClock
from tests.simulation.life import simulate
from tests.simulation.world import MIXES

pytestmark = pytest.mark.slow


def test_three_weeks_lose_little_and_nothing_is_unexplained() -> None:
    result = simulate(MIXES["default"], 21, seed=1)
    assert result.goodput >= 0.97
    assert result.unexplained == []
    assert result.faults == []
    assert result.ends == ["completed (0): all done"]
    assert {"crash", "reboot", "suspend", "disk full", "edit"} <= result.happened.keys()


@settings(max_examples=1, deadline=None)
@given(st.integers(0, 10**6))
def test_whatever_the_seed_no_second_is_unexplained_and_nothing_overlaps(seed: int) -> None:
    result = simulate(MIXES["hell"], 2, seed=seed)
    assert result.unexplained == []
    assert result.faults == []


def test_a_run_with_the_same_seed_is_the_same_run() -> None:
    first, second = (simulate(MIXES["hell"], 1, seed=5) for _ in range(2))
    assert dataclasses.asdict(first) == dataclasses.asdict(second)


def test_without_adoption_crashes_cost_goodput() -> None:
    adopting = simulate(MIXES["crashes"], 2, seed=2)
    killing = simulate(MIXES["crashes"], 2, seed=2, on_orphan="kill")
    assert adopting.goodput - killing.goodput > 0.1
    assert adopting.faults == killing.faults == []


class StuckClock(VirtualClock):
    """A boot-time clock that stands still for an hour now and then: no wait ends meanwhile."""

    def boottime(self) -> float:
        return super().boottime() // 3600.0 * 3600.0


def test_a_wait_that_does_not_end_is_noticed() -> None:
    result = simulate(MIXES["hell"], 1, seed=3, make_clock=StuckClock)
    assert result.longest_unexplained > 600.0


@pytest.mark.parametrize("mix", ["limits", "clocks", "crashes"])
def test_each_kind_of_trouble_alone(mix: str) -> None:
    result = simulate(MIXES[mix], 3, seed=4)
    # A limit's end is a wall-clock time: a clock that is days behind when it is read makes the wait
    # as much longer.
    assert result.goodput > 0.9 or mix == "clocks"
    assert result.unexplained == []
    assert result.faults == []
