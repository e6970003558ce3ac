"""The whole way of lanes, from outside: items at once, landed one after the other."""

from __future__ import annotations

import json

from tests.lanes.conftest import Make
from tests.support.harness import wait_until


def test_items_are_worked_on_at_once_and_land_one_after_the_other(make: Make) -> None:
    wait = 'while [ "$(ls "$LANE_AGENT" | grep -c runs)" -lt 2 ]; do sleep 0.05; done; '
    ws = make({"first": wait + "echo 1 > 1.txt", "second": wait + "echo 2 > 2.txt"})
    assert ws.run_lanes() == 0
    assert ws.contents() >= {"1.txt", "2.txt"}
    assert ws.git("status", "--porcelain") == ""
    assert (ws.path / "plan.md").read_text().count("[x]") == 2
    assert len(ws.git("log", "--first-parent", "--merges", "--format=%s").splitlines()) == 2
    assert ws.git("worktree", "list").count("\n") == 1
    assert not any(ws.trees.glob("*/*"))
    for name in ("lanes.json", "logs/lanes.jsonl", "lanes/1/state/status.json"):
        assert (ws.state / name).is_file()
    assert ws.status()["config"] == str(ws.file)


def test_a_set_up_may_take_its_time(make: Make) -> None:
    ws = make(
        {"first": "cat ready > 1.txt", "second": "cat ready > 2.txt"},
        setup=[
            "sleep 0.3; echo ready > ready; echo ready >> .git/info/exclude 2>/dev/null || true"
        ],
        setup_timeout_sec=0,
        gates=["test -e ready"],
    )
    (ws.path / ".git" / "info" / "exclude").write_text("ready\n")
    assert ws.run_lanes() == 0, ws.log()[-2000:]
    assert ws.at("main", "1.txt") == "ready\n"


def test_an_item_waits_for_those_it_comes_after(make: Make) -> None:
    ws = make(
        {
            "first": "",
            "second (after: 1)": "cat 1.txt > 2.txt",
            "third (after: 1, 2)": "cat 2.txt > 3.txt",
        }
    )
    assert ws.run_lanes() == 0
    assert ws.at("main", "3.txt") == "1\n"


def test_a_conflict_goes_back_to_the_lane_with_both_sides(make: Make) -> None:
    ws = make(
        {
            "say hello": 'echo hello > said.txt; until grep -q 2 "$LANE_AGENT/../done" 2>/dev/null; '
            "do sleep 0.05; done",
            "say goodbye": "echo goodbye > said.txt",
        }
    )
    ws.agent("1.2", "printf 'hello\\ngoodbye\\n' > said.txt")
    process = ws.start_lanes()
    wait_until(lambda: ws.events("landed"), "the first to land")
    (ws.control / "done").write_text("2\n")
    assert ws.ended(process) == 0
    assert ws.at("main", "said.txt") == "hello\ngoodbye\n"
    (back,) = ws.events("returned")
    assert (back["lane"], back["kind"]) == ("1", "conflict")
    prompt = ws.seen("1")[-1]
    for word in ("said.txt", "say hello", "say goodbye", "+goodbye", "<<<<<<<"):
        assert word in prompt
    assert "<<<<<<<" not in ws.at("main", "said.txt")


def test_what_a_lane_that_is_over_had_is_kept_as_long_as_checkpoints_are(make: Make) -> None:
    ws = make({"first": "seq 3 > 1.txt"}, max=2, candidates=2)
    ws.agent("1b", "echo 1 > 1.txt")
    assert ws.run_lanes() == 0
    refs = "refs/codex-self-iter/lanes/"
    assert ws.git("for-each-ref", "--format=%(refname)", refs).split() == [ws.ref("1a")]
    assert ws.run_lanes() == 0
    assert ws.git("for-each-ref", refs)
    known = ws.known
    for lane in known["lanes"]:
        lane["since"] -= 31 * 86_400
    (ws.state / "lanes.json").write_text(json.dumps(known))
    assert ws.run_lanes() == 0
    assert ws.git("for-each-ref", refs) == ""


def test_commits_that_an_agent_took_back_are_kept(make: Make) -> None:
    took_back = (
        'echo draft > 1.txt; git add .; git commit -qm draft; git rev-parse HEAD > "$LANE_AGENT/draft"; '
        "echo done > 1.txt; git commit -qa --amend -m done; "
        'echo no > no.txt; git add .; git commit -qm no; git rev-parse HEAD >> "$LANE_AGENT/draft"; '
        "git reset -q --hard HEAD~1"
    )
    ws = make({"first": took_back, "second": ""})
    assert ws.run_lanes() == 0
    gone = (ws.agents / "draft").read_text().split()
    assert len(gone) == 2
    assert set(gone) <= set(ws.git("rev-list", "--all").split())
    assert not ws.contents() & {"no.txt"}


def test_what_an_agent_stashes_lies_on_top_of_the_stash_of_the_person(make: Make) -> None:
    ws = make({"first": "echo no > no.txt; git stash -q -u; echo 1 > 1.txt"}, max=2)
    (ws.path / "mine.txt").write_text("mine\n")
    ws.git("stash", "push", "-q", "-u", "-m", "mine")
    assert ws.run_lanes() == 0
    assert "do not use `git stash`" in ws.seen("1")[0]
    newest, own = ws.git("stash", "list", "--format=%gs").splitlines()
    assert "no branch" in newest
    assert own.endswith("mine")
