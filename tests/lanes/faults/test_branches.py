"""Targets of every name, gone, renamed and moved; agents that leave their lane."""

from __future__ import annotations

import subprocess

import pytest

from tests.lanes.conftest import Make
from tests.support.harness import wait_until
from tests.support.lanes import LaneWorkspace

NEEDS_HUMAN = 4
HOLD = 'until test -e "$LANE_AGENT/go.{0}"; do sleep 0.05; done; echo {0} > {0}.txt'


def landed(ws: LaneWorkspace, lane: str) -> None:
    wait_until(
        lambda: any(one["lane"] == lane for one in ws.events("landed")),
        lambda: f"lane {lane} to land\n{ws.log()[-3000:]}",
    )


def begun(ws: LaneWorkspace, count: int) -> None:
    wait_until(
        lambda: len(list(ws.agents.glob("runs.*"))) >= count,
        lambda: f"the agents to begin\n{ws.log()[-3000:]}",
    )


@pytest.mark.parametrize("name", ["trunk/größe-#1", "master", "release/2.0/main"])
def test_lanes_land_on_whatever_is_checked_out(make: Make, name: str) -> None:
    ws = make({"first": "", "second": ""})
    ws.git("branch", "-q", "-m", name)
    ws.git("branch", "-q", "other")
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert ws.contents(f"refs/heads/{name}") >= {"1.txt", "2.txt"}
    assert ws.git("status", "--porcelain") == ""
    branches = ws.git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").split()
    assert sorted(branches) == sorted([name, "other"])  # the control: no main was made


def test_a_detached_head_is_refused_in_one_line(make: Make) -> None:
    ws = make({"first": "", "second": ""})
    ws.git("switch", "-q", "--detach")
    assert ws.run_lanes() == 2
    assert "Traceback" not in ws.log()
    assert "[lanes] target" in ws.log()


def test_a_target_that_is_deleted_or_renamed_is_said_and_nothing_is_lost(make: Make) -> None:
    """What landed before is under what lands beside it afterwards."""
    ws = make({"first": HOLD.format(1), "second": HOLD.format(2), "zero": ""}, target="main")
    begin = ws.git("rev-parse", "main").strip()
    process = ws.start_lanes()
    begun(ws, 3)
    landed(ws, "3")
    ws.git("switch", "-q", "-c", "elsewhere", begin)
    before = ws.git("rev-parse", "main").strip()
    ws.git("branch", "-q", "-m", "main", "renamed")
    (ws.agents / "go.1").touch()
    landed(ws, "1")
    wait_until(lambda: "the branch main is gone" in ws.status()["reason"], "it to be said")
    assert ws.git("branch", "--list", "main") == ""  # it was a person who took it away
    assert ws.contents("codex-self-iter/landed/main") >= {"1.txt", "3.txt"}
    assert ws.git("rev-parse", "renamed").strip() == before
    ws.git("branch", "-q", "-m", "renamed", "main")
    (ws.agents / "go.2").touch()
    assert ws.ended(process) == 0, ws.log()[-3000:]
    assert ws.contents("main") >= {"1.txt", "2.txt", "3.txt"}
    assert ws.lost() == set()


def test_an_agent_that_leaves_its_lane_moves_nothing_of_the_persons(make: Make) -> None:
    """One commits in the checkout, one checks a branch of its own out, one the target itself: their
    work lands by the queue, and the person's files stay."""
    ws = make({"in the checkout": "", "a branch": "", "the target": ""}, max=3)
    out = f'until test -e "{ws.agents}/at.target"; do sleep 0.05; done; cd "{ws.path}"; '
    out += "echo 1 > out.txt; git add out.txt; git commit -q -m out -- out.txt"
    ws.agent("1.1", f"({out}); :")
    ws.agent("1.2", "echo 1 > 1.txt")
    ws.agent("2.1", "git checkout -q -b own; echo 2 > 2.txt; git add .; git commit -q -m own")
    moved = f'until git -C "{ws.path}" log --format=%s main | grep -qx out; do sleep 0.05; done; '
    ws.agent(
        "3.1",
        f'git checkout -q --ignore-other-worktrees main; touch "$LANE_AGENT/at.target"; {moved} echo 3 > 3.txt',
    )
    (ws.path / "untracked.txt").write_text("mine\n")
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert ws.contents("main") >= {"out.txt", "1.txt", "2.txt", "3.txt"}
    assert ws.git("status", "--porcelain") == "?? untracked.txt\n"
    landed_now = [one["lane"] for one in ws.events("landed")]
    assert sorted(landed_now) == ["1", "2", "3"]
    # the target was moved by the agent in the checkout and by landings, never past the gates
    subjects = ws.git("log", "--first-parent", "--format=%s", "main").splitlines()
    assert set(subjects) <= {
        "in the checkout",
        "a branch",
        "the target",
        "out",
        "the plan",
        "start",
    }
    assert ws.git("branch", "--list", "own").strip() == "own"
    # the control: a commit of the lane on the target itself shows in the checkout as the opposite
    other = ws.root / "naive"
    ws.git("worktree", "add", "-q", "--force", str(other), "main")
    (other / "naive.txt").touch()
    for order in (["add", "."], ["commit", "-q", "-m", "naive"]):
        subprocess.run(["git", *order], cwd=other, env=ws.environment, check=True)
    assert ws.git("status", "--porcelain") == "D  naive.txt\n?? untracked.txt\n"
    ws.git("worktree", "remove", "--force", str(other))


def test_commits_that_an_agent_takes_back_are_reachable(make: Make) -> None:
    """A lane's second run resets what the first has made and was committed."""
    ws = make({"first": "", "second": ""}, git__commit="supervisor")
    ws.agent("1.1", 'echo 1 > old.txt; answer=$(echo "$answer" | sed "s/true/false/")')
    ws.agent("1.2", "git reset -q --hard HEAD~1; echo 1 > 1.txt")
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert "1.txt" in ws.contents("main")
    assert "old.txt" not in ws.contents("main")
    assert len(ws.made()) >= 3
    assert ws.lost() == set()


def test_a_target_that_was_moved_beneath_the_checkout_is_said_with_the_way_out(make: Make) -> None:
    """An agent commits on the target itself, in its lane: past the gates, and the checkout does not
    follow. Nothing there is called a change of the person's."""
    ws = make({"first": "", "second": ""}, git__commit="agent")
    ws.agent(1, "git checkout -q --ignore-other-worktrees main; echo 1 > 1.txt; git add .; "
             "git commit -q -m 'on the target'; touch \"$LANE_AGENT/moved\"")  # fmt: skip
    wait = 'until test -e "$LANE_AGENT/moved"; do sleep 0.05; done; '
    ws.agent(2, wait + "echo 2 > 2.txt; git add .; git commit -q -m second")
    assert ws.run_lanes() == NEEDS_HUMAN, ws.log()[-3000:]
    said = ws.status()["reason"]
    assert "was moved to" in said
    assert "changes of yours" not in said
    order = said.partition("there: ")[2].split()
    assert order[:2] == ["git", "read-tree"]
    ws.git(*order[1:6])
    assert ws.git("status", "--porcelain") == ""
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert ws.contents("main") >= {"1.txt", "2.txt"}
    assert (ws.path / "2.txt").exists()
