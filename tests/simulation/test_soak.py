"""A small soak: some hundred iterations of the real program with faults leave nothing growing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak import Look, Soak, growth, run

FDS_ROOM = 6
LEAK = """
import os, sys
def leak(event, args):
    if event == "os.mkdir" and str(args[0]).endswith("/tmp"):  # of a run, one an iteration
        os.dup(2)
sys.addaudithook(leak)
"""


@pytest.mark.slow
def test_nothing_of_the_supervisor_grows(tmp_path: Path) -> None:
    looks, faults = run(tmp_path, 130, every=5, say=lambda _line: None)
    assert sum(faults.values()) >= 10
    assert len(looks) >= 10
    first, second = looks[: len(looks) // 2], looks[len(looks) // 2 :]
    resting = [look.fds for look in looks]  # of many supervisors: a leak ends with each
    assert max(resting) <= min(resting) + FDS_ROOM, resting
    for field, room in (("threads", 4), ("processes", 3), ("warnings", 10)):
        before, after = (max(getattr(x, field) for x in half) for half in (first, second))
        assert after <= before + room, field
    assert growth(looks, "rss") < 0.15
    # the goals' marks fill up to their bound in the first 64 iterations
    assert growth(looks, "journal_line") < 0.1


@pytest.mark.slow
def test_one_descriptor_more_with_each_iteration_is_seen(tmp_path: Path) -> None:
    """The negative control of the descriptors that rest."""
    (tmp_path / "sitecustomize.py").write_text(LEAK)
    soak = Soak(tmp_path, environ={"PYTHONPATH": str(tmp_path)})
    try:
        soak.start()
        soak.reach(2)
        first = soak.look().fds
        soak.reach(2 + 2 * FDS_ROOM)
        assert soak.look().fds > first + FDS_ROOM
    finally:
        soak.stop()


def test_the_fit_tells_what_grows_from_what_is_flat() -> None:
    """The negative control of the line through the looks."""

    def looks(*figures: int) -> list[Look]:
        rest = [0] * 10
        return [Look(number, figure, *rest) for number, figure in enumerate(figures)]

    assert growth(looks(*range(0, 40, 2)), "fds") > 0.5
    assert abs(growth(looks(*[20, 22] * 10), "fds")) < 0.1
    assert growth(looks(*[0] * 20), "fds") == 0.0
