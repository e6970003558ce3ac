"""What level "container" costs an iteration once the container is warm."""

from __future__ import annotations

import statistics

import pytest

from tests.fence_container.conftest import Place
from tests.fence_container.test_inside import SAY

pytestmark = [pytest.mark.root, pytest.mark.slow]
RUNS = 5
MOST_SEC = 0.15


def test_a_warm_container_costs_an_iteration_little(place: Place) -> None:
    """The median run of each level in the same place. (The bound is a promise; what was measured is
    a quarter of it.)"""
    seconds = {}
    for level in ("none", "container"):
        place.agent("echo run >>runs\n" + SAY, fence=f'level = "{level}"')
        assert place.run("--max-iterations", str(RUNS)) == 0, place.log()
        took = [line["duration_sec"] for line in place.journal()[-RUNS + 1 :]]
        seconds[level] = statistics.median(took)
    more = seconds["container"] - seconds["none"]
    print(f"a warm container: {more * 1000:.0f} ms more an iteration")
    assert more < MOST_SEC, seconds
