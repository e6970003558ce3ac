"""A person's checkout during a run: whatever is there stays, whatever the person does goes first."""

from __future__ import annotations

import shutil
import signal
import subprocess

from tests.lanes.conftest import Make
from tests.support.checkouts import careless, edited, whole
from tests.support.harness import wait_until
from tests.support.lanes import LaneWorkspace

BESIDE = "codex-self-iter/landed/main"
NEEDS_HUMAN = 4


def test_edits_index_and_stash_survive_and_the_landing_waits_and_says_so(make: Make) -> None:
    ws = make({"first": "echo lane > tracked.txt", "second (after: 1)": ""})
    edited(ws)
    before = whole(ws.path)
    assert ws.run_lanes() == NEEDS_HUMAN
    assert whole(ws.path) == before
    assert ws.at(BESIDE, "tracked.txt") == "lane\n"
    assert ws.contents(BESIDE) >= {"tracked.txt", "2.txt"}
    assert "2.txt" not in ws.contents("main")
    said = ws.status()["reason"]
    assert "tracked.txt" in said
    assert "commit or stash them" in said

    # what others do in its place loses some of it, and that is seen here
    for way in (
        f"git reset -q --hard {BESIDE}",
        f"git checkout -q -f {BESIDE}",
        f"git stash -q -u; git merge -q {BESIDE}; git stash pop",
    ):
        twin = careless(ws, way)
        changed = {name for name, now in whole(twin).items() if before.get(name) != now}
        assert changed & {"tracked.txt", "staged.txt", ".git/index"}
        shutil.rmtree(twin)

    ws.git("stash", "-q")
    assert ws.run_lanes() == 0
    assert ws.contents("main") >= {"tracked.txt", "2.txt"}
    assert (ws.path / "tracked.txt").read_text() == "lane\n"
    assert (ws.path / "untracked.txt").read_text() == "not in git\n"
    assert ws.git("branch", "--list", BESIDE) == ""
    assert len(ws.git("stash", "list").splitlines()) == 2


def test_a_file_that_git_does_not_know_is_not_overwritten(make: Make) -> None:
    ws = make({"first": "echo lane > notes.txt", "second (after: 1)": ""})
    (ws.path / "notes.txt").write_text("mine\n")
    before = whole(ws.path)
    assert ws.run_lanes() == NEEDS_HUMAN
    assert whole(ws.path) == before
    assert "notes.txt" in ws.status()["reason"]
    assert ws.at(BESIDE, "notes.txt") == "lane\n"
    twin = careless(ws, f"git checkout -q -f {BESIDE}")
    assert (twin / "notes.txt").read_text() == "lane\n"


def test_the_target_that_is_checked_out_elsewhere_follows_there(make: Make) -> None:
    ws = make({"first": "", "second": ""}, target="main")
    ws.git("switch", "-q", "-c", "mine")
    other = ws.root / "other"
    ws.git("worktree", "add", "-q", str(other), "main")
    before = whole(ws.path)
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert whole(ws.path) == before
    assert (other / "1.txt").read_text() == "1\n"
    assert ws.git("-C", str(other), "status", "--porcelain") == ""
    # the naive way does nothing at all there, and git says so
    assert naive_merge_fails(ws)


def naive_merge_fails(ws: LaneWorkspace) -> bool:
    way = "git checkout main && git merge mine"
    done = subprocess.run(
        ["sh", "-c", way], cwd=ws.path, env=ws.environment, capture_output=True, check=False
    )
    return done.returncode != 0


def test_the_target_that_is_edited_in_another_work_tree_is_waited_for(make: Make) -> None:
    ws = make({"first": "", "second": ""}, target="main")
    ws.git("switch", "-q", "-c", "mine")
    other = ws.root / "other"
    ws.git("worktree", "add", "-q", str(other), "main")
    (other / "plan.md").write_text("edited there\n")  # the plan here is another
    assert ws.run_lanes() == NEEDS_HUMAN
    assert (other / "plan.md").read_text() == "edited there\n"
    assert str(other) in ws.status()["reason"]
    assert ws.contents(BESIDE) >= {"1.txt", "2.txt"}
    assert "1.txt" not in ws.contents("main")


