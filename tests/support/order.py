"""The order of the tests among the workers."""

from __future__ import annotations

import pytest

PROGRAM = ("tests/program/", "tests/lanes/")
LONG = (*PROGRAM, "tests/claims/", "tests/simulation/", "tests/core/test_properties.py")
"""What starts whole programs or lives whole lives: a second and more each."""


def is_long(item: pytest.Item) -> bool:
    """Whether it is to begin early."""
    return bool(item.get_closest_marker("slow")) or item.nodeid.startswith(LONG)


def later_cases(items: list[pytest.Item]) -> list[pytest.Item]:
    """Of each test of the whole program that has several cases, all but the first quick one: the
    mechanism is the same, and a case is a second of two cores."""
    begun, later = set[str](), list[pytest.Item]()
    for item in items:
        test, case, _ = item.nodeid.partition("[")
        if not case or not test.startswith(PROGRAM) or item.get_closest_marker("slow"):
            continue
        if test in begun:
            later.append(item)
        begun.add(test)
    return later


def dealt(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """The long tests first in every worker's share, so that only short ones are left at the end.

    xdist gives each worker an equal piece of the list, and what a worker has not begun to one that
    has nothing left."""
    long = [item for item in items if is_long(item)]
    short = iter([item for item in items if not is_long(item)])
    order = list[pytest.Item]()
    for worker in range(workers):
        mine = long[worker::workers]
        share = (len(items) - len(order)) // (workers - worker)
        order += [*mine, *(item for _, item in zip(range(share - len(mine)), short, strict=False))]
    return [*order, *short]
