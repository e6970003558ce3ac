"""A person edits the plan while lanes work on it and land."""

from __future__ import annotations

import subprocess

from tests.lanes.conftest import Make
from tests.lanes.faults.judged import IN_LANDING
from tests.support.harness import wait_until
from tests.support.lanes import LaneWorkspace

NEEDS_HUMAN = 4
HOLD = 'until test -e "$LANE_AGENT/go.{0}"; do sleep 0.05; done; echo {0} > {0}.txt'


def edit(ws: LaneWorkspace, old: str, new: str) -> None:
    text = (ws.path / "plan.md").read_text()
    assert old in text
    (ws.path / "plan.md").write_text(text.replace(old, new))


def go(ws: LaneWorkspace, number: int) -> None:
    (ws.agents / f"go.{number}").touch()


def begun(ws: LaneWorkspace, count: int) -> None:
    wait_until(lambda: len(list(ws.agents.glob("runs.*"))) >= count, "the agents to begin")


def landed(ws: LaneWorkspace, lane: str) -> None:
    wait_until(
        lambda: any(one["lane"] == lane for one in ws.events("landed")),
        lambda: f"lane {lane} to land\n{ws.log()[-3000:]}",
    )


def test_a_plan_with_edits_that_are_not_committed_holds_nothing_up(make: Make) -> None:
    ws = make({"first": HOLD.format(1), "second": HOLD.format(2)})
    process = ws.start_lanes()
    begun(ws, 2)
    edit(ws, "# Plan", "# Plan\n\nA thought of mine, not committed.")
    edit(ws, "second", "second\n  with a word more")
    go(ws, 1)
    go(ws, 2)
    assert ws.ended(process) == 0, ws.log()[-3000:]
    text = (ws.path / "plan.md").read_text()
    assert text.count("[x]") == 2
    assert "A thought of mine" in text
    assert "with a word more" in text
    assert ws.at("main", "plan.md") == "# Plan\n\n- [x] first\n- [x] second\n"
    diff = ws.git("diff", "--numstat").split()
    assert diff == ["3", "0", "plan.md"]  # the person's lines, and no ticks
    assert (ws.path / "1.txt").exists()
    assert (ws.path / "2.txt").exists()
    # the control: git alone would have refused
    ws.git("reset", "-q", "--soft", "HEAD")
    done = subprocess.run(
        ["git", "checkout", "-q", "HEAD~1"], cwd=ws.path, capture_output=True, check=False
    )
    assert done.returncode != 0


def test_a_plan_with_staged_edits_is_waited_for(make: Make) -> None:
    ws = make({"first": "", "second": ""})
    edit(ws, "# Plan", "# Plan of mine")
    ws.git("add", "plan.md")
    index = (ws.path / ".git" / "index").read_bytes()
    assert ws.run_lanes() == NEEDS_HUMAN
    assert (ws.path / ".git" / "index").read_bytes() == index
    assert (ws.path / "plan.md").read_text().startswith("# Plan of mine")
    assert "plan.md" in ws.status()["reason"]


def test_a_plan_that_git_does_not_have_is_ticked_in_its_file(make: Make) -> None:
    ws = make({"first": "", "second": ""})
    ws.without_plan()
    ws.plan("# Mine\n\n- [ ] first\n  - [ ] a part\n- [ ] second\n")
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert (ws.path / "plan.md").read_text() == (
        "# Mine\n\n- [x] first\n  - [x] a part\n- [x] second\n"
    )
    assert "plan.md" not in ws.contents("main")


def test_items_that_are_reworded_removed_added_and_ticked_by_hand(make: Make) -> None:
    ws = make({str(n): HOLD.format(n) for n in (1, 2, 3)}, max=4)
    ws.plan("# Plan\n\n- [ ] reworded soon\n- [ ] removed soon\n- [ ] ticked soon\n")
    ws.git("commit", "-q", "-am", "items with words")
    ws.agent(4, "echo 4 > 4.txt")
    process = ws.start_lanes()
    begun(ws, 3)
    ws.plan("# Plan\n\n- [ ] in other words\n- [x] ticked soon\n- [ ] added\n- [ ] more\n")
    ws.git("commit", "-q", "-am", "edited")
    ws.agent("3-2", "echo 3b > 3b.txt")
    landed(ws, "4")
    for number in (1, 2, 3):
        go(ws, number)
    assert ws.ended(process) == 0, ws.log()[-3000:]
    assert ws.contents("main") >= {"1.txt", "3b.txt", "4.txt"}
    assert {"2.txt", "3.txt"}.isdisjoint(ws.contents("main"))
    for lane, word in (("2", "taken out of the plan"), ("3", "ticked by somebody else")):
        assert ws.lane(lane)["state"] == "kept"
        assert word in ws.lane(lane)["why"]
        assert "by somebody" in ws.lane(lane)["why"] or "taken out" in ws.lane(lane)["why"]
    assert ws.at("main", "plan.md") == (
        "# Plan\n\n- [x] in other words\n- [x] ticked soon\n- [x] added\n- [x] more\n"
    )
    assert ws.lost() == set()


def test_an_item_that_is_edited_when_its_lane_waits_to_land_is_done_as_it_says_now(
    make: Make,
) -> None:
    """The first lane's landing takes until the gates may go on; meanwhile the second is ready."""
    ws = make(
        {"first": "", "second": 'until test -e "$LANE_AGENT/lands"; do sleep 0.05; done; echo 2 > 2.txt'},
        gates=[(f'if {IN_LANDING}; then touch "$LANE_AGENT/lands"; until test -e "$LANE_AGENT/gate"; '
               "do sleep 0.05; done; fi")],
    )  # fmt: skip
    ws.agent("2.2", "echo two > 2.txt")
    process = ws.start_lanes()
    wait_until(
        lambda: ws.lane(2).get("state") == "ready" or process.poll() is not None,
        lambda: f"lane 2 to be ready\n{ws.log()[-3000:]}",
    )
    edit(ws, "second", "second, in a word")
    wait_until(lambda: len(ws.seen(2)) == 2, "its agent to hear")
    (ws.agents / "gate").touch()
    assert ws.ended(process) == 0, ws.log()[-3000:]
    assert "second, in a word" in ws.seen(2)[1]
    assert ws.at("main", "2.txt") == "two\n"
    assert "- [x] second, in a word" in (ws.path / "plan.md").read_text()


def test_notes_that_two_lanes_write_keep_both(make: Make) -> None:
    """One notes file, two lanes: the second to land has both in a conflict, and the plan itself,
    which both tick, is never one."""
    tick = "sed -i 's/\\[ \\]/[x]/' plan.md; "
    ws = make(
        {
            "first": tick + 'echo "- learned 1" >> notes.md; ' + HOLD.format(1),
            "second": tick + 'echo "- learned 2" >> notes.md; ' + HOLD.format(2),
        }
    )
    for lane in (1, 2):
        ws.agent(f"{lane}.2", "sed -i '/^[<=>|]\\{7\\}/d' notes.md")
        go(ws, lane)
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    assert sorted(ws.at("main", "notes.md").splitlines()) == ["- learned 1", "- learned 2"]
    assert [one["kind"] for one in ws.events("returned")] == ["conflict"]
    assert ws.at("main", "plan.md") == "# Plan\n\n- [x] first\n- [x] second\n"
    # the control: each had the file for itself, and one over the other loses a line
    commits = ws.git("rev-list", "--all", "--", "notes.md").split()
    alone = {ws.at(one, "notes.md") for one in commits}
    assert {"- learned 1\n", "- learned 2\n"} & alone
