"""How long the loop waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core.backoff import (
    JITTER,
    LIMIT_MARGIN_SEC,
    exponential,
    limit_wait,
    remaining,
)

seconds = st.floats(0, 1e9)
share = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, 0), (1, 5), (2, 10), (3, 20), (8, 640), (9, 900), (10, 900), (10_000, 900)],
)
def test_waits_double_up_to_the_ceiling(count: int, expected: float) -> None:
    assert exponential(count, 5.0, 900.0, 0.0) == expected


@given(st.integers(-5, 10**6), seconds, seconds, share)
def test_every_wait_is_bounded(count: int, base: float, ceiling: float, u: float) -> None:
    wait = exponential(count, base, ceiling, u)
    assert 0 <= wait <= ceiling * (1 + JITTER)
    assert wait <= exponential(count + 1, base, ceiling, u)


@given(seconds, seconds, share)
def test_a_limit_is_waited_for_and_a_little_longer(reset: float, now: float, u: float) -> None:
    wait = limit_wait(reset, now, u)
    rest = max(0.0, reset - now)
    assert rest + LIMIT_MARGIN_SEC <= wait <= rest + LIMIT_MARGIN_SEC + 30


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12), seconds)
def test_no_clock_makes_a_wait_longer_than_its_length(
    end: float, now: float, length: float
) -> None:
    assert 0 <= remaining(end, now, length) <= length
