"""What the keys of the board do, with real files: every key answers, and steering is what the
commands do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from textual.events import Paste

from codex_self_iter.screens import steering
from codex_self_iter.screens.board.bindings import BINDINGS, BY_KEY
from codex_self_iter.screens.board.looking import ITERATIONS, Meant, Reader
from codex_self_iter.screens.board.showing import MAX_LINES, Body, Level
from codex_self_iter.screens.board.terminal import Board
from codex_self_iter.screens.kept import open_checkpoints
from codex_self_iter.screens.loops import Target
from codex_self_iter.world.git.run import complete
from codex_self_iter.world.state.durable import encode_lines
from tests.support.board_pilot import at_board
from tests.support.shown_loops import cases, on_disk, record

pytestmark = pytest.mark.anyio
SIZE = (100, 24)
PAGE = (Path(__file__).parents[2] / "docs" / "screens.md").read_text(encoding="utf-8")


@pytest.fixture
def loop(held: ExitStack, tmp_path: Path) -> Target:
    """A loop in the middle of iteration 12, and one that waits."""
    every = cases(time.time())
    held.enter_context(on_disk(tmp_path, "other", every["limited"]))
    return held.enter_context(on_disk(tmp_path, "one", every["running"]))


def change(loop: Target, **more: object) -> None:
    """What its supervisor would write."""
    path = Path(loop.state_dir, "status.json")
    path.write_bytes(encode_lines(json.loads(path.read_text()) | more))


def begin(loop: Target, number: int) -> Path:
    """Another iteration: the last one is in the journal."""
    with Path(loop.state_dir, "logs", "iterations.jsonl").open("a") as journal:
        journal.write(json.dumps(record(number - 1, time.time())) + "\n")
    run = Path(loop.state_dir, "logs", "runs", f"{number:06d}-executor")
    run.mkdir()
    (run / "stdout.log").write_text(f"hello from {number}\n")
    change(loop, iteration=number)
    return run / "stdout.log"


async def test_every_key_answers_if_only_with_why_not(loop: Target) -> None:
    async with at_board(SIZE) as seat:
        before = seat.text()
        for key in ("z", "F5", "ctrl+t", "Z", "*", "0", "f12", "ä"):
            after = await seat.press(key)
            assert "does nothing here; ? shows the keys" in after, key
        for key in ("escape", "k", "n", "enter", "enter", "enter"):
            after = await seat.press(key)
            assert after != before, key
        for binding in BINDINGS:
            assert hasattr(Board, f"do_{binding.does}") or binding.does == "tab", binding
        assert sum(len(binding.keys) for binding in BINDINGS) == len(BY_KEY)


async def test_help_lists_the_keys_and_any_other_closes_it(loop: Target) -> None:
    async with at_board((100, 40)) as seat:
        shown = await seat.press("?")
        assert all(binding.words in shown for binding in BINDINGS)
        assert "Keys" not in await seat.press("p")
        assert not os.path.lexists(f"{loop.state_dir}/PAUSE")


def test_the_page_lists_the_keys_and_what_they_do() -> None:
    rows = re.findall(r"^\| `(.+?)` \| (.+) \|$", PAGE, re.M)
    assert rows == [(binding.shown, binding.words) for binding in BINDINGS]


async def test_keys_go_from_loop_to_loop_and_closer_and_back(loop: Target) -> None:
    async with at_board(SIZE) as seat:
        on = seat.board.on

        def place() -> tuple[Level, str, int | None]:
            return on.level, on.row.name if on.row else "", on.number

        assert place() == (Level.LOOPS, "other", None)
        for key, name in (
            ("j", "one"),
            ("k", "other"),
            ("down", "one"),
            ("up", "other"),
            ("G", "one"),
        ):
            await seat.press(key)
            assert place() == (Level.LOOPS, name, None), key
        assert "no other loop" in await seat.press("j")
        await seat.until(lambda _: len(on.iterations) == 4)
        await seat.press("enter", "j")
        assert place() == (Level.LOOP, "one", 11)
        await seat.press("G")
        assert place() == (Level.LOOP, "one", 9)
        assert "< reads older ones" in await seat.press("j")
        await seat.press("enter")
        assert place() == (Level.ITERATION, "one", 9)
        assert "as close as it gets" in await seat.press("enter")
        await seat.press("escape", "g")
        assert place() == (Level.LOOP, "one", None)
        await seat.press("escape")
        assert "q leaves" in await seat.press("escape")
        await seat.press("q")
        assert not seat.board.is_running


async def test_keys_go_through_the_tabs(loop: Target) -> None:
    async with at_board(SIZE) as seat:
        for key, tab in (("tab", 1), ("tab", 2), ("shift+tab", 1), ("8", 7), ("tab", 0), ("d", 2)):
            await seat.press(key)
            assert seat.board.on.tab == tab, key


async def test_a_page_is_scrolled_and_older_iterations_are_read_when_asked_for(
    loop: Target,
) -> None:
    last, logs = ITERATIONS + 50, Path(loop.state_dir, "logs")
    lines = [json.dumps(record(number, time.time() - 9)) + "\n" for number in range(1, last + 1)]
    (logs / "iterations.jsonl").write_text("".join(lines))
    run = (logs / "runs" / "000012-executor").rename(logs / "runs" / f"{last + 1:06d}-executor")
    (run / "stdout.log").write_text("".join(f"line {number}\n" for number in range(100_000)))
    change(loop, iteration=last + 1)
    async with at_board((100, 24), chosen=loop.state_dir) as seat:
        on = seat.board.on
        await seat.until(lambda text: "line 99999" in text)
        assert f"before this: codex-self-iter logs {last + 1} has all" in on.body.lines[1][0]
        await seat.press("pageup")
        assert "line 99999" not in seat.text()
        await seat.press("space", "space")
        assert "line 99999" in seat.text()
        assert [one.number for one in on.iterations] == [*range(last + 1, 50, -1)]
        await seat.press("<")
        await seat.until(lambda _: len(on.iterations) > ITERATIONS + 1)
        assert [one.number for one in on.iterations] == [*range(last + 1, 0, -1)]


async def test_the_output_grows_and_a_new_iteration_is_followed(loop: Target) -> None:
    async with at_board(SIZE, chosen=loop.state_dir) as seat:
        assert "Writes the parser" in await seat.until(lambda text: "Writes" in text)
        with Path(loop.state_dir, "logs/runs/000012-executor/stdout.log").open("a") as log:
            log.write("Tests it \x1b[31mnow\x1b[2J\n")
        shown = await seat.until(lambda text: "Tests it now" in text)
        assert "LIVE" in shown
        begin(loop, 13)
        shown = await seat.until(lambda text: "hello from 13" in text)
        assert "Tests it" not in shown


async def test_what_an_agent_prints_is_no_trouble_of_the_loop(loop: Target) -> None:
    log = Path(loop.state_dir, "logs/runs/000012-executor/stdout.log")
    log.write_text("error: usage limit reached\nTraceback: blocked, crashed, needs you\n")
    async with at_board(SIZE, chosen=loop.state_dir) as seat:
        await seat.until(lambda text: "usage limit reached" in text)
        assert seat.board.on.troubles == []
        assert "needs you" not in seat.text().splitlines()[0]


@pytest.mark.slow
async def test_one_error_is_no_alarm_and_three_are(loop: Target) -> None:
    counters = dict.fromkeys(("consecutive_errors", "no_change", "gate_failures", "same_goal"), 0)
    async with at_board(SIZE, chosen=loop.state_dir) as seat:
        for key in counters:
            change(loop, counters=counters | {key: 1})
            assert "stuck?" not in await seat.looked(4), key
            change(loop, counters=counters | {key: 3})
            await seat.until(lambda text: "1 stuck?" in text)
            change(loop, counters=counters)
            await seat.until(lambda text: "stuck?" not in text)
        run = json.loads(Path(loop.state_dir, "status.json").read_text())["run"]
        change(loop, run=run | {"idle_sec": 301.0})
        await seat.until(lambda text: "no sign of life from the agent for 5 m 01 s" in text)


async def test_in_review_nothing_moves_but_a_new_iteration_is_said(loop: Target) -> None:
    """Negative control: with `f` it follows again."""
    async with at_board(SIZE, chosen=loop.state_dir) as seat:
        assert "stays with iteration 12" in await seat.press("f")
        begin(loop, 13)
        shown = await seat.until(lambda text: "new: iteration 13" in text)
        assert "hello from 13" not in shown
        assert "Writes the parser" in shown
        assert "follows the newest" in await seat.press("f")
        await seat.until(lambda text: "hello from 13" in text)


async def test_search_takes_every_key_and_finds_what_is_meant(
    held: ExitStack, tmp_path: Path
) -> None:
    for name in ("jqueue", "pqx", "other"):
        held.enter_context(on_disk(tmp_path, name, cases(time.time())["running"]))
    async with at_board(SIZE) as seat:
        await seat.press("/", "p", "q", "x")
        assert seat.board.is_running
        await seat.press("enter")
        assert seat.board.on.row is not None
        assert seat.board.on.row.name == "pqx"
        await seat.press("/", "*", "enter")
        assert "'*' is not there" in seat.text()
        await seat.press("/", "p", "escape")
        assert seat.board.on.row.name == "pqx"
        assert not os.path.lexists(f"{seat.board.on.chosen}/PAUSE")


async def test_a_search_in_a_text_goes_from_match_to_match(loop: Target) -> None:
    log = Path(loop.state_dir, "logs/runs/000012-executor/stdout.log")
    log.write_text("".join(f"line {number}\n" for number in range(500)))
    async with at_board(SIZE, chosen=loop.state_dir) as seat:
        await seat.until(lambda text: "line 499" in text)
        await seat.press("enter", "/", *"line 77", "enter")
        assert "line 77" in seat.text()
        found = seat.board.on.found
        await seat.press("/", *"line 4", "enter")
        first = seat.board.on.found
        await seat.press("n")
        assert seat.board.on.found > first
        await seat.press("N")
        assert seat.board.on.found == first != found


async def test_tabs_show_what_the_commands_show(loop: Target) -> None:
    async with at_board(SIZE, chosen=loop.state_dir) as seat:
        wanted = {
            "2": "> [ ] Write the parser", "5": "# The prompt", "6": "Nobody has written",
            "7": "gate `pytest -q` failed", "8": "Iterations over time",
        }  # fmt: skip
        for key, words in wanted.items():
            await seat.press(key)
            await seat.until(lambda text, words=words: words in text)
        await seat.press("j", "4")
        await seat.until(lambda text: "pytest -q: exited with code 1, 3.0 s" in text)
        assert "REVIEW" in seat.text()
        await seat.press("g", "4")
        await seat.until(lambda text: "No gate ran" in text)


async def test_a_diff_is_the_checkpoint_s(held: ExitStack, tmp_path: Path) -> None:
    """Without a repository it says so, and names the files."""
    loop = held.enter_context(on_disk(tmp_path, "one", cases(time.time())["completed"]))
    async with at_board(SIZE, chosen=loop.state_dir) as seat:
        await seat.press("d")
        assert "a.py" in await seat.until(lambda text: "no checkpoints in" in text)


STEERED = [
    ("p", "PAUSE", "after the run\n", "pauses when this iteration ends"),
    ("S", "STOP", "after-iteration\n", "lets this iteration end, then stops"),
    ("X", "STOP", "now\n", "ends the running agent and stops now"),
]


@pytest.mark.parametrize(("key", "name", "content", "words"), STEERED)
async def test_what_ends_or_changes_something_asks_once(
    loop: Target, key: str, name: str, content: str, words: str
) -> None:
    path = Path(loop.state_dir, name)
    async with at_board((160, 24)) as seat:
        await seat.until(lambda text: "> other" in text)
        await seat.press("G")
        assert "one" in seat.text().split("y/n")[0]
        for other in ("n", "escape", "j", key):
            assert "y/n" in await seat.press(key)
            assert "nothing was done" in await seat.press(other)
        assert not path.exists()
        await seat.press(key, "y")
        told = await seat.until(lambda text: "Wrote" in text)
        assert words in " ".join(told.split())
        assert path.read_text() == content


async def test_a_pause_is_taken_back_by_the_same_key(loop: Target) -> None:
    steering.pause(steering.aim(loop))
    change(loop, state="paused", run=None)
    async with at_board((160, 24), chosen=loop.state_dir) as seat:
        await seat.until(lambda text: "paused" in text)
        assert "resume one? y/n" in await seat.press("p")
        await seat.press("y")
        assert "goes on" in await seat.until(lambda text: "Removed" in text)
        assert not Path(loop.state_dir, "PAUSE").exists()


@pytest.mark.parametrize(("key", "end"), [(":", ".md"), ("!", ".now.md")])
async def test_a_message_is_what_steer_writes(loop: Target, key: str, end: str) -> None:
    async with at_board((160, 24), chosen=loop.state_dir) as seat:
        await seat.press(key, *"use jq, please!", "enter")
        await seat.until(lambda text: "Wrote" in text)
        (message,) = Path(loop.state_dir, "inbox").glob("*.md")
        assert message.name.endswith(end)
        assert message.name.endswith(".now.md") is (key == "!")
        assert message.read_text() == "use jq, please!\n"
        for leave in ("escape", "ctrl+c"):
            await seat.press(key, *"not this", leave)
            assert "nothing was done" in seat.text()
            assert seat.board.is_running
        await seat.press(key, "space", "enter")
        assert len(list(Path(loop.state_dir, "inbox").glob("*.md"))) == 1
        await seat.press("6")
        await seat.until(lambda text: "use jq, please!" in text)


async def test_what_is_pasted_is_taken_with_all_its_lines_and_sent_by_enter_alone(
    loop: Target,
) -> None:
    """A traceback has many; none of them is a key."""
    async with at_board((160, 24), chosen=loop.state_dir) as seat:
        seat.board.post_message(Paste("X\nyes\nq\n"))  # nothing is typed: it does nothing
        await seat.press(":", *"see ")
        seat.board._typed.post_message(Paste("Traceback:\r\n  line 1\nX\n"))
        await seat.until(lambda text: "see Traceback:↵  line 1↵X" in text)
        assert not list(Path(loop.state_dir, "inbox").glob("*.md"))
        await seat.press("enter")
        await seat.until(lambda text: "Wrote" in text)
        (message,) = Path(loop.state_dir, "inbox").glob("*.md")
        assert message.read_text() == "see Traceback:\n  line 1\nX\n"
        assert not Path(loop.state_dir, "STOP").exists()


async def test_a_failure_of_steering_is_one_line(loop: Target) -> None:
    Path(loop.state_dir, "inbox").write_text("in the way")
    async with at_board((160, 24), chosen=loop.state_dir) as seat:
        await seat.press(":", "x", "enter")
        await seat.until(lambda text: "cannot write" in text or "Wrote" in text)
        assert seat.board.is_running


def git(place: Path, *words: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.invalid"]
    subprocess.run(["git", *who, *words], cwd=place, check=True, capture_output=True)


@pytest.fixture
def checkpoint(held: ExitStack, tmp_path: Path) -> Target:
    """A loop that has ended, with a checkpoint of iteration 11, and edits since."""
    loop = held.enter_context(on_disk(tmp_path, "one", cases(time.time())["stopped"]))
    place = Path(loop.workspace)
    (place / ".gitignore").write_text(".codex-self-iter\n")
    (place / "a.py").write_text("old\n")
    git(place, "init", "-q")
    git(place, "add", "-A")
    git(place, "commit", "-qm", "start")
    saved = complete(open_checkpoints(loop).save(11))
    assert saved.commit
    (place / "a.py").write_text("new\n")
    return loop


async def test_rewind_asks_and_takes_the_work_tree_back(checkpoint: Target) -> None:
    loop, place = checkpoint, Path(checkpoint.workspace)
    async with at_board((160, 24), chosen=loop.state_dir) as seat:
        assert "back to iteration 11? y/n" in await seat.press("r")
        await seat.press("n")
        assert (place / "a.py").read_text() == "new\n"
        await seat.press("r", "y")
        await seat.until(lambda text: "1 file changed back. To take this back" in text)
        assert (place / "a.py").read_text() == "old\n"
        await seat.press("j", "r", "y")
        await seat.until(lambda text: "there is no checkpoint 10" in text)


async def test_a_rewind_beside_a_supervisor_is_refused_at_once(loop: Target) -> None:
    async with at_board((160, 24), chosen=loop.state_dir) as seat:
        assert "choose an iteration that has ended" in await seat.press("r")
        await seat.press("j")
        assert "its supervisor is at work: stop it first" in await seat.press("r")


async def test_the_board_writes_nothing_by_itself(loop: Target, tmp_path: Path) -> None:
    def tree() -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.rglob("*")}

    before = tree()
    async with at_board(SIZE) as seat:
        for key in (
            "j",
            "enter",
            *"12345678",
            "enter",
            "d",
            "f",
            "<",
            "n",
            "?",
            "escape",
            "escape",
        ):
            await seat.press(key)
        await seat.looked()
    assert tree() == before


async def test_a_defect_ends_it_without_a_traceback_and_touches_no_loop(
    loop: Target, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken(Reader):
        def look(self, meant: Meant):
            raise ValueError("planted")

    board = Board(Broken([]))
    async with board.run_test(size=SIZE) as pilot:
        await pilot.pause()
    assert isinstance(board.failed, ValueError)
    assert "Traceback" not in "".join(capfd.readouterr())
    assert not os.path.lexists(f"{loop.state_dir}/STOP")


async def test_a_state_directory_that_vanishes_under_it_is_said(
    loop: Target, tmp_path: Path
) -> None:
    async with at_board((160, 24), chosen=loop.state_dir) as seat:
        Path(loop.state_dir).rename(tmp_path / "elsewhere")
        await seat.until(lambda text: "is gone" in text)
        for key in "12345678":
            await seat.press(key)
            await seat.looked()
        assert seat.board.failed is None


async def test_a_mouse_wheel_scrolls(loop: Target) -> None:
    log = Path(loop.state_dir, "logs/runs/000012-executor/stdout.log")
    log.write_text("".join(f"line {number}\n" for number in range(500)))
    async with at_board(SIZE, chosen=loop.state_dir) as seat:
        await seat.until(lambda text: "line 499" in text)
        await seat.press("enter", "k", "k")
        assert "line 499" not in seat.text()
        assert not seat.board.on.tail
        await seat.press("G")
        assert "line 499" in seat.text()
        await seat.press("g")
        assert "000012-executor" in seat.text()
        assert "beginning" in await seat.press("k")


async def test_nothing_is_drawn_when_nothing_has_changed(loop: Target) -> None:
    """Negative control: a changed line is drawn."""
    async with at_board(SIZE, chosen=loop.state_dir) as seat:
        await seat.until(lambda text: "Writes the parser" in text)
        canvas = seat.board.query_one("Canvas")
        drawn = []
        canvas.refresh = lambda *regions, **more: drawn.append(regions)  # type: ignore[method-assign]
        await seat.looked(4)
        seat.board.redraw()
        assert drawn == []
        change(loop, goal="Something else")
        await seat.until(lambda _: bool(drawn))
        assert len(drawn[0]) < 6


def test_a_text_of_any_length_is_bounded_and_wrapped_once() -> None:
    body = Body([(f"{n}", "") for n in range(MAX_LINES)])
    body.wrapped(10)
    body.extend([("new " * 10, "")])
    assert len(body.lines) == MAX_LINES
    assert [text for text, _ in body.wrapped(10)][-4:] == [
        "new new ne",
        "w new new ",
        "new new ne",
        "w new new ",
    ]
    assert Level.LOOPS < Level.LOOP < Level.ITERATION
