"""`lanes`: the table, one lane, and what is asked of lanes, with and without a supervisor."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.core.lane_items import items
from codex_self_iter.core.lanes import Landing, Lane, Lanes, LaneState, Wish, to_json
from codex_self_iter.views.lane_rows import ref
from codex_self_iter.world.state.lane_files import read_wishes
from codex_self_iter.world.state.root import StateRoot
from tests.cli.conftest import Command

PLAN = "".join(f"- [ ] Item {number}\n" for number in range(1, 7))
SINCE = 1_700_000_000.0


def lane(which: str, state: LaneState, **more: Any) -> Lane:
    number = int(which[0])
    fields = {"item": f"Item {number}", "title": f"Item {number}", "body": f"- [ ] Item {number}"}
    return Lane(id=which, number=number, state=state, since=SINCE, **(fields | more))


STATE = Lanes(
    target="refs/heads/main",
    items=items(PLAN),
    lanes=(
        lane("1", LaneState.LANDED, landed="a" * 40),
        lane("2", LaneState.WORKING, place="/trees/2"),
        lane("3", LaneState.LANDING, place="/trees/3"),
        lane("4", LaneState.NEEDS_YOU, why="its loop has stagnated", place="/trees/4"),
        lane("5", LaneState.DROPPED),
    ),
    landing=Landing(("3",)),
    settled=("Item 1",),
)


def write(command: Command, state: Lanes = STATE) -> None:
    """The files of a loop with lanes."""
    command.state_dir.mkdir(exist_ok=True)
    (command.state_dir / "lanes.json").write_text(json.dumps(to_json(state)))


def own_loop(command: Command, which: str, goal: str, *records: dict[str, Any]) -> None:
    """The files of a lane's own loop."""
    state_dir = command.state_dir / "lanes" / which / "state"
    (state_dir / "logs").mkdir(parents=True)
    (state_dir / "status.json").write_text(json.dumps({"schema": 1, "goal": goal}))
    lines = [json.dumps({"iteration": n, **one}) for n, one in enumerate(records, 1)]
    (state_dir / "logs/iterations.jsonl").write_text("".join(f"{line}\n" for line in lines))


def wishes(command: Command) -> list[tuple[Wish, str]]:
    root = StateRoot(str(command.state_dir))
    try:
        return [(wish, which) for _, wish, which in read_wishes(root)]
    finally:
        root.close()


GATE = {"command": "pytest -q", "ok": True, "exit_code": 0, "duration_sec": 1.0}


def test_the_table_says_who_works_on_what(command: Command) -> None:
    write(command)
    red = GATE | {"ok": False, "exit_code": 1}
    own_loop(command, "2", "Write the lexer", {"gates": [GATE]}, {"gates": [GATE, red]})
    own_loop(command, "3", "", {"gates": [GATE]})
    done = command("lanes")
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["LANE", "STATE", "SINCE", "GATES", "ITEM", "NEXT", "WORK", "TREE"]
    assert [line.split()[0] for line in lines] == ["2", "3", "4"]
    assert "red: pytest -q exited with code 1" in lines[0]
    assert "it goes on at the next start" in lines[0]
    assert lines[0].endswith("/trees/2")
    assert "green" in lines[1]
    assert "needs you" in lines[2]
    assert "codex-self-iter lanes show 4" in lines[2]


def test_all_lanes_are_those_that_are_over_too(command: Command) -> None:
    write(command)
    lines = command("lanes", "--all").stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4", "5"]
    assert "landed as aaaaaaaaaaaa" in lines[0]


def test_while_a_supervisor_lives_it_says_what_each_does(command: Command) -> None:
    write(command)
    own_loop(command, "2", "Write the lexer")
    command.write_status()
    assert "Write the lexer" in command("lanes").stdout.splitlines()[1]


def test_programs_get_all_fields(command: Command) -> None:
    write(command, dataclasses.replace(STATE, held="main has changes"))
    found = json.loads(command("lanes", "--json", "--all").stdout)
    assert (found["schema"], found["target"], found["left"]) == (1, "refs/heads/main", 5)
    assert (found["landing"], found["held"]) == (["3"], "main has changes")
    fourth = found["lanes"][3]
    assert fourth["ref"] == ref("4", fourth["state_dir"].removesuffix("/lanes/4/state"))
    assert fourth["state_dir"].endswith(".codex-self-iter/lanes/4/state")
    assert (fourth["state"], fourth["why"]) == ("needs you", "its loop has stagnated")
    told = command("lanes").stdout
    assert "What has landed is held back: main has changes" in told


