"""What the screens read: loops, a journal by position, outputs of any size; and they write nothing."""

from __future__ import annotations

import json
import os
import subprocess
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from codex_self_iter.screens import records, sources
from codex_self_iter.screens.loops import Target
from codex_self_iter.screens.outputs import WINDOW, Output, page, rendered
from codex_self_iter.views.rows import Urgency
from codex_self_iter.views.troubles import troubles
from codex_self_iter.world import registry
from codex_self_iter.world.state import inbox
from codex_self_iter.world.state.journal import Journal
from codex_self_iter.world.state.root import StateRoot
from tests.support.shown_loops import base, cases, on_disk, record


def tree(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in directory.rglob("*")
        if path.name not in ("loop.lock",)
    }


# -- all loops -------------------------------------------------------------------------------------


def test_all_loops_of_the_user_come_the_most_urgent_first(held: ExitStack, tmp_path: Path) -> None:
    now = time.time()
    for name, case in cases(now).items():
        held.enter_context(on_disk(tmp_path, name, case))
    before = tree(tmp_path)
    loops = sources.Loops()
    assert loops.refresh()
    assert not loops.refresh()
    found = {one.name: one for one in loops.shown}
    for name, case in cases(now).items():
        if not case.orphan:  # that needs a process; to a look without one it is gone
            assert found[name].row.state == case.state, name
    urgencies = [one.row.urgency for one in loops.shown]
    assert urgencies == sorted(urgencies)
    assert tree(tmp_path) == before


def test_a_change_is_seen_and_nothing_else_is_read_again(held: ExitStack, tmp_path: Path) -> None:
    loop = held.enter_context(on_disk(tmp_path, "one", cases(time.time())["running"]))
    other = held.enter_context(on_disk(tmp_path, "two", cases(time.time())["running"]))
    loops = sources.Loops()
    loops.refresh()
    kept = loops.find("two")
    status = Path(loop.state_dir, "status.json")
    changed = json.loads(status.read_text()) | {"goal": "Something else"}
    status.write_text(json.dumps(changed))
    assert loops.refresh()
    one = loops.find("one")
    assert one is not None
    assert one.row.doing == "Something else"
    assert loops.find("two") is kept
    assert Path(other.state_dir).exists()


def test_what_is_looked_at_because_time_has_passed_is_not_looked_at_all_at_once(
    held: ExitStack, tmp_path: Path
) -> None:
    """A look takes a third of a millisecond, in which the board hears no key."""
    for number in range(40):
        held.enter_context(on_disk(tmp_path, f"loop-{number}", cases(time.time())["limited"]))
    loops = sources.Loops()
    loops.refresh()

    def anew() -> int:
        old = {one.name: one for one in loops.shown}
        loops.refresh()
        return sum(old[one.name] is not one for one in loops.shown)

    def age() -> None:
        loops._looks = {
            place: look._replace(at=look.at - 100, beat=look.beat - 100)
            for place, look in loops._looks.items()
        }

    assert anew() == 0
    age()
    assert [anew() for _ in range(5)] == [10, 10, 10, 10, 0]
    # where nobody has looked for a while everything is old
    age()
    loops._refreshed -= 100
    assert anew() == 40


