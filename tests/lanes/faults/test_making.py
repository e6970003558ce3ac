"""Work trees that cannot be made or set up, and repositories of other kinds."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.lanes.conftest import Make
from tests.support.harness import wait_until
from tests.support.program import PROGRAM

NEEDS_HUMAN = 4


def test_a_set_up_runs_before_the_agent_and_before_the_gates(make: Make) -> None:
    ws = make(
        {"first": "cat made.ignored > 1.txt", "second": ""}, gates=["test -e made.ignored"],
        setup=["echo $CODEX_SELF_ITER_LANE. > made.ignored"],
    )  # fmt: skip
    (ws.path / ".gitignore").write_text("*.ignored\n")
    ws.git("add", ".gitignore")
    ws.git("commit", "-q", "-m", "ignored")
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert ws.at("main", "1.txt") == "1.\n"


def test_a_set_up_that_fails_or_hangs_is_said_with_its_words(make: Make) -> None:
    ws = make(
        {"first": "", "second": "", "third": ""},
        setup=['case $CODEX_SELF_ITER_LANE in 1) echo "no such package"; exit 3;; 2) sleep 300;; 3) kill -9 $$;; esac'],
        setup_timeout_sec=1,
    )  # fmt: skip
    process = ws.start_lanes()
    wait_until(
        lambda: (
            "no such package" in ws.lane(1).get("why", "")
            and ws.lane(2).get("why")
            and ws.lane(3).get("why")
        ),
        lambda: f"the flaws to be known\n{ws.log()[-3000:]}",
    )
    assert "setup" in ws.lane(1)["why"]
    assert ws.seen(1) == []
    assert ws.seen(2) == []
    # it is mended, and tried again
    ws.lanes(setup=["true"])
    process.terminate()
    ws.ended(process)
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert ws.contents("main") >= {"1.txt", "2.txt"}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_no_room_for_a_work_tree_is_said_and_leaves_nothing_half(
    make: Make, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], check=True)
    try:
        ws = make({"first": "", "second": ""}, directory=str(small))
        (ws.path / "big.bin").write_bytes(os.urandom(1_000_000))
        ws.git("add", "big.bin")
        ws.git("commit", "-q", "-m", "big")
        process = ws.start_lanes()
        wait_until(
            lambda: "no room" in ws.lane(1).get("why", ""),
            lambda: f"it to be said\n{ws.log()[-3000:]}",
        )
        assert not (ws.path / ".git" / "worktrees").exists() or not list(
            (ws.path / ".git" / "worktrees").glob("*/HEAD")
        )
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        assert ws.ended(process) == 0, ws.log()[-3000:]
        assert ws.contents("main") >= {"1.txt", "2.txt"}
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_repository_with_a_submodule(make: Make, tmp_path: Path) -> None:
    ws = make(
        {"first": "cat sub/inside.txt > 1.txt", "second": ""}, gates=["test -e sub/inside.txt"]
    )
    sub = tmp_path / "sub"
    sub.mkdir()
    (sub / "inside.txt").write_text("in\n")
    for order in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "sub"]):
        subprocess.run(["git", *order], cwd=sub, env=ws.environment, check=True)
    config = tmp_path / "gitconfig"
    config.write_text('[protocol "file"]\n\tallow = always\n')
    ws.environment["GIT_CONFIG_GLOBAL"] = str(config)
    ws.git("submodule", "--quiet", "add", str(sub), "sub")
    ws.git("commit", "-q", "-m", "with a submodule")
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert ws.at("main", "1.txt") == "in\n"
    assert not any(ws.trees.glob("*/*"))
    assert ws.git("status", "--porcelain") == ""


def test_an_agent_that_runs_the_program_itself_in_its_lane_is_refused_in_one_line(
    make: Make,
) -> None:
    """There is one supervisor for a work tree; elsewhere the agent may have one of its own."""
    ws = make({"first": "", "second": ""})
    inner = ws.agents / "inner.sh"
    inner.write_text("echo inner > inner.txt\n")
    template = f"sh {shlex.quote(str(inner))} {{prompt_file}}"
    command = [*PROGRAM, "--once", "--agent-command-template", template, "--workspace"]
    elsewhere = ws.root / "else where"
    elsewhere.mkdir()
    (elsewhere / "plan.md").write_text("- [ ] inner\n")
    ws.agent(
        1,
        f'{shlex.join([*command, "."])} > "$LANE_AGENT/here" 2>&1; echo $? > "$LANE_AGENT/code"; '
        f'{shlex.join([*command, str(elsewhere)])} > "$LANE_AGENT/there" 2>&1; echo 1 > 1.txt',
    )
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    said = (ws.agents / "here").read_text()
    assert "already has a supervisor" in said
    assert "Traceback" not in said
    assert (ws.agents / "code").read_text() == "75\n"
    assert "iteration.ended" in (ws.agents / "there").read_text()
    assert (elsewhere / "inner.txt").exists()
    assert "inner.txt" not in ws.contents("main")
    assert ws.contents("main") >= {"1.txt", "2.txt"}
