"""The judge of a simulation: what explains a stretch without an agent, and what is a broken rule."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.simulation.__main__ import failed, show
from tests.simulation.ledger import Judge, Ledger, Result

ROOT = Path(__file__).resolve().parents[2]


class Scene:
    """A second that is looked at, and what the status says in it."""

    def __init__(self, **status: Any) -> None:
        self.now = 0.0
        clock = SimpleNamespace(
            awake=lambda: self.now, wall=lambda: self.now, true_wall=lambda: self.now
        )
        self.it: Any = SimpleNamespace(
            clock=clock, machine=SimpleNamespace(history=[]), down=False, disk_full=False,
            disk_free_since=0.0, world=SimpleNamespace(horizon=1e9),
            status=lambda: {"reason": "r", "wait": None, **status},
        )  # fmt: skip

    def unexplained(self, seconds: float) -> float:
        judge = Judge(self.it)
        judge.mark()
        self.now += seconds
        judge.mark()
        return sum(length for length, _, _ in judge.unexplained)


def wait(until: float, length: float) -> dict[str, Any]:
    end = datetime.fromtimestamp(until, UTC).isoformat()
    return {"kind": "error", "length_sec": length, "reason": "r", "until": end}


def test_a_wait_explains_until_its_end_and_for_its_length() -> None:
    assert Scene(state="backoff", wait=wait(100, 100)).unexplained(90) == 0
    assert Scene(state="backoff", wait=wait(100, 100)).unexplained(190) == pytest.approx(90)
    # an end that is put off explains no more than the length
    assert Scene(state="backoff", wait=wait(9000, 100)).unexplained(190) == pytest.approx(90)


def test_running_without_an_agent_explains_nothing() -> None:
    assert Scene(state="running").unexplained(90) == 90


def test_a_full_disk_explains_while_it_is_full_and_six_seconds_more() -> None:
    scene = Scene(state="blocked")
    scene.it.disk_full = True
    assert scene.unexplained(500) == 0
    free = Scene(state="blocked")
    free.it.disk_free_since = free.now
    assert free.unexplained(90) == pytest.approx(84)


def test_a_machine_that_is_down_needs_no_reason() -> None:
    scene = Scene(state="running")
    scene.it.down = True
    assert scene.unexplained(90) == 0


def test_a_number_that_does_not_follow_is_a_broken_rule() -> None:
    ledger = Ledger()
    for number in (1, 2, 4):
        ledger.line({"iteration": number, "verdict": "continue", "runs": []})
    assert ledger.faults == ["journal line 4 follows 2"]


def result(**more: Any) -> Result:
    nothing: dict[str, Any] = {
        "seed": 7, "days": 1.0, "best": 200.0, "productive": 150.0, "answered": 100.0,
        "iterations": 3, "runs": 3, "kinds": {}, "verdicts": {}, "happened": {}, "idle": {},
        "unexplained": [], "faults": [], "ends": [],
    }  # fmt: skip
    return Result(**nothing | more)


def test_the_figures_are_what_the_page_says() -> None:
    text = show(result(unexplained=[(3.0, 0.0, "x"), (9.0, 5.0, "y")], faults=["two"]), "calm")
    for line in (
        "goodput              0.7500", "answered runs alone  0.5000",
        "longest unexplained  9.0 s (2 stretches)", "broken invariants    1",
    ):  # fmt: skip
        assert line in text


def test_it_fails_when_something_broke_or_is_unexplained() -> None:
    assert not failed(result())
    assert failed(result(faults=["two agents"]))
    assert failed(result(unexplained=[(3.0, 0.0, "x")]))


def test_without_a_seed_one_is_drawn_and_printed() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--days", "0.1", "--mix", "calm"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seed = done.stdout.partition("seed ")[2].split()[0]
    assert seed.isdigit()
    again = subprocess.run(
        [*command, "--seed", seed], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert again.stdout == done.stdout
