"""What is told of lanes: the field of `status.json`, and the texts that are made of it."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core.lane_items import items
from codex_self_iter.core.lane_machine import decide
from codex_self_iter.core.lanes import (
    OVER,
    RESTING,
    Asked,
    Landing,
    Lane,
    Lanes,
    LaneState,
    Rules,
    Wish,
)
from codex_self_iter.core.state import LoopState
from codex_self_iter.core.text import clean
from codex_self_iter.views.lane_rows import (
    About,
    of_lane,
    ref,
    row,
    rows,
    section,
    shown,
    summed,
    table,
    told,
    unfit,
)
from codex_self_iter.views.report import report

PLAN = "# Plan\n\n" + "".join(f"- [ ] Item {number}\n" for number in range(1, 8))


def lane(which: str, state: LaneState, **more: object) -> Lane:
    number = int(which.split("-")[0].rstrip("abc"))
    fields = {"item": f"Item {number}", "title": f"Item {number}", "body": f"- [ ] Item {number}"}
    return Lane(id=which, number=number, state=state, since=1_800_000_000.0, **(fields | more))  # type: ignore[arg-type]


STATE = Lanes(
    target="refs/heads/main",
    items=items(PLAN),
    lanes=(
        lane("4", LaneState.NEEDS_YOU, why="its loop has stagnated", place="/trees/4", returns=2),
        lane("2", LaneState.WORKING, place="/trees/2"),
        lane("1", LaneState.LANDED, landed="1" * 40),
        lane("3", LaneState.LANDING, place="/trees/3"),
        lane("5", LaneState.DROPPED),
    ),
    landing=Landing(("3",)),
    settled=("Item 1",),
)


def test_what_the_status_says_of_lanes() -> None:
    found = told(STATE, 4, "/state")
    assert json.loads(json.dumps(found)) == found
    assert {key: found[key] for key in ("most", "target", "held", "landing", "landed", "left")} == {
        "most": 4,
        "target": "refs/heads/main",
        "held": "",
        "landing": ["3"],
        "landed": 1,
        "left": 6,
    }
    assert [one["lane"] for one in found["lanes"]] == ["2", "3", "4"]  # those that are not over
    assert found["lanes"][-1] == {
        "lane": "4",
        "number": 4,
        "item": "Item 4",
        "state": "needs you",
        "since": "2027-01-15T08:00:00.000Z",
        "why": "its loop has stagnated",
        "place": "/trees/4",
        "state_dir": "/state/lanes/4/state",
        "returns": 2,
    }


def status(*lanes_of: Lane, **more: object) -> dict[str, object]:
    """A status with these lanes."""
    state = dataclasses.replace(STATE, lanes=lanes_of, **more)  # type: ignore[arg-type]
    return {"lanes": told(state, 4, "/state")}


def test_one_line_says_how_all_of_them_stand() -> None:
    many = (
        lane("1", LaneState.LANDED),
        lane("2", LaneState.WORKING),
        lane("3", LaneState.MAKING),
        lane("4", LaneState.NEEDS_YOU, why="its loop has stagnated"),
        lane("5", LaneState.READY),
        lane("6", LaneState.KEPT),
        lane("7", LaneState.DROPPED),
    )
    assert summed(status(*many)) == (
        "2 at work, 1 ready, 1 kept, 1 landed, 6 left; lane 4 needs you: its loop has stagnated"
    )
    assert summed(status()) == "6 left"
    assert summed(status(held="main has changes")) == (
        "6 left; what has landed is held back: main has changes"
    )
    assert summed({}) == summed({"lanes": None}) == ""


def test_of_many_that_need_a_person_some_are_told() -> None:
    many = (lane(str(number), LaneState.NEEDS_YOU, why="why") for number in range(1, 6))
    assert summed(status(*many)) == (
        "6 left; lane 1 needs you: why; lane 2 needs you: why; lane 3 needs you: why; "
        "2 more need you"
    )


def test_each_state_says_what_comes_next() -> None:
    ways = {
        LaneState.MAKING: "its work tree is made and set up",
        LaneState.WORKING: "Add the lexer",
        LaneState.READY: "waits for its turn to land",
        LaneState.LANDING: "the gates are run where it meets the target",
        LaneState.LANDED: "",
        LaneState.LOST: "lane 3b was smaller",
        LaneState.NEEDS_YOU: "codex-self-iter lanes show 3",
        LaneState.KEPT: "codex-self-iter lanes retry 3",
        LaneState.DROPPED: "codex-self-iter lanes retry 3",
    }
    assert set(ways) == set(LaneState)
    for state, expected in ways.items():
        why = "lane 3b was smaller" if state is LaneState.LOST else ""
        found = row(of_lane(lane("3", state, why=why), "/state"), goal="Add the lexer")
        assert (found.state, found.next) == (state.value, expected)
    asked = row(of_lane(lane("3", LaneState.WORKING, why="you asked to drop it"), "/state"))
    assert asked.next == "you asked to drop it"


def test_a_table_shows_a_command_whole_and_cuts_the_rest() -> None:
    long = row(of_lane(lane("3", LaneState.NEEDS_YOU, title="x" * 99), "/s"), where=" " + "w" * 80)
    lines = [text for text, _ in table([long], 1_800_000_060.0, 0)]
    assert lines[0].split("  ")[0] == "LANE"
    assert "w" * 80 in lines[1]
    assert "x" * 39 + "…" in lines[1]
    assert "1 m 00 s" in lines[1]
    assert [len(text) for text, _ in table([long], 0.0, 60)] == [60, 60]


NAMES = st.sampled_from(("lanes", "held", "lane", "state", "since", "why", "item", "landed"))


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
    )
)
def test_whatever_the_file_says_the_lines_are_clean(value: object) -> None:
    found = {"lanes": value}
    for text in (summed(found), *(text for one in rows(found) for text in one if one and text)):
        assert not isinstance(text, str) or text == clean(text)


EVENTS: list[dict[str, object]] = [
    {"ts": "2027-01-15T07:00:00Z", "event": "begun", "lane": "3a", "item": "Item 3"},
    {"ts": "2027-01-15T07:10:00Z", "event": "returned", "lane": "3b", "kind": "red", "text": "no"},
    {"ts": "2027-01-15T07:20:00Z", "event": "returned", "lane": "3a", "kind": "conflict",
     "text": "a.py conflicts", "times": 1},
    {"ts": "2027-01-15T07:30:00Z", "event": "chosen", "lane": "3a", "item": "Item 3",
     "candidates": [{"lane": "3a", "state": "ready", "size": 12, "why": ""},
                    {"lane": "3b", "state": "needs you", "size": 1, "why": "stuck"}]},
]  # fmt: skip


def one(which: str, state: LaneState, about: About, **more: object) -> dict[str, list[str]]:
    return dict(shown(lane(which, state, **more), about, 1_800_000_060.0))


def test_all_about_one_lane() -> None:
    about = About(
        events=EVENTS,
        iterations=[{"iteration": 2, "verdict": "continue", "summary": "Added it"}],
        goal="Add it",
        gates="red: pytest -q exited with code 1",
        commits="abc Add it",
        changes=" a.py | 2 +-",
        ref=ref("3a", "/srv/app/state"),
        target="main",
        where=" --workspace /srv/app",
    )
    found = one("3a", LaneState.NEEDS_YOU, about, why="it conflicts", place="/trees/3 a")
    assert found["why"] == ["it conflicts"]
    (came,) = found["came back"]
    assert came.endswith("it conflicts with the target: a.py conflicts")
    assert found["candidates"] == [
        "lane 3a was chosen: the smallest of those that were done",
        "lane 3a: ready, 12 lines changed",
        "lane 3b: needs you, 1 line changed (stuck)",
    ]
    assert found["commits"] == ["abc Add it"]
    assert found["changes"] == ["a.py | 2 +-"]
    assert found["its loop"] == ["#2 continue: Added it"]
    assert found["ref"] == ["refs/codex-self-iter/lanes/f57a2329/3a"]
    assert [line.partition("   ")[0] for line in found["to mend it"]] == [
        "cd '/trees/3 a' && git status",
        "git merge main",
        "codex-self-iter lanes retry 3a --workspace /srv/app",
    ]
    assert "goal" not in found  # its loop is not on


def test_who_needs_nobody_is_given_no_commands() -> None:
    found = one("3b", LaneState.WORKING, About(events=EVENTS, goal="Add it"))
    assert "to mend it" not in found
    assert found["goal"] == ["Add it"]
    assert len(found["candidates"]) == 3  # the loser is told, too
    assert "candidates" not in one("4", LaneState.WORKING, About(events=EVENTS))


def test_a_lane_without_a_work_tree_is_only_begun_again() -> None:
    found = one("4", LaneState.NEEDS_YOU, About(), why="no room")
    assert [line.partition("   ")[0] for line in found["to mend it"]] == [
        "codex-self-iter lanes retry 4"
    ]


@pytest.mark.parametrize("state", LaneState)
def test_a_wish_that_means_nothing_is_refused_as_the_scheduler_would(state: LaneState) -> None:
    """The scheduler changes nothing for exactly the wishes that are refused here."""
    over = ("Item 3",) if state is LaneState.LANDED else ()
    for wished in ("", "drop"):
        three = lane("3", state, wish=wished)
        start = dataclasses.replace(STATE, lanes=(three,), landing=None, settled=over, paused=True)
        for wish in Wish:
            after, commands = decide(start, Asked(wish, "3"), Rules(), 1.0)
            nothing = after == start and not commands
            if wished == wish.value or (wished and state in OVER | RESTING):
                continue  # asked already, or done
            assert bool(unfit(start, three, wish.value)) is nothing, (state, wished, wish)


def test_the_report_says_what_has_landed_and_what_is_left() -> None:
    state = dataclasses.replace(STATE, held="main has changes")
    text = section(state)
    landed, left = text.split("Left:")
    assert landed.startswith("Landed on main:\n\n- 1. Item 1: lane 1, 111111111111")
    assert "It has not reached main yet: main has changes" in landed
    assert "- 4. Item 4: lane 4 needs you (its loop has stagnated)" in left
    assert "- 6. Item 6: not begun" in left
    assert section(Lanes()) == "Landed:\n\nNothing.\n\nLeft:\n\nNothing."


def test_the_report_of_a_loop_has_that_section() -> None:
    loop = LoopState("x")
    with_lanes = report(loop, [], plan="", task="", times={}, lanes=section(STATE), now=0.0)
    assert "## Lanes\n\nLanded on main:" in with_lanes
    assert "## Lanes" not in report(loop, [], plan="", task="", times={}, now=0.0)


def test_without_a_supervisor_nothing_is_at_work() -> None:
    lane = {"lane": "1", "item": "x", "state": "working"}
    assert row(lane, goal="g").next == "g"
    assert row(lane, goal="g", alive=False).next == "it goes on at the next start"
    assert row({**lane, "why": "w"}, alive=False).next == "w"
    assert row({**lane, "state": "needs you"}, alive=False).next == "codex-self-iter lanes show 1"
    status: dict[str, object] = {"lanes": {"lanes": [lane], "left": 1}}
    assert summed(status) == "1 at work, 1 left"
    assert summed({**status, "exit": {"code": 0}}) == "1 open, 1 left"
