"""Work trees that cannot be made or set up, and repositories of other kinds."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lanes.conftest import Make
from tests.support.harness import wait_until
from tests.support.program import PROGRAM

BAD_INPUT, NEEDS_HUMAN = 2, 4


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
            lambda: all("no room" in ws.lane(number).get("why", "") for number in (1, 2)),
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


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="needs git-lfs")
def test_a_repository_with_large_files_elsewhere(make: Make, tmp_path: Path) -> None:
    """Those of a lane's work tree, and of the landing's, come from where the remote has them."""
    ws = make(
        {"first": "cp large.bin copy.txt; tr a b < large.bin > made.bin", "second": ""},
        gates=['test "$(wc -c < large.bin)" = 5000'],
    )
    large, remote = "a" * 5000, tmp_path / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", str(remote)], check=True)
    ws.git("remote", "add", "origin", remote.as_uri())
    ws.git("lfs", "install", "--local")
    ws.git("lfs", "track", "*.bin")
    (ws.path / "large.bin").write_text(large)
    ws.git("add", "-A")
    ws.git("commit", "-q", "-m", "with a large file")
    ws.git("lfs", "push", "origin", "main")
    shutil.rmtree(ws.path / ".git" / "lfs")
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert ws.at("main", "copy.txt") == large
    assert ws.at("main", "made.bin").startswith("version https://git-lfs")
    assert (ws.path / "made.bin").read_text() == large.replace("a", "b")
    assert ws.git("status", "--porcelain") == ""
    assert not any(ws.trees.glob("*/*"))


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


def test_what_no_try_mends_is_said_at_once(make: Make, tmp_path: Path) -> None:
    """At a start before anything is begun; later by the lane."""
    ws = make({"first": 'echo mine > "$PWD/../2"; echo 1 > 1.txt', "second (after: 1)": ""})
    assert ws.run_lanes() == NEEDS_HUMAN
    assert "is no work tree of this repository; move it away" in ws.lane(2)["why"]
    log = (ws.state / "logs" / "supervisor.log").read_text()
    told = [json.loads(line) for line in log.splitlines()]
    made = [(one["level"], one["lane"]) for one in told if one["event"] == "lane.made"]
    assert made == [("info", "1"), ("warning", "2")]
    assert ws.contents("main") >= {"1.txt"}
    assert next(ws.trees.glob("*/2")).read_text() == "mine\n"

    (tmp_path / "file").write_text("mine\n")
    ws.lanes(directory=str(tmp_path / "file" / "trees"))
    assert ws.run_lanes() == BAD_INPUT
    assert f"{tmp_path / 'file'} is no directory" in ws.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system that cannot be written")
def test_a_directory_that_cannot_be_written_is_said_at_the_start(
    make: Make, tmp_path: Path
) -> None:
    fixed = tmp_path / "fixed"
    fixed.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(fixed)], check=True)
    try:
        ws = make(["first", "second"], directory=str(fixed / "trees"))
        assert ws.run_lanes() == BAD_INPUT
    finally:
        subprocess.run(["umount", str(fixed)], check=True)
    assert f"{fixed} cannot be written" in ws.log()
    assert not ws.lane(1)


@pytest.mark.parametrize("which", ["lanes", "lanes/1", "lanes/1/state"])
def test_a_link_in_the_place_of_a_lane_is_set_aside(make: Make, which: str) -> None:
    ws = make(["first", "second"])
    outside = ws.root / "out side"
    outside.mkdir()
    link = ws.state / which
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert list(outside.iterdir()) == []
    assert link.is_dir()
    assert not link.is_symlink()
    (aside,) = (ws.state / "quarantine").glob("lanes*")
    assert aside.is_symlink()
    assert f"{which} was set aside" in ws.log()


def test_two_loops_of_one_repository_keep_their_lanes_apart(make: Make) -> None:
    """Both have a lane 1; one of them lands, and the other one's commits are where they were."""
    ws = make(["first"], max=2)
    ws.agent(1, "echo half > half.txt; answer=")
    process = ws.start_lanes()
    wait_until(lambda: ws.lane(1).get("tip"), lambda: f"a commit\n{ws.log()[-3000:]}")
    process.terminate()
    ws.ended(process)
    tip = ws.git("rev-parse", ws.ref(1))
    ws.agent(1, "echo 1 > 1.txt")
    assert ws.run_lanes("--state-dir", str(ws.root / "other")) == 0
    assert ws.contents("main") >= {"1.txt"}
    assert ws.git("rev-parse", ws.ref(1)) == tip
    refs = ws.git("for-each-ref", "--format=%(refname)", "refs/codex-self-iter/lanes")
    assert refs.split() == [ws.ref(1)]
