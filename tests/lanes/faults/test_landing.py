"""What must not land, what lands in the end, and that it is said which of both it was."""

from __future__ import annotations

import json
import subprocess

from tests.lanes.conftest import Make
from tests.lanes.faults.judged import IN_LANDING, JUDGE, judged, judged_at
from tests.support.harness import wait_until
from tests.support.lanes import LaneWorkspace

NEEDS_HUMAN = 4


def test_a_merge_that_cannot_be_made_is_never_said_to_have_landed(make: Make) -> None:
    """The same conflict comes again and again: the lane needs a person, and nothing of it is on the
    target or lost."""
    wait = 'until git -C "$LANE_AGENT/../../work space" log main --format=%s | grep -q first; '
    ws = make(
        {"first": "echo 1 > said.txt", "second": wait + "do sleep 0.1; done; echo 2 > said.txt"},
        max_conflicts=1,
    )
    # each time it takes its own side only, and breaks what is on the other again
    ws.agent("2.2", "git checkout -q HEAD^1 -- said.txt; git add -A; git reset -q --soft HEAD^1")
    assert ws.run_lanes() == NEEDS_HUMAN
    assert ws.at("main", "said.txt") == "1\n"
    lane = ws.lane(2)
    assert (lane["state"], lane["landed"]) == ("needs you", "")
    assert "conflict" in lane["why"]
    assert [one["lane"] for one in ws.events("landed")] == ["1"]
    assert [one["lane"] for one in ws.events("needs_you")] == ["2"]
    assert "- [ ] second" in (ws.path / "plan.md").read_text()
    assert "lane 2" in ws.status()["reason"]
    assert ws.lost() == set()
    tip = lane["tip"]
    # what a script that does not look at exit codes would have called a success
    naive = subprocess.run(
        ["sh", "-c", f"git merge -q {tip} >/dev/null 2>&1; git merge --abort; echo merged"],
        cwd=ws.path, env=ws.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert naive.stdout == "merged\n"
    held = subprocess.run(
        ["git", "merge-base", "--is-ancestor", tip, "main"], cwd=ws.path, check=False
    )
    assert held.returncode == 1


def test_done_without_a_commit_is_not_done(make: Make) -> None:
    ws = make({"nothing at all": ":", "second": ""}, git__commit="agent")
    ws.agent(2, "echo 2 > 2.txt; git add .; git commit -qm 2")
    assert ws.run_lanes() == NEEDS_HUMAN
    assert ws.lane(1)["state"] == "needs you"
    assert "changed nothing" in ws.lane(1)["why"]
    assert [one["kind"] for one in ws.events("returned")] == ["unchanged"]
    assert "no commit of this lane changes anything" in ws.seen(1)[1]
    assert "- [ ] nothing at all" in (ws.path / "plan.md").read_text()
    assert "- [x] second" in (ws.path / "plan.md").read_text()  # the control: with a commit it is


def test_work_that_no_commit_has_goes_back_and_is_kept(make: Make) -> None:
    """A hook refuses the commit of one, another leaves a file out."""
    ws = make(
        {
            "refused": "echo bad > refused.txt; git add .; git commit -qm bad || :",
            "left out": "echo 2 > 2.txt; git add .; git commit -qm 2; echo 3 > forgotten.txt",
        },
        git__commit="agent",
    )
    ws.agent("1.2", "echo good > refused.txt; git add .; git commit -qm good")
    ws.agent("2.2", "git add .; git commit -qm 'and this'")
    hook = ws.path / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\n! git grep -q --cached bad -- refused.txt\n")
    hook.chmod(0o755)
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert sorted((one["lane"], one["kind"]) for one in ws.events("returned")) == [
        ("1", "dirty"), ("2", "dirty"),
    ]  # fmt: skip
    assert "refused.txt" in ws.seen(1)[1]
    assert "forgotten.txt" in ws.seen(2)[1]
    assert ws.at("main", "refused.txt") == "good\n"
    assert ws.contents("main") >= {"2.txt", "forgotten.txt"}  # a merge of HEAD alone had not this


def test_a_lane_that_came_back_lands_on_the_newest_target(make: Make) -> None:
    """Gates are red on what two lanes have made together; meanwhile a third lands. What is landed
    in the end was judged with all of it."""
    gate = JUDGE + '; test ! -e a -o ! -e b || test -e "$(cat b)"'
    hold = 'until test -e "$LANE_AGENT/{0}"; do sleep 0.05; done; '
    ws = make(
        {"a": "echo a > a", "b": hold.format("a.landed") + "echo none > b", "c": "echo c > c"},
        gates=[gate],
    )
    ws.agent(3, hold.format("b.back") + "echo c > c")
    ws.agent("2.2", 'touch "$LANE_AGENT/b.back"; ' + hold.format("c.landed") + "echo a > b")
    process = ws.start_lanes()
    for lane, name in (("1", "a.landed"), ("3", "c.landed")):
        wait_until(lambda lane=lane: landed(ws, lane), lambda: f"lane to land {ws.log()[-3000:]}")
        (ws.agents / name).touch()
    assert ws.ended(process) == 0, ws.log()[-3000:]
    assert [(one["lane"], one["kind"]) for one in ws.events("returned")] == [("2", "red")]
    assert {one["lane"]: one["commit"] for one in ws.events("landed")}.keys() == {"1", "2", "3"}
    last = next(one["commit"] for one in ws.events("landed") if one["lane"] == "2")
    assert ws.contents(last) >= {"a", "b", "c"}
    assert judged_at(ws, last) == ["green"]
    # the control: what lane 2 had first, on the base that it began with, is green alone
    assert "red" in dict(map(reversed, judged(ws)))


def landed(ws: LaneWorkspace, lane: str) -> bool:
    return any(one["lane"] == lane for one in ws.events("landed"))


def test_of_a_batch_with_one_bad_lane_the_others_land(make: Make) -> None:
    """Each of three is green alone, the three are red together. While the first item lands all of
    them become ready, and so they land as one batch."""
    slow = f"if {IN_LANDING} && test ! -e 2.txt -a ! -e 3.txt -a ! -e 4.txt; then "
    slow += 'until test -e "$LANE_AGENT/go"; do sleep 0.05; done; fi'
    gate = JUDGE + f"; {slow}; test ! -e 3.txt -o ! -e 2.txt || test -e both.txt"
    ws = make([str(n) for n in (1, 2, 3, 4)], gates=[gate], batch=3, max=4)
    for number in (2, 3, 4):
        hold = 'until test "$(cat "$LANE_AGENT/landing" 2>/dev/null)"; do sleep 0.05; done; '
        ws.agent(number, hold + f"echo {number} > {number}.txt")
    for number in (2, 3):  # whichever comes second is the one that comes back
        ws.agent(f"{number}.2", "echo both > both.txt")
    process = ws.start_lanes()
    wait_until(
        lambda: ws.lane(1).get("state") == "landing", lambda: f"it to land {ws.log()[-3000:]}"
    )
    (ws.agents / "landing").write_text("1\n")
    wait_until(lambda: len(ws.events("ready")) == 4, lambda: f"all to be ready {ws.log()[-3000:]}")
    (ws.agents / "go").touch()
    assert ws.ended(process) == 0, ws.log()[-3000:]
    assert ws.contents("main") >= {"1.txt", "2.txt", "3.txt", "4.txt", "both.txt"}
    assert sorted(ws.events("halved")[0]["lanes"]) == ["2", "3", "4"]
    assert [one["lane"] for one in ws.events("returned")] in (["2"], ["3"])
    for one in ws.events("landed"):
        assert judged_at(ws, one["commit"])[-1] == "green"
    assert "red" in dict(map(reversed, judged(ws)))  # the control: they were not green as they came


def test_a_gate_that_changes_what_it_judges_is_red(make: Make) -> None:
    """One formats a file, one commits: the commit that would land is not what was green."""
    gate = 'test ! -e "$PWD/1.txt" || { grep -q formatted 1.txt || echo formatted >> 1.txt; }'
    commits = 'test ! -e 2.txt || test -e ok.txt || { git rm -qf 2.txt; git commit -qm "no"; }'
    ws = make({"first": "", "second": ""}, gates=[f"if {IN_LANDING}; then {gate}; {commits}; fi"])
    ws.agent("1.2", "echo formatted > 1.txt")
    ws.agent("2.2", "echo ok > ok.txt")
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert {(one["lane"], one["kind"]) for one in ws.events("returned")} == {
        ("1", "red"),
        ("2", "red"),
    }
    assert "1.txt" in ws.seen(1)[1]
    assert "they have committed" in ws.seen(2)[1]
    assert ws.contents("main") >= {"1.txt", "2.txt", "ok.txt"}


def test_of_several_candidates_the_smallest_lands_and_the_others_are_kept_as_refs(
    make: Make,
) -> None:
    ws = make({"one": "", "two": ""}, candidates=2, max=4)
    ws.agent("1a", "seq 50 > 1.txt")
    ws.agent("1b", "echo 1 > 1.txt")
    ws.agent("2a", "echo 2 > 2.txt")
    ws.agent("2b", "false; seq 9 > 2.txt")
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert (ws.at("main", "1.txt"), ws.at("main", "2.txt")) == ("1\n", "2\n")
    assert {one["lane"] for one in ws.events("chosen")} == {"1b", "2a"}
    assert ws.lane("1a")["state"] == "lost"
    kept = ws.git("for-each-ref", "--format=%(refname)", "refs/codex-self-iter/lanes").split()
    assert {one.rpartition("/")[2] for one in kept} == {"1a", "2b"}
    assert ws.git("show", f"{ws.ref('1a')}:1.txt").count("\n") == 50
    assert not any(ws.trees.glob("*/*"))


def test_squash_author_and_message_are_as_asked(make: Make) -> None:
    script = "for n in 1 2 3; do echo $n > one.$n; git add .; git commit -qm wip; done"
    ws = make(
        {"say $(touch x) 'it' `id`": script, "second": ""},
        squash=True, author="Lane Lander <lane@example.invalid>",
        message="{title}\n\nitem {number} by lane {lane}",
    )  # fmt: skip
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    commit = next(one["commit"] for one in ws.events("landed") if one["lane"] == "1")
    shown = ws.git("log", "-1", "--format=%an <%ae>%n%P%n%B", commit).splitlines()
    assert shown[0] == "Lane Lander <lane@example.invalid>"
    assert len(shown[1].split()) == 1
    assert shown[2:5] == ["say $(touch x) 'it' `id`", "", "item 1 by lane 1"]
    assert ws.contents(commit) >= {"one.1", "one.2", "one.3"}
    assert "wip" not in ws.git("log", "--format=%s", "main")


def test_signing_that_fails_is_said_and_nothing_lands_unsigned(make: Make) -> None:
    ws = make({"first": "", "second": ""}, git__commit="agent")
    for number in (1, 2):
        ws.agent(
            number,
            f"echo {number} > {number}.txt; git add .; git -c commit.gpgSign=false commit -qm x",
        )
    ws.git("config", "commit.gpgSign", "true")
    ws.git("config", "gpg.program", "false")
    process = ws.start_lanes()
    wait_until(lambda: "landing.delayed" in ws.log(), lambda: f"it to be said {ws.log()[-3000:]}")
    assert ws.events("landed") == []
    assert "1.txt" not in ws.contents("main")
    ws.git("config", "commit.gpgSign", "false")  # mended meanwhile: it is tried again
    assert ws.ended(process) == 0, ws.log()[-3000:]
    assert ws.contents("main") >= {"1.txt", "2.txt"}


def test_what_landed_just_before_a_kill_has_landed_also_when_a_person_went_on(make: Make) -> None:
    """The target was moved, the supervisor killed before it could say so, and a commit came on top:
    the lane is not one whose item was ticked by somebody else."""
    ws = make({"first": "", "second": ""})
    onto = ws.git("rev-parse", "HEAD").strip()
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    first, last = ws.events("landed")
    known = ws.known
    for lane in known["lanes"]:
        if lane["id"] == last["lane"]:
            lane |= {"state": "landing", "landed": ""}
            known["settled"].remove(lane["item"])
    known["landing"] = {"lanes": [last["lane"]], "onto": first["commit"], "commit": last["commit"]}
    (ws.state / "lanes.json").write_text(json.dumps(known))
    ws.git("commit", "-q", "--allow-empty", "-m", "mine")
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert ws.lane(last["lane"])["state"] == "landed"
    assert ws.git("rev-list", "--merges", f"{onto}..main").count("\n") == 2


def test_the_work_tree_of_landings_is_there_before_and_clean_each_time(make: Make) -> None:
    """Each gate finds nothing of the last one, but for what git ignores."""
    wait = 'until test -e "$(git rev-parse --show-toplevel)/../landing/.git"; do sleep 0.05; done; '
    leaves = "test ! -e left.txt && touch left.txt && echo once >> kept.ignored"
    gate = f'if {IN_LANDING}; then {leaves} && cp kept.ignored "$LANE_AGENT/kept"; fi'
    ws = make({f"item {n}": f"{wait}echo {n} > {n}.txt" for n in (1, 2, 3)}, gates=[gate])
    (ws.path / ".gitignore").write_text("*.ignored\n")
    ws.git("add", ".gitignore")
    ws.git("commit", "-q", "-m", "ignored")
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert ws.events("returned") == []
    assert (ws.agents / "kept").read_text().split() == ["once"] * 3
