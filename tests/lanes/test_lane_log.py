"""What the log says of lanes: each line as docs/log-events.md has it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from typing import Any

import pytest

from tests.claims.scenes import json_lines
from tests.claims.test_log_events_page import problem
from tests.lanes.conftest import Make
from tests.lanes.faults.judged import IN_LANDING
from tests.support.harness import wait_until
from tests.support.lanes import LaneWorkspace


def lines(ws: LaneWorkspace, events: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """The lines of these events; all about lanes are as the page says."""
    found: dict[str, list[dict[str, Any]]] = {event: [] for event in events}
    for line in json_lines(ws.state / "logs" / "supervisor.log"):
        if line["event"].startswith(("lane.", "landing.")):
            assert problem(line, many=False) == ""
        if line["event"] in found:
            found[line["event"]].append(line)
    assert all(found.values()), {event for event, seen in found.items() if not seen}
    return found


def test_a_plan_from_its_start_to_its_end(make: Make) -> None:
    """While the third lands the first two become ready, which are red together."""
    slow = f'if {IN_LANDING} && test ! -e 1.txt; then until test -e "$LANE_AGENT/go"; do sleep 0.05; done; fi'
    gate = f"{slow}; test ! -e 1.txt -o ! -e 2.txt -o -e both.txt"
    ws = make(
        {"first": "", "second": "", "third": "", "nothing": "true"}, gates=[gate], batch=2, max=4
    )
    for number in (1, 2):
        hold = 'until test -e "$LANE_AGENT/landing"; do sleep 0.05; done; '
        ws.agent(number, hold + f"echo {number} > {number}.txt")
        ws.agent(f"{number}.2", "touch both.txt")
    process = ws.start_lanes()
    wait_until(lambda: ws.lane(3).get("state") == "landing", "the third to land")
    (ws.agents / "landing").touch()
    wait_until(lambda: len(ws.events("ready")) == 3, "the others to be ready")
    (ws.agents / "go").touch()
    assert ws.ended(process) == 4
    said = lines(
        ws,
        [
            "lane.made", "lane.begun", "lane.ready", "landing.started", "landing.halved", "lane.landed",
            "lane.returned", "lane.needs_you",
        ],
    )  # fmt: skip
    assert [line["lane"] for line in said["lane.needs_you"]] == ["4"]
    assert {line["kind"] for line in said["lane.returned"]} == {"red", "unchanged"}
    assert len(said["lane.landed"]) == 3


def test_what_a_person_asks(make: Make) -> None:
    go = 'while [ ! -e "$LANE_AGENT/go" ]; do sleep 0.05; done; '
    ws = make({"first": go + "echo 1 > 1.txt", "second": "true"})
    process = ws.start_lanes()
    wait_until(lambda: ws.lane(2).get("state") == "needs you", "the second to rest")
    assert ws.cli("lanes", "keep", "2").returncode == 0
    wait_until(lambda: ws.lane(2).get("state") == "kept", "it to be kept")
    assert ws.cli("lanes", "drop", "2").returncode == 0
    wait_until(lambda: ws.lane(2).get("state") == "dropped", "it to be dropped")
    (ws.state / "lanes" / "asked" / "x.json").write_text('{"wish": "keep", "lane": "7"}')
    wait_until(lambda: "lane.refused" in ws.log(), "the refusal")
    assert ws.cli("lanes", "retry", "2").returncode == 0
    wait_until(lambda: ws.events("retried"), "another try")
    (ws.agents / "go").touch()
    assert ws.ended(process) == 4
    lines(ws, ["lane.asked", "lane.kept", "lane.dropped", "lane.refused", "lane.retried"])


def test_of_candidates_the_smallest_is_chosen(make: Make) -> None:
    ws = make({"first": "seq 3 > 1.txt"}, max=2, candidates=2)
    ws.agent("1b", "echo 1 > 1.txt")
    assert ws.run_lanes() == 0
    said = lines(ws, ["lane.chosen", "lane.lost"])
    assert [(line["lane"], len(line["candidates"])) for line in said["lane.chosen"]] == [("1b", 2)]
    assert ws.at("main", "1.txt") == "1\n"


def test_what_fails_for_another_reason_than_the_work_is_tried_again(make: Make) -> None:
    """A file of somebody else is where refs of lanes would be; a filter of the repository fails."""
    ws = make(["first"])
    ws.git("config", "filter.full.smudge", 'test ! -e "$LANE_AGENT/full" && cat')
    ws.git("config", "filter.full.clean", "cat")
    ws.git("config", "filter.full.required", "true")
    (ws.path / ".gitattributes").write_text("*.txt filter=full\n")
    ws.git("add", "-A")
    ws.git("commit", "-q", "-m", "with a filter")
    full = ws.agents / "full"
    full.touch()
    refs = ws.path / ".git" / "refs" / "codex-self-iter" / "lanes"
    refs.parent.mkdir(parents=True)
    refs.write_text("mine\n")
    process = ws.start_lanes()
    wait_until(lambda: "lane.crashed" in ws.log(), "it to fail")
    refs.unlink()
    wait_until(lambda: "landing.delayed" in ws.log(), "it to fail to land")
    full.unlink()
    assert ws.ended(process) == 0
    lines(ws, ["lane.crashed", "landing.delayed"])
    assert "1.txt" in ws.contents()


REVIEWED = """#!/bin/sh
if grep -q "Say whose work is the best" "$1"; then
    cp "$1" "$LANE_AGENT/compared"
    {compared}
    exit
fi
[ "$CODEX_SELF_ITER_LANE" = 1a ] && seq 3 > 1.txt || echo 1 > 1.txt
echo '{{"objective": "o", "execution_prompt": "do it", "done_if": "d", "stop": false, "rationale": "r", "summary": "s",
"next_goal": "g", "reason": "r", "evidence": [], "completed": true, "continue": false, "verdict": "done"}}'
"""


@pytest.mark.parametrize(
    ("compared", "chosen"),
    [
        ("""echo '{"best": "1a", "reason": "it counts to three"}'""", "1a"),
        ("""echo '{"best": "7", "reason": "?"}'""", "1b"),
        ("exit 3", "1b"),
    ],
)
def test_where_there_is_a_reviewer_it_says_which_candidate_is_the_best(
    make: Make, compared: str, chosen: str
) -> None:
    """Without its answer it is the smallest, and that is said."""
    ws = make({"first": ""}, max=2, candidates=2)
    script = ws.control / "reviewed.sh"
    script.write_text(REVIEWED.format(compared=compared))
    text = ws.file.read_text().splitlines()
    command = json.dumps(f"sh {shlex.quote(str(script))} {{prompt_file}}")
    kept = [line for line in text if not line.startswith("agent_command_template")]
    ws.file.write_text("\n".join([f"agent_command_template = {command}", 'mode = "roles"', *kept]))
    assert ws.run_lanes() == 0, ws.log()[-3000:]
    said = lines(ws, ["lane.compared", "lane.chosen"])
    assert [line["lane"] for line in said["lane.chosen"]] == [chosen]
    prompt = (ws.agents / "compared").read_text()
    for word in ("first", "Lane 1a", "Lane 1b", "+3"):
        assert word in prompt
    warned = any("not compared by the reviewer" in one for one in ws.status()["warnings"])
    assert warned is (chosen == "1b")
    if chosen == "1a":
        assert ws.lane("1b")["why"].endswith("it counts to three")
