"""What docs/benchmarks.md says beside its figures, and the figures that are the same everywhere."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from benchmarks.__main__ import MEASURES
from benchmarks.prompt import TOKEN_BYTES, sizes
from codex_self_iter.supervisor import conditions
from codex_self_iter.supervisor.members import FILES_A_LOOP, FILES_A_RUN
from codex_self_iter.supervisor.senses import Senses
from codex_self_iter.supervisor.shared import Shared
from tests.program.test_many import supervise
from tests.support.harness import Workspace, wait_until

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table after a text."""
    table = re.search(r"^\|.*?(?=^[^|])", PAGE.partition(heading)[2], re.M | re.S)
    assert table
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]
    ]


def test_each_measure_is_on_the_page_and_each_name_on_the_page_is_one() -> None:
    named = {name for row in rows("# What it costs") for name in re.findall(r"`(\w+)`", row[0])}
    assert named | {"prompt"} == set(MEASURES)


def test_prompts_are_as_large_as_the_page_says() -> None:
    """They depend on our words alone."""
    shown = [
        int(n.replace(",", "")) for row in rows("## What a prompt") for n in row[1].split(", ")
    ]
    tokens = [
        int(n.replace(",", "")) for row in rows("## What a prompt") for n in row[2].split(", ")
    ]
    assert shown == [ours for _, ours, _ in sizes()]
    assert tokens == [round(ours / TOKEN_BYTES) for ours in shown]


def pause(shared: dict[str, Any], *, heard: bool, restless: float) -> float:
    watcher = SimpleNamespace(hint_alive=heard)
    clock = SimpleNamespace(monotonic=lambda: 100.0)
    ctx = SimpleNamespace(shared=SimpleNamespace(watcher=watcher, clock=clock, **shared))
    senses: Any = SimpleNamespace(_ctx=ctx, _restless=restless)
    return Senses.pause(senses)


def test_a_loop_looks_as_often_as_the_page_says() -> None:
    alone = {"poll_sec": Shared.__dataclass_fields__["poll_sec"].default}
    assert pause(alone, heard=True, restless=0.0) == 1.0
    assert pause(alone, heard=True, restless=101.0) == 0.25  # something has changed lately
    assert pause(alone, heard=False, restless=0.0) == 0.25
    assert Shared.__dataclass_fields__["heal_sec"].default == 1.0
    assert Shared.__dataclass_fields__["heartbeat_sec"].default == 3.0
    assert conditions.WAIT_SEC == 1.0


def open_files(process: psutil.Process) -> list[str]:
    """What it has open, without the watcher's, which come and go with a new list of places."""
    found = []
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it was open for a moment
            found.append(os.readlink(link))
    passing = ("anon_inode:inotify", "anon_inode:[eventfd]", "anon_inode:[eventpoll]")
    return [path for path in found if path not in passing]


@pytest.mark.slow
@pytest.mark.parametrize("each", [[FILES_A_LOOP], [3, 3, 3]], ids=["alone", "three"])
def test_loops_share_what_the_page_says_and_have_few_files_each(
    tmp_path: Path, each: list[int]
) -> None:
    loops = [Workspace(tmp_path, f"repo {n}") for n in range(len(each))]
    try:
        for ws in loops:
            ws.config()
            ws.script({"sleep": 60, "until": "go", "block": {"completed": True}})
            ws.state.mkdir()
            (ws.state / "PAUSE").touch()
        process = psutil.Process(supervise(*loops, tables="[pool]\nmax_agents = 3\n").pid)
        for ws in loops:
            ws.wait_state("paused")

        def of_each() -> list[int]:
            paths = open_files(process)
            return [sum(str(ws.path) in path for path in paths) for ws in loops]

        # one alone keeps its log open; among others it is opened for each line
        wait_until(lambda: of_each() == each, f"{each} open files")
        files = open_files(process)
        (loops[0].state / "PAUSE").unlink()
        loops[0].wait_runs(1)
        loops[0].wait_state("running")
        assert 4 <= len(open_files(process)) - len(files) <= FILES_A_RUN
        for ws in loops[1:]:
            (ws.state / "PAUSE").unlink()
            ws.wait_runs(1)
        names = [child.name() for child in process.children()]
        assert names.count("csi-launcher") == 1
    finally:
        for ws in loops:
            ws.close()
