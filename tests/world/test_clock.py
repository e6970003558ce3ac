"""Clocks: a suspend and a changed wall clock are told from time that passed."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.world.clock import ClockJump, ClockReading, SystemClock, clock_jump, read_clock

START = ClockReading(monotonic=100.0, wall=1_700_000_000.0, boottime=150.0)


def after(passed: float, *, suspended: float = 0.0, step: float = 0.0) -> ClockReading:
    return ClockReading(
        START.monotonic + passed,
        START.wall + passed + suspended + step,
        START.boottime + passed + suspended,
    )


def test_time_that_passes_is_no_jump() -> None:
    assert not clock_jump(START, after(3600.0))
    assert not clock_jump(START, after(3600.0, step=0.5))  # slewing


@given(
    st.floats(0, 1e6), st.floats(2, 1e7), st.floats(-1e9, 1e9).filter(lambda step: abs(step) > 2)
)
def test_suspend_and_step_are_told_apart(passed: float, suspended: float, step: float) -> None:
    assert clock_jump(START, after(passed, suspended=suspended)) == ClockJump(
        pytest.approx(suspended), 0.0
    )
    assert clock_jump(START, after(passed, step=step)) == ClockJump(0.0, pytest.approx(step))
    both = clock_jump(START, after(passed, suspended=suspended, step=step))
    assert both == ClockJump(pytest.approx(suspended), pytest.approx(step))


@pytest.mark.anyio
async def test_the_machines_clocks_agree_with_each_other() -> None:
    clock = SystemClock()
    before = read_clock(clock)
    await clock.sleep(0.01)
    await clock.sleep(-1.0)
    now = read_clock(clock)
    assert now.monotonic - before.monotonic >= 0.009
    assert not clock_jump(before, now)
    assert abs(now.wall - time.time()) < 5
