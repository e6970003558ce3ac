"""The document and the tables say what the machine does."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from codex_self_iter.core import events as ev
from codex_self_iter.core.machine import decide
from codex_self_iter.core.terms import State
from tests.project.transitions import GROUPS, TRANSITIONS, moves
from tests.support.loop_world import policy
from tests.support.situations import AT, GATED, ROLES, SITUATIONS, events_for

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "architecture.md"


@functools.cache
def made() -> set[tuple[State, State]]:
    """Every move that the machine makes in two steps from every situation."""
    found = set()
    for rules in (
        policy("one", "two"),
        policy(max_consecutive_errors=1),
        policy(max_iterations=1),
        GATED,
        ROLES,
    ):
        for build in SITUATIONS.values():
            start = build()
            for first in events_for(start).values():
                state, _ = decide(start, first, rules, AT)
                source = State.STARTING if isinstance(first, ev.Boot) else start.state
                found.add((source, state.state))
                for second in events_for(state).values():
                    last, _ = decide(state, second, rules, AT)
                    found.add(
                        (State.STARTING if isinstance(second, ev.Boot) else state.state, last.state)
                    )
    return {(one, two) for one, two in found if one is not two}


@pytest.mark.slow
def test_the_machine_makes_no_move_that_is_not_in_the_table() -> None:
    assert made() - set(moves()) == set()


@pytest.mark.slow
def test_every_row_of_the_table_happens() -> None:
    # needs a history: see the tests of whole stories
    seen = made() | {(State.RUNNING, State.STAGNATED)}
    for source, why, target in TRANSITIONS:
        states = GROUPS.get(source) or (State(source),)
        assert any((state, target) in seen for state in states), f"{source}: {why} -> {target}"


def test_every_state_of_the_contract_is_in_the_table_but_crashed() -> None:
    named = {state for pair in moves() for state in pair}
    assert named == set(State) - {State.CRASHED}


def check(root: Path) -> subprocess.CompletedProcess[str]:
    """What the generator of the project in `root` says of its document."""
    command = [sys.executable, "-m", "tests.project.make_diagrams", "--check"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)


def test_the_document_is_up_to_date() -> None:
    checked = check(ROOT)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("spoilt", ["STOP", "`limited`", "stateDiagram"])
def test_negative_control_an_outdated_document_is_noticed(spoilt: str, tmp_path: Path) -> None:
    (tmp_path / "tests/project").mkdir(parents=True)
    for name in ("make_diagrams.py", "transitions.py"):
        shutil.copy(ROOT / "tests/project" / name, tmp_path / "tests/project")
    (tmp_path / "docs").mkdir()
    text = DOCUMENT.read_text()
    at = text.index(spoilt, text.index("<!-- generated"))
    (tmp_path / "docs/architecture.md").write_text(text[:at] + "X" + text[at:])
    checked = check(tmp_path)
    assert checked.returncode == 1
    assert "is out of date" in checked.stderr
