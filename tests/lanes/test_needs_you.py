"""Lanes that do not go on without a person, and what all of them share."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.lanes.conftest import Make

ASKS = '{"summary": "s", "next_goal": "n", "stop": true, "reason": "which one?", "evidence": ""}'


def test_a_lane_that_asks_needs_you_and_the_others_land(make: Make) -> None:
    ws = make({"one": f"answer='{ASKS}'", "two": "echo 2 > 2.txt"}, max=2)
    assert ws.run_lanes() == 4
    assert ws.contents() >= {"2.txt"}
    lane = ws.lane("1")
    assert (lane["state"], ws.lane("2")["state"]) == ("needs you", "landed")
    assert "which one?" in lane["why"]
    assert "lane 1 needs you: " in ws.cli("status").stdout
    shown = ws.cli("lanes", "show", "1").stdout
    assert f"cd {lane['place']} && git status" in shown or f"cd '{lane['place']}'" in shown
    assert "codex-self-iter lanes show LANE" in ws.cli("history").stdout
    report = (ws.state / "report.md").read_text()
    assert "- 1. one: lane 1 needs you (" in report
    assert "- 2. two: lane 2, " in report


def test_work_comes_back_no_more_often_than_it_may(make: Make) -> None:
    both = "test ! -e 1.txt -o ! -e 2.txt"  # each is green alone
    ws = make({"one": "", "two": ""}, gates=[both], max=2, max_conflicts=0)
    assert ws.run_lanes() == 4
    assert ws.events("returned") == []
    states = {one["state"] for one in ws.known["lanes"]}
    assert states == {"landed", "needs you"}
    (asked,) = ws.events("needs_you")
    assert "the gates are red where its work meets the target" in asked["why"]


def test_a_budget_that_is_spent_is_spent_for_all_lanes(make: Make) -> None:
    words = {"one": "sleep 1", "two": "sleep 1", "three (after: 1)": ""}
    ws = make(words, max=2, budget__max_hours=0.0002)
    assert ws.run_lanes() == 4
    assert ws.lane("3") == {}
    status = json.loads(ws.cli("status", "--json").stdout)
    assert "budget" in status["reason"] or "max_hours" in status["reason"], status["reason"]


def test_each_lane_has_the_iterations_of_one_start_and_the_next_start_goes_on(make: Make) -> None:
    more = '{"summary": "s", "next_goal": "n", "stop": false, "reason": "", "evidence": ""}'
    ws = make({"one": f"echo 1 > 1.txt; answer='{more}'", "two": "", "three": ""}, max=2)
    ws.agent("1.2", "echo 1 > more.txt")
    assert ws.run_lanes("--once") == 0
    assert not ws.events("needs_you")
    assert (ws.lane("1")["state"], ws.lane("2")["state"]) == ("working", "landed")
    told = ws.cli("lanes").stdout
    assert "1 open" in ws.cli("status").stdout
    assert "iteration limit reached (1): it goes on at" in told
    assert "the next start goes on with lane 1" in ws.cli("status").stdout.replace(
        "\n" + " " * 13, " "
    )
    assert ws.run_lanes() == 0
    assert ws.contents() >= {"1.txt", "more.txt", "2.txt", "3.txt"}


def test_what_a_person_has_mended_lands(make: Make) -> None:
    """An agent that works off its own plan finds nothing left to do in it."""
    both = "test ! -e 1.txt -o ! -e 2.txt -o -e both.txt"
    ws = make({"one": "", "two": ""}, gates=[both], max=2, max_conflicts=1)
    assert ws.run_lanes() == 4
    (asked,) = ws.events("needs_you")
    place = Path(ws.lane(asked["lane"])["place"])
    plan = place / ".codex-self-iter" / "plan.md"
    assert "- [ ] Make the gates green" in plan.read_text()
    (place / "both.txt").touch()
    for args in (["add", "both.txt"], ["commit", "-qm", "mended"]):
        subprocess.run(["git", *args], cwd=place, env=ws.environment, check=True)
    ws.agent(asked["lane"], f'cp .codex-self-iter/plan.md "{ws.control}/plan"')
    assert ws.cli("lanes", "retry", asked["lane"]).returncode == 0
    assert ws.run_lanes() == 0
    assert "- [x] Make the gates green" in (ws.control / "plan").read_text()
    assert ws.contents() >= {"1.txt", "2.txt", "both.txt"}


def test_a_start_without_lanes_says_that_some_hold_work(make: Make) -> None:
    ws = make({"one": "true", "two": ""}, max=2)
    assert ws.run_lanes() == 4
    ws.file.write_text(ws.file.read_text().replace("max = 2", "max = 1"))
    (ws.state / "STOP").touch()
    assert ws.run_lanes() == 0
    said = "lanes of an earlier start hold work on 1 item"
    assert any(said in text for text in ws.status()["warnings"])


def test_a_task_in_words_has_no_items_yet(make: Make) -> None:
    ws = make(["one"])
    ws.without_plan()
    done = ws.cli("run", "--config", str(ws.file), "Make all tests pass")
    assert done.returncode == 2
    assert 'codex-self-iter plan "' in done.stderr
    assert not ws.state.exists()
