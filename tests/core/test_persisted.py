"""Files of the first version, kept: they are read, and written again as they were, to the byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.core.recovery import RecoveryError
from codex_self_iter.core.state import LoopState, to_json
from codex_self_iter.world.state.codec import from_json, recover

KEPT = Path(__file__).parent / "persisted"
SNAPSHOTS = (KEPT / "snapshots.jsonl").read_text().splitlines()
JOURNAL = (KEPT / "journal.jsonl").read_text().splitlines()


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def older(state: LoopState) -> dict[str, Any]:
    """The state without what a failure has had since."""
    written = to_json(state)
    failure = (written["open"] or {}).get("failure")
    if failure:
        assert (failure.pop("guessed"), failure.pop("mend")) == (False, "")
    return written


@pytest.mark.parametrize("kept", SNAPSHOTS)
def test_a_snapshot_is_written_as_it_was_read(kept: str) -> None:
    assert text(older(from_json(LoopState, json.loads(kept)))) == kept


@pytest.mark.parametrize("kept", JOURNAL)
def test_the_state_in_a_journal_line_is_written_as_it_was_read(kept: str) -> None:
    line = json.loads(kept)
    assert text(to_json(recover(None, line, "new"))) == text(line["after"])


def test_the_kept_files_show_every_answer() -> None:
    opened = [json.loads(kept)["open"] or {} for kept in SNAPSHOTS]
    for name in ("run", "planner", "block", "reviewer", "gates", "events", "failure", "usage"):
        assert any(iteration.get(name) for iteration in opened), name
    kinds = {note["kind"] for kept in JOURNAL for note in json.loads(kept)["events"]}
    assert kinds == {"plan.changed", "goal.set"}


def test_negative_control_a_damaged_note_is_no_state() -> None:
    line = json.loads(JOURNAL[0])
    line["after"]["events"] = [{"kind": "goal.set"}]
    with pytest.raises(RecoveryError, match="journal's last line"):
        recover(None, line, "new")
