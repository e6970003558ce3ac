"""A small soak: some hundred iterations of the real program with faults leave nothing growing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak import Look, growth, run


@pytest.mark.slow
def test_nothing_of_the_supervisor_grows(tmp_path: Path) -> None:
    looks, faults = run(tmp_path, 130, every=5, say=lambda _line: None)
    assert sum(faults.values()) >= 10
    assert len(looks) >= 10
    first, second = looks[: len(looks) // 2], looks[len(looks) // 2 :]
    for field, room in (("fds", 10), ("threads", 4), ("processes", 3), ("warnings", 10)):
        before, after = (max(getattr(x, field) for x in half) for half in (first, second))
        assert after <= before + room, field
    assert growth(looks, "rss") < 0.15
    # the goals' marks fill up to their bound in the first 64 iterations
    assert growth(looks, "journal_line") < 0.1


def test_the_fit_tells_what_grows_from_what_is_flat() -> None:
    """The negative control of the line through the looks."""

    def looks(*figures: int) -> list[Look]:
        rest = [0] * 10
        return [Look(number, figure, *rest) for number, figure in enumerate(figures)]

    assert growth(looks(*range(0, 40, 2)), "fds") > 0.5
    assert abs(growth(looks(*[20, 22] * 10), "fds")) < 0.1
    assert growth(looks(*[0] * 20), "fds") == 0.0
