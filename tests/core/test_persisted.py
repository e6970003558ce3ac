"""Files of the first version, kept: they are read, and written again as they were, to the byte, but
for what has been added since or has gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.core.recovery import RecoveryError
from codex_self_iter.core.state import LoopState, to_json
from codex_self_iter.world.state.codec import from_json, recover

KEPT = Path(__file__).parent / "persisted"
NOTHING_OWED = {"count": 0, "iteration": 0, "files": [], "why": "", "mendable": False}
BEST = {"ticks": 0, "peak": 0, "gates": {}, "done": []}
DROPPED = {"items": [], "plan": ""}
NOTHING_DONE = {
    "iterations": {}, "gates": {}, "runs": {}, "tokens": {}, "cost_usd": {}, "seconds": {},
    "productive_sec": 0.0, "unproductive_sec": 0.0, "up": 0.0, "wall": 0.0, "boot_id": "",
}  # fmt: skip
ADDED: dict[str, Any] = {
    "stops": {},
    "owed": NOTHING_OWED,
    "best": BEST,
    "dropped": DROPPED,
    "gates": None,
    "noted": 0,
    "unkept": [],
    "at_start": {},
    "totals": NOTHING_DONE,
}
"""Fields of a snapshot that the first version did not have, as they are written for its files."""
GONE = {"after_iteration"}
"""Fields that belonged to one supervisor's life and are no longer read."""
SNAPSHOTS = (KEPT / "snapshots.jsonl").read_text().splitlines()
JOURNAL = (KEPT / "journal.jsonl").read_text().splitlines()


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def first_version(state: LoopState) -> dict[str, Any]:
    """What is written for a state, without what has been added since."""
    written = to_json(state)
    for name, value in ADDED.items():
        assert written.pop(name) == value
    counters = written["counters"]
    assert (counters.pop("tries"), counters.pop("outage_sec")) == ({}, 0.0)
    assert (counters.pop("missing_sec"), counters.pop("aimless")) == (0.0, 0)
    last = written["last"] or {}
    assert (last.pop("failure_class", ""), last.pop("unproven", "")) == ("", "")
    assert written["spent"].pop("unpriced_tokens") == 0
    opened = written["open"] or {"messages": []}
    assert opened.pop("ticked", 0) == 0
    assert opened.pop("ticked_marks", []) == []
    assert (opened.pop("boot_id", ""), opened.pop("up", 0.0)) == ("", 0.0)
    for gate in opened.get("gates", ()):
        assert (gate.pop("items"), gate.pop("tick"), gate.pop("refused")) == ([], "", [])
        assert gate.pop("started_at") == 0.0
    for run in opened.get("ended", ()):
        assert run.pop("resumed") is False
        assert (run.pop("started_at"), run.pop("usage")) == (0.0, None)
    for message in (*written["carried"], *opened["messages"]):
        assert message.pop("mark") == ""
    if block := opened.get("block"):
        assert (block.pop("denied"), block.pop("notes")) == (False, [])
    if failure := opened.get("failure"):
        assert (failure.pop("guessed"), failure.pop("mend")) == (False, "")
        assert failure.pop("idle") is False
    return written


def still_read(kept: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kept.items() if name not in GONE}


@pytest.mark.parametrize("kept", SNAPSHOTS)
def test_a_snapshot_is_written_as_it_was_read(kept: str) -> None:
    data = json.loads(kept)
    assert text(data) == kept
    assert text(first_version(from_json(LoopState, data))) == text(still_read(data))


@pytest.mark.parametrize("kept", JOURNAL)
def test_the_state_in_a_journal_line_is_written_as_it_was_read(kept: str) -> None:
    line = json.loads(kept)
    written = first_version(recover(None, line, "new"))
    assert text(written) == text(still_read(line["after"]))


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
