"""Long tests begin early, so that the workers end together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.order import LONG, PROGRAM, dealt, is_long, later_cases


def item(nodeid: str, *marks: str) -> Any:
    return SimpleNamespace(
        nodeid=nodeid, get_closest_marker=lambda name: name if name in marks else None
    )


def pieces(order: list[Any], workers: int) -> list[list[Any]]:
    """What xdist gives to each worker at first."""
    found = []
    for left in range(workers, 0, -1):
        size = len(order) // left
        found.append(order[:size])
        order = order[size:]
    return found


def begins_with(piece: list[Any]) -> int:
    """The number of long ones, none of which comes after a short one."""
    long = [is_long(one) for one in piece]
    assert long == sorted(long, reverse=True)
    return sum(long)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(("long", "short"), [(5, 40), (41, 7), (0, 10), (10, 0), (1, 1), (0, 0)])
def test_every_worker_begins_with_its_part_of_the_long_ones(
    workers: int, long: int, short: int
) -> None:
    items = [item(f"tests/a.py::test_{number}") for number in range(short)]
    items += [item(f"{LONG[0]}b.py::test_{number}") for number in range(long)]
    order = dealt(items, workers)
    assert sorted(one.nodeid for one in order) == sorted(one.nodeid for one in items)
    if long * workers <= short:
        counts = [begins_with(piece) for piece in pieces(order, workers)]
        assert max(counts) - min(counts) <= 1


def test_what_is_marked_slow_is_long() -> None:
    assert is_long(item("tests/a.py::test", "slow"))
    assert not is_long(item("tests/a.py::test", "root"))


def test_the_order_is_used(request: pytest.FixtureRequest) -> None:
    items, workers = request.session.items, getattr(request.config, "workerinput", {})
    for piece in pieces(items, workers.get("workercount", 0)):
        begins_with(piece)


def test_of_each_test_of_the_program_one_case_is_quick() -> None:
    one, two = f"{PROGRAM[0]}test_a.py::test_one", f"{PROGRAM[0]}test_a.py::test_two"
    items = [item(f"{one}[1]", "slow"), item(f"{one}[2]"), item(f"{one}[3]"), item(two)]
    items += [item("tests/core/test_a.py::test[1]"), item("tests/core/test_a.py::test[2]")]
    assert [found.nodeid for found in later_cases(items)] == [f"{one}[3]"]


def test_the_later_cases_are_marked(request: pytest.FixtureRequest) -> None:
    assert not later_cases(request.session.items)