def test_nothing_open_is_said(command: Command) -> None:
    write(command, dataclasses.replace(STATE, lanes=STATE.lanes[:1], landing=None))
    assert "No lane is open; items left: 5" in command("lanes").stdout
    write(command, Lanes())
    assert command("lanes", "--all").stdout == "No lane has been begun yet.\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "has no lanes"),
        ("{torn", "cannot be read as JSON"),
        ('{"schema": 9}', "it is of form 9, known is 1"),
        ('{"schema": 1, "lanes": [{"state": "odd"}]}', "'odd' is not a valid LaneState"),
    ],
)
def test_what_cannot_be_read_is_one_line(command: Command, content: str | None, words: str) -> None:
    command.state_dir.mkdir()
    if content is not None:
        (command.state_dir / "lanes.json").write_text(content)
    for more in ([], ["show", "1"], ["keep", "1"]):
        done = command("lanes", *more)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["keep", "9"], "there is no lane '9'; there are: 1, 2, 3, 4, 5"),
        (["show", "../4"], "there is no lane '../4'; there are: 1, 2, 3, 4, 5"),
        (["keep", "2", "9"], "there is no lane '9'"),
        (["keep"], "name the lanes to keep"),
        (["show"], "expected one lane after 'lanes show', not 0"),
        (["show", "1", "2"], "expected one lane after 'lanes show', not 2"),
        (["drpo", "1"], "(did you mean 'drop'?)"),
        (["3"], "expected keep, drop, retry, show after 'lanes', not '3'"),
        (["retry", "2"], "lane 2 is working: only one that needs you, was kept, dropped or lost"),
        (["keep", "1"], "lane 1 is landed: only one that is open can be kept"),
        (["keep", "2", "--json"], "--json does nothing without"),
        (["show", "2", "--all"], "--all does nothing without"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_leaves_nothing(
    command: Command, words: list[str], expected: str
) -> None:
    write(command)
    done = command("lanes", *words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert not (command.state_dir / "lanes").exists()


def test_a_wish_is_left_for_the_supervisor(command: Command) -> None:
    write(command)
    command.write_status()
    done = command("lanes", "drop", "2", "3", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert wishes(command) == [(Wish.DROP, "2"), (Wish.DROP, "3")]
    assert done.stdout.startswith("Asked. The supervisor of my repo (pid ")
    assert "ends lanes 2, 3 and removes the work tree" in done.stdout


def test_without_a_supervisor_the_next_start_does_it(command: Command) -> None:
    write(command)
    done = command("lanes", "retry", "4")
    assert wishes(command) == [(Wish.RETRY, "4")]
    expected = "No supervisor of my repo is running: the next start begins lane 4 again."
    assert expected in done.stdout


def test_a_loop_can_be_named(make_command: Any) -> None:
    one, other = make_command("one"), make_command("other")
    write(one)
    by_option = other("lanes", "--workspace", str(one.workspace))
    assert "codex-self-iter lanes show 4" in by_option.stdout
    other("lanes", "keep", "2", "--workspace", str(one.workspace))
    assert wishes(one) == [(Wish.KEEP, "2")]


def git(where: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(where), "-c", "user.name=N", "-c", "user.email=n@example.invalid", *words],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_one_lane_with_its_commits_and_the_commands_that_go_on(
    command: Command, tmp_path: Path
) -> None:
    here, tree = command.workspace, tmp_path / "trees" / "4"
    git(here, "init", "-q", "-b", "main")
    git(here, "add", ".")
    git(here, "commit", "-qm", "First")
    git(here, "worktree", "add", "-q", "--detach", str(tree))
    (tree / "lexer.py").write_text("x = 1\n")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "Add the lexer")
    (here / "other.py").write_text("y = 2\n")
    git(here, "add", ".")
    git(here, "commit", "-qm", "Of somebody else")
    git(tree, "-c", "core.editor=true", "merge", "-q", "main")
    fourth = dataclasses.replace(
        STATE.lanes[3], place=str(tree), base=git(here, "rev-parse", "main~")
    )
    write(command, dataclasses.replace(STATE, lanes=(*STATE.lanes[:3], fourth)))
    own_loop(command, "4", "", {"verdict": "continue", "summary": "Added the lexer", "gates": []})
    (command.state_dir / "logs").mkdir()
    event = {"ts": "2027-01-15T07:20:00Z", "event": "returned", "lane": "4", "kind": "conflict",
             "text": "lexer.py"}  # fmt: skip
    both = [{"lane": "4", "state": "ready", "size": 1}, {"lane": "4b", "state": "ready", "size": 9}]
    chosen = {"event": "chosen", "lane": "4", "candidates": both}
    events = "".join(f"{json.dumps(one)}\n" for one in (event, chosen))
    (command.state_dir / "logs/lanes.jsonl").write_text(f"{{torn\n{events}")
    text = command("lanes", "show", "4").stdout
    assert "needs you, since" in text
    assert "it conflicts with the target: lexer.py" in text
    assert "lane 4b: ready, 9 lines changed" in text
    assert "Add the lexer" in text
    assert "lexer.py | 1 +" in text
    assert "Of somebody else" not in text  # that it was given of the target is none of its work
    assert "#1 continue: Added the lexer" in text
    assert f"cd {tree} && git status" in text
    assert "git merge main" in text
    assert f"codex-self-iter lanes retry 4 --workspace '{here}'" in text
    found = json.loads(command("lanes", "show", "4", "--json").stdout)
    assert found["body"] == "- [ ] Item 4"
    assert len(found["told"]["to_mend_it"]) == 3


def test_without_git_all_else_is_shown(command: Command) -> None:
    write(command)
    done = command("lanes", "show", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "a" * 40 in done.stdout
    assert "commits" not in done.stdout


def test_the_status_has_a_line_and_the_command_that_helps(command: Command) -> None:
    from tests.support.shown_loops import lanes

    command.write_status(lanes=lanes(why="its loop has stagnated"))
    text = command("status").stdout
    assert "lanes      1 at work, 1 landing, 2 landed, 7 left; lane 5 needs you: " in text
    assert "codex-self-iter lanes show 5   (what it needs)" in text
    command.write_status(lanes=None)
    assert "lanes " not in command("status").stdout
