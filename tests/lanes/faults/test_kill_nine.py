"""SIGKILL for the supervisor at random moments of a plan with a conflict and a red combination."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lanes.faults.kill_lanes import KILLS, Killing


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost_by_any_kill(tmp_path: Path, seed: int) -> None:
    killing = Killing(tmp_path, seed)
    try:
        while killing.kills.total() < KILLS // 2:
            killing.plan()
    finally:
        killing.close()
