"""A temporary directory for each run, gone when it has ended."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from codex_self_iter.supervisor import scratch
from tests.support.harness import Workspace

AGENT = """#!/bin/sh
out={out}
printf '%s\\n' "$TMPDIR" >> "$out"; printf '%s\\n' "$TMP" "$TEMP" "$BUN_TMPDIR" | sort -u >> "$out"
cd "$TMPDIR" && pwd -P >> "$out"
mkdir -p cache/mod && echo x > cache/mod/x && chmod 500 cache/mod
git rev-parse --show-toplevel >> "$out" 2>/dev/null || echo none >> "$out"
cd "$2" && git rev-parse --show-toplevel >> "$out"
echo '{{"summary": "s", "next_goal": "n", "stop": false, "completed": true}}'
"""


def told(ws: Workspace, tables: str = "") -> list[str]:
    agent, out = ws.root / "agent.sh", ws.root / "told"
    agent.write_text(AGENT.format(out=shlex.quote(str(out))))
    agent.chmod(0o755)
    template = f"{shlex.quote(str(agent))} {{prompt_file}} {{workspace}}"
    ws.config(tables, agent_command_template=template)
    assert ws.run() == 0
    return out.read_text().splitlines()


def test_a_run_has_its_own_temporary_directory_and_leaves_nothing_in_it(ws: Workspace) -> None:
    given, also, real, repository, workspace = told(ws)
    (run,) = (ws.state / "logs" / "runs").iterdir()
    assert Path(real) == run / "tmp"
    assert given == also
    assert repository == "none"
    assert Path(workspace) == ws.path
    assert not os.path.lexists(given)
    assert not os.path.lexists(real)


def test_a_temporary_directory_of_the_persons_own_is_kept(ws: Workspace) -> None:
    mine = ws.root / "mine"
    mine.mkdir()
    given, _, real, *_ = told(ws, f'[agents.command.env]\nTMPDIR = "{mine}"\n')
    assert given == real == str(mine)
    assert (mine / "cache" / "mod" / "x").exists()


@pytest.mark.parametrize("name", ["run", "r" * 90])
def test_its_path_is_short_enough_for_a_socket(tmp_path: Path, name: str) -> None:
    run = tmp_path / name
    run.mkdir()
    path = scratch.make(str(run))
    assert len(path) <= 72 or not Path(path).is_symlink()
    assert Path(path).resolve() == run / "tmp"
    assert scratch.make(str(run)) == path
    scratch.remove(str(run))
    assert not os.path.lexists(path)
    assert not (run / "tmp").exists()
    scratch.remove(str(run))


def test_what_somebody_else_made_in_its_place_is_left_alone(tmp_path: Path) -> None:
    run, foreign = tmp_path / ("r" * 90), tmp_path / "foreign"
    run.mkdir()
    foreign.mkdir()
    link = scratch.make(str(run))
    os.unlink(link)
    os.symlink(foreign, link)
    try:
        assert scratch.make(str(run)) == str(run / "tmp")
        scratch.remove(str(run))
        assert foreign.is_dir()
    finally:
        os.unlink(link)


def test_what_a_run_that_could_not_start_has_left_is_no_stranger(ws: Workspace) -> None:
    left = ws.state / "logs" / "runs" / "000001-executor" / "tmp"
    left.mkdir(parents=True)
    (left / "cache").write_text("x")
    ws.config()
    ws.script({"run": "ls $TMPDIR > seen", "block": {"completed": True}})
    assert ws.run() == 0, ws.log()
    assert (ws.path / "seen").read_text() == ""
    assert not [*(ws.state / "quarantine").glob("*")]