def test_what_a_person_does_with_git_meanwhile_goes_first(make: Make) -> None:
    """Commits, an amend, a rebase, a reset and a switch there and back, all in the checkout while
    lanes are at work and land."""
    hold = 'until test -e "$LANE_AGENT/go.{0}"; do sleep 0.05; done; echo {0} > {0}.txt'
    ws = make({str(n): hold.format(n) for n in (1, 2, 3, 4)}, max=4)
    process = ws.start_lanes()

    def go(number: int) -> None:
        (ws.agents / f"go.{number}").touch()
        wait_until(
            lambda: any(one["lane"] == str(number) for one in ws.events("landed")),
            lambda: f"lane {number} to land\n{ws.log()[-3000:]}",
        )

    wait_until(lambda: len(list(ws.agents.glob("runs.*"))) == 4, "all to begin")
    (ws.path / "mine.txt").write_text("one\n")
    ws.git("add", "mine.txt")
    ws.git("commit", "-q", "-m", "mine")
    go(1)
    (ws.path / "mine.txt").write_text("two\n")
    ws.git("add", "mine.txt")
    ws.git("commit", "-q", "--amend", "-m", "mine, and lane 1")  # of the merge itself
    go(2)
    ws.git("switch", "-q", "-c", "elsewhere")
    (ws.path / "mine.txt").write_text("three\n")
    ws.git("commit", "-q", "-am", "mine, elsewhere")
    go(3)
    assert "3.txt" in ws.contents("main")
    assert not (ws.path / "3.txt").exists()
    ws.git("rebase", "-q", "main")
    ws.git("switch", "-q", "main")
    ws.git("merge", "-q", "--ff-only", "elsewhere")
    ws.git("branch", "-q", "-D", "elsewhere")
    go(4)
    assert ws.ended(process) == 0, ws.log()[-3000:]
    assert ws.contents("main") >= {"1.txt", "2.txt", "3.txt", "4.txt", "mine.txt"}
    assert ws.at("main", "mine.txt") == "three\n"
    assert ws.git("status", "--porcelain") == ""
    assert ws.lost() == set()


def test_what_a_person_has_taken_back_stays_taken_back(make: Make) -> None:
    """The target is moved back behind what has landed: the next lane lands on what is there."""
    hold = 'until test -e "$LANE_AGENT/go"; do sleep 0.05; done; echo 2 > 2.txt'
    ws = make({"first": "", "second": hold})
    begin = ws.git("rev-parse", "HEAD").strip()
    process = ws.start_lanes()
    wait_until(lambda: ws.events("landed"), "the first to land")
    ws.git("reset", "-q", "--hard", begin)
    (ws.agents / "go").touch()
    code = ws.ended(process)
    assert "2.txt" in ws.contents("main"), (code, ws.log()[-3000:])
    assert "1.txt" not in ws.contents("main")
    assert ws.git("status", "--porcelain") == ""
    assert ws.lost() == set()


SLOW_GIT = """#!/bin/sh
case "$PWD $*" in "$CHECKOUT"*ls-files*--others*)
    if test -e "$LANE_AGENT/hold"; then touch "$LANE_AGENT/held"; fi
    while test -e "$LANE_AGENT/hold"; do sleep 0.05; done;;
esac
exec {} "$@"
"""


def test_an_end_while_it_is_looked_whether_the_target_can_follow_leaves_no_lock(make: Make) -> None:
    """The index is locked in this moment, by a git that takes its time."""
    wait = "while sleep 0.05; do :; done"
    ws = make({"first": "echo lane > notes.txt", "second (after: 1)": wait})
    (ws.path / "notes.txt").write_text("mine\n")
    git = ws.root / "bin" / "git"
    git.parent.mkdir()
    git.write_text(SLOW_GIT.format(shutil.which("git")))
    git.chmod(0o755)
    ws.environment["PATH"] = f"{git.parent}:{ws.environment['PATH']}"
    ws.environment["CHECKOUT"] = str(ws.path)
    process = ws.start_lanes()
    hold, lock = ws.agents / "hold", ws.path / ".git" / "index.lock"
    wait_until(lambda: ws.events("landed"), lambda: f"it to wait\n{ws.log()[-2000:]}")
    hold.touch()
    wait_until((ws.agents / "held").exists, lambda: f"a look\n{ws.log()[-2000:]}")
    assert lock.exists()
    process.send_signal(signal.SIGTERM)
    wait_until(ws.state_is("stopped"), lambda: f"its end\n{ws.log()[-2000:]}")
    hold.unlink()
    ws.ended(process)
    assert not lock.exists()
    assert not list((ws.path / ".git").glob("codex-self-iter*"))
    assert (ws.path / "notes.txt").read_text() == "mine\n"
