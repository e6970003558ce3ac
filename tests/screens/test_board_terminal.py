"""The board as a program: `top` in a real terminal beside a real loop, and where it cannot be."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from tests.support.harness import Workspace, wait_until
from tests.support.program import PROGRAM, running
from tests.support.tmux import Terminal, need_tmux

Open = Callable[..., Terminal]
TOP = [*PROGRAM, "top"]


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path)
    workspace.config()
    yield workspace
    workspace.close()


@pytest.fixture
def terminal(ws: Workspace) -> Iterator[Open]:
    """Opens terminals; all are closed before the workspace is looked through for left-overs."""
    need_tmux()
    opened = []

    def open_one(*words: str, **environment: str) -> Terminal:
        argv = [*PROGRAM, *words] if words[:1] == ("demo",) else [*TOP, *words]
        opened.append(Terminal(argv, ws.environment | environment))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def step(until: str, **more: object) -> Mapping[str, object]:
    return {"say": f"waits for {until}", "sleep": 300, "until": until, **more}


@pytest.mark.slow
def test_a_whole_session_open_steer_pause_resume_stop_quit(ws: Workspace, terminal: Open) -> None:
    ws.script(step("one", append={"a": "1"}), step("two", append={"a": "2"}), step("never"))
    supervisor = ws.start("--max-stagnation", "0")
    ws.wait_runs(1)
    top = terminal()
    top.until("waits for one")
    assert "1 working" in top.screen()
    top.keys(":")
    top.until("enter sends")
    top.type("use jq, please")
    top.keys("Enter")
    top.until("into the next prompt")
    top.keys("p")
    top.until("y/n")
    assert not (ws.state / "PAUSE").exists()
    top.keys("y")
    top.until("pauses when this iteration ends")
    (ws.control / "one").touch()
    top.until("1 paused")
    assert ws.verdicts() == ["continue"]
    top.keys("p")
    top.until("resume")
    top.keys("y")
    top.until("waits for two")
    assert "use jq, please" in ws.prompt(2)
    top.keys("S")
    top.until("y/n")
    top.keys("y")
    top.until("lets this iteration end")
    (ws.control / "two").touch()
    top.until("1 done")
    assert ws.ended(supervisor) == 0
    assert ws.verdicts() == ["continue", "continue"]
    top.keys("Enter", "7")
    top.until("history")
    top.keys("q")
    top.until("ended with 0")


@pytest.mark.slow
def test_what_another_program_wrote_across_it_goes_by_a_key(ws: Workspace, terminal: Open) -> None:
    ws.script(step("never"))
    supervisor = ws.start()
    ws.wait_runs(1)
    top = terminal()
    top.until("waits for never")
    Path(top.tmux("display-message", "-p", "#{pane_tty}").strip()).write_text("\033[3;3HGARBAGE")
    top.until("GARBAGE")
    top.keys("g")  # negative control: only what has changed is drawn
    top.until("GARBAGE")
    top.keys("C-l")
    top.until("drawn anew")
    top.gone("GARBAGE")
    top.keys("q")
    top.until("ended with 0")
    (ws.state / "STOP").touch()
    assert ws.ended(supervisor) == 0


@pytest.mark.slow
def test_quitting_and_killing_it_touch_no_loop(ws: Workspace, terminal: Open) -> None:
    """Negative control: `X` and y do end it."""
    ws.script(step("never"))
    supervisor = ws.start()
    ws.wait_runs(1)
    for end in ("q", "kill", "term"):
        top = terminal()
        top.until("waits for never")
        before = ws.status()["run"]["pid"]
        if end == "q":
            top.keys("q")
        else:
            shell = psutil.Process(int(top.tmux("display-message", "-p", "#{pane_pid}")))
            boards = running("top", [shell, *shell.children(recursive=True)])
            boards[-1].send_signal(signal.SIGKILL if end == "kill" else signal.SIGTERM)
        top.until("ended with 137" if end == "kill" else "ended with 0")
        assert supervisor.poll() is None
        assert ws.status()["run"]["pid"] == before
        assert not (ws.state / "STOP").exists()
        top.close()
    top = terminal()
    top.until("waits for never")
    top.keys("X")
    top.until("ends the running agent")
    top.keys("y")
    assert ws.ended(supervisor) == 0
    top.until("1 done")


@pytest.mark.slow
@pytest.mark.parametrize("stays", [False, True], ids=["by itself", "a key was pressed"])
def test_it_leaves_at_the_end_of_its_loop_where_that_is_asked_for(
    ws: Workspace, terminal: Open, stays: bool
) -> None:
    ws.script(step("go", block={"completed": True}, append={"a": "1"}))
    supervisor = ws.start()
    ws.wait_runs(1)
    top = terminal("--until-end", "--workspace", str(ws.path))
    top.until("waits for go")
    if stays:
        top.keys("f")
        top.until("REVIEW")
    (ws.control / "go").touch()
    assert ws.ended(supervisor) == 0
    if stays:
        top.until("completed")
        top.keys("x")
        assert "x does nothing here" in top.until("x does nothing here")
        top.keys("q")
    else:
        top.until("the board leaves in 5 s")
    top.until("ended with 0")


@pytest.mark.slow
@pytest.mark.parametrize("left", [False, True], ids=["to its end", "left before"])
def test_the_demo_runs_behind_the_board(ws: Workspace, terminal: Open, left: bool) -> None:
    demo = terminal("demo", str(ws.root / "sample"))
    if left:
        demo.until("LIVE")
        demo.keys("q")
        demo.until("ended with 0")
        assert "iteration.ended" in demo.tmux("capture-pane", "-p", "-S", "-200")
    else:
        demo.until("the board leaves in 5 s")
        demo.until("ended with 0")
    told = demo.tmux("capture-pane", "-p", "-S", "-200")
    assert "completed: Every item of the plan is ticked (5 of 5)." in told
    assert told.index("take back") < told.index("Iterations")


@pytest.mark.slow
def test_a_demo_that_cannot_run_says_why_behind_the_board(ws: Workspace, terminal: Open) -> None:
    sample = ws.root / "sample"
    terminal("demo", str(sample)).until("ended with 0")
    (sample / ".codex-self-iter" / "PAUSE").touch()
    argv = [*PROGRAM, "run", "--workspace", str(sample)]
    first = subprocess.Popen(argv, env=ws.environment, stderr=subprocess.DEVNULL)
    try:
        status = sample / ".codex-self-iter" / "status.json"
        wait_until(lambda: '"paused"' in status.read_text(), "the pause")
        demo = terminal("demo", str(sample))
        demo.until("ended with 75")
        told = "".join(demo.tmux("capture-pane", "-p", "-S", "-200").split())  # lines are broken
        assert f"alreadyhasasupervisor:process{first.pid}since" in told
    finally:
        first.terminate()
        first.wait()


@pytest.mark.slow
def test_a_command_that_hangs_holds_up_neither_keys_nor_the_end(
    ws: Workspace, terminal: Open
) -> None:
    ws.script({"block": {"completed": True}, "append": {"a": "1"}})
    assert ws.run() == 0
    slow = ws.root / "slow" / "git"
    slow.parent.mkdir()
    slow.write_text(
        f"#!/bin/sh\ntouch '{ws.root}/asked'\nuntil [ -e '{ws.root}/go' ]; do sleep 0.1; done\n"
    )
    slow.chmod(0o755)
    top = terminal(PATH=f"{slow.parent}:{os.environ['PATH']}")
    top.until("1 done")
    top.keys("d")
    wait_until((ws.root / "asked").exists, "git to be asked")
    top.keys("?")
    top.until("what the iteration changed")
    top.keys("q")
    top.until("ended with 0")
    (ws.root / "go").touch()


def test_without_colours_it_says_everything_by_words_and_marks(
    ws: Workspace, terminal: Open
) -> None:
    """Negative control: without NO_COLOR there are some."""
    colour = re.compile(r"\x1b\[[0-9;]*(?:3[1-7]|38;|9[1-7])")
    ws.script({"block": {"completed": True}})
    assert ws.run() == 0
    plain = terminal(NO_COLOR="1")
    assert "> " in plain.until("1 done")
    assert not colour.search(plain.screen(colours=True))
    bright = terminal()
    bright.until("1 done")
    assert colour.search(bright.screen(colours=True))


def test_a_loop_that_is_named_is_opened(ws: Workspace, terminal: Open) -> None:
    ws.script({"block": {"completed": True}, "append": {"a": "1"}})
    assert ws.run() == 0
    top = terminal("work space")
    assert "loops > work space" in top.until("completed")
    top.keys("q")
    top.until("ended with 0")


def on_a_terminal(ws: Workspace, *words: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of `top` where stdin and stdout are a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*TOP, *words], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ws.path,
        env=ws.environment | {"COLUMNS": "100"} | environment,
    )  # fmt: skip
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 65536):
            text += piece
    except OSError:  # the terminal is closed at its end
        pass
    os.close(ours)
    return process.wait(60), text.decode()


def test_a_terminal_without_a_cursor_gets_the_status(ws: Workspace) -> None:
    code, text = on_a_terminal(ws, "--workspace", str(ws.path), TERM="dumb")
    assert code == 0
    assert "TERM=dumb" in text
    assert "No loop has run in" in text
    assert "\x1b" not in text


def test_without_a_terminal_it_is_the_status_of_all_loops(ws: Workspace) -> None:
    assert ws.run("--max-iterations", "1", "--no-change-gate", "0") is not None
    done = subprocess.run(
        TOP, cwd=ws.root, env=ws.environment, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert "there is no terminal; this is what `status` says" in done.stderr
    assert done.stdout.startswith("NAME")
    assert "work space" in done.stdout


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    ws: Workspace, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys\nsys.modules['textual'] = None\n")
    code, text = on_a_terminal(ws, TERM="xterm", PYTHONPATH=str(site))
    assert code == 2
    assert "the board needs the extra [screens] (textual is not installed)" in text
    assert " install " in text
    assert "Traceback" not in text


def test_a_loop_that_is_not_there_is_said_before_anything_is_drawn(ws: Workspace) -> None:
    code, text = on_a_terminal(ws, "nobody", TERM="xterm")
    assert code == 2
    assert "no loop is called 'nobody'" in text