def test_a_loop_that_was_named_need_not_be_known(held: ExitStack, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    target = Target("w", str(tmp_path / "w"), str(tmp_path / "w" / ".codex-self-iter"))
    loops = sources.Loops([target])
    loops.refresh()
    assert [(one.name, one.row.state) for one in loops.shown] == [("w", "not started")]


def test_a_state_directory_that_vanishes_is_said(held: ExitStack, tmp_path: Path) -> None:
    loop = held.enter_context(on_disk(tmp_path, "one", cases(time.time())["gone"]))
    loops = sources.Loops()
    loops.refresh()
    without_supervisor()
    Path(loop.state_dir).rename(tmp_path / "elsewhere")
    assert loops.refresh()
    (one,) = loops.shown
    assert (one.row.state, one.row.urgency) == ("unreadable", Urgency.NEEDS_YOU)
    assert one.row.doing == f"its state directory {loop.state_dir} is gone"
    (told,) = troubles(one.seen, one.around)
    assert (told.kind, told.mend) == ("vanished", "codex-self-iter status --all")
    assert [late.name for late in sources_anew()] == [one.name], "whoever looks later is told, too"
    assert sources.messages(loop.state_dir) == []
    assert sources.prompts_of(loop.state_dir, 12) == []
    assert records.latest(loop.state_dir, 5) == []


def without_supervisor() -> None:
    """In the registry the process of the last one is none."""
    for path in Path(registry.directory()).glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": 0}))


def sources_anew() -> list[sources.Shown]:
    loops = sources.Loops()
    loops.refresh()
    return loops.shown


def test_a_loop_whose_workspace_is_gone_with_all_else_is_no_trouble(
    held: ExitStack, tmp_path: Path
) -> None:
    loop = held.enter_context(on_disk(tmp_path, "one", cases(time.time())["gone"]))
    without_supervisor()
    assert sources_anew()
    Path(loop.workspace).rename(tmp_path / "elsewhere")
    assert sources_anew() == []


def test_the_command_that_mends_names_the_loop_whatever_it_is_called(
    held: ExitStack, tmp_path: Path
) -> None:
    """Cleaned after it was quoted, the command would name another directory, or none."""
    name = "\x1b[31mred\n\u202ename"
    gone = held.enter_context(on_disk(tmp_path, "app", cases(time.time())["gone"]))
    place = str(Path(gone.workspace).rename(tmp_path / name))
    one = sources.show(name, Target(name, place, f"{place}/.codex-self-iter"))
    mend = troubles(one.seen, one.around)[0].mend
    said = subprocess.run(
        ["bash", "-c", f'codex-self-iter() {{ printf "%s|" "$@"; }}; {mend}'],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert said.stdout.split("|")[:3] == ["run", "--workspace", place]


def test_an_unreadable_status_and_a_newer_one_are_said(held: ExitStack, tmp_path: Path) -> None:
    now = time.time()
    held.enter_context(on_disk(tmp_path, "newer", cases(now)["newer"]))
    held.enter_context(on_disk(tmp_path, "torn", cases(now)["torn"]))
    loops = sources.Loops()
    loops.refresh()
    said = {one.name: one.row.doing for one in loops.shown}
    assert "is of a newer form (2; known is 1): look with codex-self-iter 9.0.0" in said["newer"]
    assert "cannot be read as JSON" in said["torn"]


# -- the journal by position -----------------------------------------------------------------------


def test_ticks_of_a_journal_that_grew_are_read_from_where_it_was(
    journal: Journal, tmp_path: Path
) -> None:
    """A journal may have 64 MiB, and every open page asks after every iteration."""
    directory, path = str(tmp_path), tmp_path / "logs/iterations.jsonl"
    ticks = records.Ticks()
    assert ticks.of(directory) == {}
    for number in range(1, 6):
        journal.append(record(number, ticked=[f"item {number}"]))
    assert ticks.of(directory) == {f"item {number}": number for number in range(1, 6)}
    journal.append(record(6, ticked=["item 1"]))
    journal.append(record(7))
    found = {"item 1": 6, **{f"item {number}": number for number in range(2, 6)}}
    assert ticks.of(directory) == found
    # negative control: what lies before is not read again
    text = path.read_bytes()
    path.write_bytes(text.replace(b"item 2", b"item X"))
    assert ticks.of(directory) == found
    # another file, one that was rewritten, and one that is shorter are read anew
    path.write_bytes(b"{}\n" + text.replace(b"item 2", b"item Y"))
    assert "item Y" in ticks.of(directory)
    path.write_bytes(text.splitlines(keepends=True)[0])
    assert ticks.of(directory) == {"item 1": 1}
    (tmp_path / "new").write_bytes(text)
    (tmp_path / "new").replace(path)
    assert ticks.of(directory) == found
    path.unlink()
    assert ticks.of(directory) == {}


def test_ticks_of_so_many_journals_are_remembered(tmp_path: Path) -> None:
    ticks = records.Ticks()
    for number in range(ticks.MOST + 5):
        ticks.of(str(tmp_path / str(number)))
    assert len(ticks._known) == ticks.MOST


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(StateRoot(str(tmp_path)))
    made.open()
    yield made
    made.close()


def numbers(found: list[records.Placed]) -> list[int]:
    return [one.record["iteration"] for one in found]


def test_a_follower_goes_on_exactly_where_it_was(journal: Journal, tmp_path: Path) -> None:
    directory = str(tmp_path)
    for number in range(1, 8):
        journal.append(record(number))
    every = records.after(directory)
    assert numbers(every) == list(range(1, 8))
    assert records.latest(directory, 3) == every[-3:]
    for place, one in enumerate(every):
        assert records.after(directory, one.mark) == every[place + 1 :]
        assert records.older(directory, one.mark, 2) == every[max(0, place - 2) : place]
    journal.append(record(8))
    assert numbers(records.after(directory, every[-1].mark)) == [8]
    assert numbers(records.after(directory, every[0].mark, limit=2)) == [2, 3]


def test_a_rotation_loses_nothing_and_doubles_nothing(journal: Journal, tmp_path: Path) -> None:
    """Marks of the old file still count in the new one, and where it does not have them."""
    directory = str(tmp_path)
    for number in range(1, 41):
        journal.append(record(number))
    marks = records.after(directory)
    assert journal.rotate(10_000)
    kept = numbers(records.latest(directory, 3))
    assert kept == [38, 39, 40]
    for number in range(41, 44):
        journal.append(record(number))
    in_new = [line["iteration"] for line in journal.tail(100)]
    assert in_new[0] > 20  # the journal has begun anew
    for one in marks:
        assert numbers(records.after(directory, one.mark)) == list(
            range(one.record["iteration"] + 1, 44)
        ), one.mark
        older = numbers(records.older(directory, one.mark, 5))
        number = one.record["iteration"]
        assert older == list(range(max(1, number - 5), number))
    assert numbers(records.after(directory)) == list(range(1, 44))
    assert numbers(records.latest(directory, 30)) == list(range(14, 44))


@pytest.mark.parametrize("mark", ["", "x", "5", "-", "9999999-3", "0-99", "-1--1", "9" * 400])
def test_a_mark_that_is_none_begins_at_the_beginning(
    journal: Journal, tmp_path: Path, mark: str
) -> None:
    for number in (1, 2, 3):
        journal.append(record(number))
    expected = [] if mark.endswith("-3") else [1, 2, 3]
    assert numbers(records.after(str(tmp_path), mark)) == expected


# -- outputs ---------------------------------------------------------------------------------------


def test_a_log_of_200_mib_opens_at_once_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    with path.open("wb") as file:
        for number in range(200):
            file.seek(number * 2**20)
            file.write(b"line %d\n" % number)
        file.seek(200 * 2**20)
        file.write(b"".join(b"last %d\n" % number for number in range(50_000)))
    began = time.perf_counter()
    tracemalloc.start()
    output = Output(str(tmp_path))
    shown = output.new()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert shown[-1].text == "last 49999"
    assert shown[0].text.startswith("last ")
    assert output.skipped > 200 * 2**20
    assert most < 40 * 2**20
    assert time.perf_counter() - began < 30  # a minute and more when all of it is read
    with path.open("ab") as file:
        file.write(b"one more\nhalf")
    assert [item.text for item in output.new()] == ["one more"]
    assert [item.text for item in output.finish()] == ["half"]


def test_pages_of_a_file_meet_without_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    lines = [f"line {number} {'x' * (number % 97)}" for number in range(20_000)]
    path.write_text("\n".join(lines) + "\n")
    back: list[str] = []
    end = None
    while end is None or end > 0:
        one = page(str(path), before=end)
        assert one.end - one.start <= WINDOW
        back, end = one.lines + back, one.start
    assert back == lines
    forth: list[str] = []
    start = 0
    while start < path.stat().st_size:
        one = page(str(path), after=start)
        forth, start = forth + one.lines, one.end
    assert forth == lines


def test_a_line_longer_than_a_window_is_no_trap(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.write_bytes(b"x" * (3 * WINDOW))
    one = page(str(path))
    assert (one.start, one.end, one.size) == (2 * WINDOW, 3 * WINDOW, 3 * WINDOW)
    assert page(str(path), after=10 * WINDOW).lines == []


def test_what_an_agent_prints_cannot_drive_a_terminal_and_a_planted_link_is_not_followed(
    tmp_path: Path,
) -> None:
    (tmp_path / "stdout.log").write_text("\x1b]0;owned\x07\x1b[2Jred\u202e\n")
    (tmp_path / "stderr.log").symlink_to("/etc/passwd")
    shown = Output(str(tmp_path)).new()
    assert [item.text for item in shown] == ["red�"]
    with pytest.raises(OSError, match="symbolic link"):
        page(str(tmp_path / "stderr.log"))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        page(str(tmp_path / "fifo"))
    assert [item.text for item in rendered(["plain", "\x1b[1mbold"])] == ["plain", "bold"]


# -- of one loop -----------------------------------------------------------------------------------


def test_plan_prompt_and_messages_are_read(held: ExitStack, tmp_path: Path) -> None:
    loop = held.enter_context(on_disk(tmp_path, "one", cases(time.time())["running"]))
    one = sources.show("one", loop)
    plan = sources.plan(one.seen)
    assert [(line.title, line.next) for line in plan.lines] == [
        ("Write the lexer", False), ("Write the parser", True), ("Test", False),
    ]  # fmt: skip
    assert [kept.text for kept in sources.prompts_of(loop.state_dir, 12)] == [
        "# The prompt\nGo on\n"
    ]
    inbox.write_message(loop.state_dir, "Use \x1b[31mred", now=True)
    inbox.write_goal(loop.state_dir, "Make it fast")
    done = Path(loop.state_dir, "inbox", "done")
    done.mkdir()
    (done / "000007-hint.md").write_text("an old one")
    old, *waiting = sources.messages(loop.state_dir)
    assert (old.name, old.text, old.iteration) == ("hint.md", "an old one", 7)
    told = {(one.text, one.iteration, one.goal, one.now) for one in waiting}
    assert told == {("Make it fast", None, True, False), ("Use red", None, False, True)}


def test_a_plan_that_is_not_there_is_said(tmp_path: Path) -> None:
    status = base(workspace=str(tmp_path))
    one = sources.show("x", Target("x", str(tmp_path), str(tmp_path)))
    one.seen.status = status
    assert sources.plan(one.seen).flaw == f"there is no {tmp_path}/plan.md"
    (tmp_path / "plan.md").write_text("words\n")
    assert sources.plan(one.seen).flaw == f"{tmp_path}/plan.md has no checkboxes"
