"""Loops as numbers: names, units and labels as Prometheus has them; nothing that anybody wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from codex_self_iter.core.terms import State
from codex_self_iter.views.metrics import LONGEST, STATES, Family, families, shown
from tests.support.shown_loops import NOW, cases, seen

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(csi_\w+)` \|([^|]*)\|", re.M)


def of(name: str) -> dict[str, Family]:
    return {one.name: one for one in families([(name, seen(cases()[name]))], NOW)}


def value(found: dict[str, Family], name: str, *labels: str) -> float | None:
    return next((s.value for s in found[name].samples if s.labels[1:] == labels), None)


def test_every_series_is_on_the_page_with_its_labels() -> None:
    told = {
        name: tuple(re.findall(r"`(\w+)`", labels))
        for name, labels in ROW.findall(PAGE.read_text())
    }
    here = {
        one.name + "_total" * one.counter: tuple(label for label in one.labels if label != "loop")
        for one in families([], NOW)
    }
    assert here == told


@pytest.mark.parametrize("name", cases())
def test_every_state_has_numbers_and_is_in_one_state(name: str) -> None:
    found = of(name)
    assert sum(sample.value for sample in found["csi_loop_state"].samples) == 1.0
    case = cases()[name]
    assert value(found, "csi_loop_state", case.state) == 1.0
    assert value(found, "csi_loop_needs_person") == float(case.urgency == "needs you")
    for one in found.values():
        assert len({sample.labels for sample in one.samples}) == len(one.samples)
        for sample in one.samples:
            assert len(sample.labels) == len(one.labels)
            assert all(len(label) <= LONGEST and label.isprintable() for label in sample.labels)


def test_the_states_are_all_of_them() -> None:
    assert {state.value for state in State} < set(STATES)
    assert {case.state for case in cases().values()} <= set(STATES)


def test_what_is_counted_is_told() -> None:
    found = of("running")
    assert value(found, "csi_iterations", "continue") == 9
    assert value(found, "csi_gate_runs", "failed") == 1
    assert value(found, "csi_tokens", "codex") == 1_234_567
    assert value(found, "csi_cost_usd", "codex") == 3.4
    assert value(found, "csi_wait_seconds", "backoff") == 30.0
    assert value(found, "csi_wait_seconds", "limited") == 0.0, "a series that is there can be rated"
    assert value(found, "csi_lost_seconds", "unproductive") == 600.0
    assert value(found, "csi_state_seconds", "running") == 6000.0 + 724.0, (
        "up to the last heartbeat"
    )
    assert value(found, "csi_lost_seconds", "running") is None
    ended = of("completed")
    assert value(ended, "csi_state_seconds", "running") == 6000.0
    assert value(found, "csi_goodput_ratio") == 0.8955
    assert value(found, "csi_heartbeat_age_seconds") == 1.0
    assert value(found, "csi_plan_items", "open") == 4
    assert value(found, "csi_state_directory_bytes") == 120 * 2**20
    assert value(found, "csi_pool_in_use") == 1


def test_what_is_not_known_has_no_series() -> None:
    found = of("new")
    told = {name for name, one in found.items() if one.samples}
    assert told == {"csi_loop_state", "csi_loop_needs_person"}
    assert value(of("running"), "csi_loop_wait_until_timestamp_seconds") is None
    assert value(of("limited"), "csi_loop_wait_until_timestamp_seconds") == NOW + 5000


def test_what_agents_write_is_in_no_label() -> None:
    text = str(families([("app", seen(cases()["foreign"]))], NOW))
    assert "owned" not in text
    assert "\x1b" not in text
    named = families([("a\x1b[31m\n" + "x" * 500, seen(cases()["running"]))], NOW)
    assert all(len(s.labels[0]) <= LONGEST for one in named for s in one.samples)
    assert shown("x" * 200 + "a") != shown("x" * 200 + "b"), "two loops are two series"
