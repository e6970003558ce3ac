"""What docs/architecture.md says and no other test shows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pydantic
import pytest

from codex_self_iter.core.state import LoopState, to_json
from codex_self_iter.world.state import codec
from tests.support.harness import Workspace

DONE = {"append": {"work.txt": "x\n"}, "block": {"completed": True}}
LEAVES = """
import atexit, pathlib, sys
atexit.register(lambda: pathlib.Path({path!r}).open("a").write("tidied up\\n"))
"""


def test_killed_between_the_journal_line_and_the_exit_it_needs_one_more_iteration(
    ws: Workspace,
) -> None:
    """The snapshot before the last one is what such a kill leaves."""
    ws.script(DONE)
    assert ws.run() == 0
    assert ws.runtime()["exit_code"] == 0
    shutil.copy(ws.state / "runtime.json.1", ws.state / "runtime.json")
    assert ws.runtime()["exit_code"] is None
    assert ws.run() == 0
    assert ws.verdicts() == ["completed", "completed"]
    assert [line["iteration"] for line in ws.journal()] == [1, 2]


def test_a_supervisor_does_not_take_the_interpreter_apart(ws: Workspace, tmp_path: Path) -> None:
    tidied = tmp_path / "tidied"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(LEAVES.format(path=str(tidied)))
    ws.environment["PYTHONPATH"] = os.pathsep.join(
        [str(tmp_path / "site"), ws.environment.get("PYTHONPATH", "")]
    )
    ws.script(DONE)
    assert ws.run() == 0
    assert not tidied.exists()
    control = [sys.executable, "-c", "pass"]
    subprocess.run(control, env=ws.environment, check=True, timeout=60)
    assert tidied.exists()  # the control: another program does


def test_the_librarys_reader_refuses_what_our_codec_reads() -> None:
    state = LoopState("x", goal="half \ud800 of a letter")
    text = json.dumps(to_json(state))
    assert codec.from_json(LoopState, json.loads(text)) == state
    with pytest.raises(pydantic.ValidationError):
        pydantic.TypeAdapter(dict[str, object]).validate_json(text)
