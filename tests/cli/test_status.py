"""`status`: one look tells whether it lives, what it does, until when, and what to do next."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codex_self_iter.world import registry


def test_one_screen_of_a_working_loop(command) -> None:
    command.write_status()
    done = command("status")
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout
    for expected in (
        r"my repo  running  iteration 12  since .* \(12 m \d\d s\)",
        r"alive, pid \d+, up 2 h 00 m, heartbeat \d+ s ago",
        r"goal +Make the parser accept comments",
        r"codex \(executor\), pid 4242, age 11 m \d\d s, cpu 35 %, memory 180 MB, 4 processes",
        r"last output \d+ s ago, 1\.2 MB written, must end by .* \(in 1 h 4\d m\)",
        r"stuck\? +no\n",
        r"8 of 12, last: Write the lexer",
        r"#10 error +1 m 01 s +900 +no control block",
        r"#11 continue +4 m 10 s +12\.3k \$0\.12 +Added the lexer",
        r"1\.2M tokens, \$3\.40, agents worked 2 h 07 m",
        r"state directory 120 MB, 40 GB free",
        r"codex-self-iter logs -f",
    ):
        assert re.search(expected, text), expected
    assert len(text.splitlines()) <= 24
    assert "\x1b" not in text


def test_a_run_that_has_just_begun_has_no_pid(command) -> None:
    command.write_status(run={"agent": "codex", "role": "executor", "pid": None})
    assert "codex (executor), starting, age " in command("status").stdout


def test_a_wait_says_for_what_and_until_when(command) -> None:
    until = command.iso(125)
    command.write_status(
        state="limited",
        run=None,
        until=until,
        reason="usage limit of codex",
        wait={
            "kind": "limited",
            "until": until,
            "length_sec": 3600,
            "reason": "codex: usage limit",
        },
    )
    text = command("status").stdout
    assert "limited until" in text
    assert re.search(r"\(in (2 m|1 m 5)", text)
    assert "codex: usage limit" in text


@pytest.mark.parametrize("verdict", ["stop", "continue"])
def test_what_an_agent_waits_for_is_said_before_run(command, verdict: str) -> None:
    """With another verdict a person has stopped it: the control."""
    end = {"code": 0, "state": "stopped", "reason": "the agent stopped: buy a key"}
    last = {"iteration": 7, "verdict": verdict, "summary": "s", "duration_sec": 1.0}
    command.write_status(state="stopped", run=None, last=last, exit=end | {"at": command.iso(-9)})
    text = command("status").stdout
    assert "exit 0, the agent stopped: buy a key" in text
    asks = verdict == "stop"
    assert [part in text for part in ("waits for a person", "show 7", "steer")] == [asks] * 3
    assert "codex-self-iter run   (goes on" in text


def test_a_supervisor_that_vanished_is_gone(command) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    command.write_status(pid=dead.pid, updated_at=command.iso(-300))
    text = command("status").stdout
    assert "  gone  " in text
    assert "without saying why" in text
    assert "(5 m " in text
    assert "codex-self-iter run" in text
    assert "must end by" not in text


def test_a_recorded_pid_that_lives_is_not_enough(command) -> None:
    """The number may have been used again, or belong to another container: the lock decides."""
    command.write_status()
    assert json.loads(command("status", "--json").stdout)["alive"] is True
    command.release()
    assert json.loads(command("status", "--json").stdout)["alive"] is False


def test_asking_does_not_keep_a_supervisor_from_starting(command) -> None:
    command.write_status()
    command.release()
    command("status")
    command.hold_lock()


def test_an_overdue_heartbeat_is_said(command) -> None:
    command.write_status(updated_at=command.iso(-40))
    text = command("status").stdout
    assert "not responding" in text
    assert re.search(r"for 4\d s", text)
    assert f"kill -KILL {os.getpid()}" in text
    assert "codex-self-iter stop" not in text


def test_an_ended_loop_says_how(command) -> None:
    command.write_status(
        state="stagnated",
        run=None,
        pid=1 << 22,
        exit={
            "code": 3,
            "state": "stagnated",
            "reason": "the same goal 6 times",
            "at": command.iso(-60),
        },
    )
    text = command("status").stdout
    assert "exit 3, the same goal 6 times" in text
    assert f"{command.state_dir}/report.md" in text.replace("\n             ", " ")
    assert text.index("report.md") < text.index("doctor") < text.index("codex-self-iter run ")


def advice(command) -> str:
    """The row `next` of the screen, as one line."""
    return " ".join(command("status").stdout.partition("  next ")[2].split())


@pytest.mark.parametrize("state", ["stopped", "blocked"])
def test_what_keeps_the_next_start_from_working_is_in_the_advice(command, state: str) -> None:
    sentinels = {name: str(command.workspace / name) for name in ("stop_file", "pause_file")}
    sentinels["global_stop_file"] = str(command.workspace / ".codex-stop")
    end = {"code": 0, "state": state, "reason": "", "at": command.iso()}
    command.write_status(state=state, run=None, exit=end, **sentinels)
    assert "--clear-stop" not in advice(command)
    (command.workspace / ".codex-stop").touch()
    (command.workspace / "pause_file").touch()
    told = advice(command)
    assert told.index("codex-self-iter resume") < told.index("codex-self-iter run --clear-stop")
    assert "options of its last start" in told


def test_json_is_the_file_and_two_keys(command) -> None:
    status = command.write_status()
    value = json.loads(command("status", "--json").stdout)
    assert value["alive"] is True
    assert 0 <= value["stale_sec"] < 60
    assert {key: value[key] for key in status} == status


def test_signs_of_trouble_are_collected(command) -> None:
    status = command.write_status()
    run = status["run"] | {"idle_sec": 840.0}
    command.write_status(run=run, counters={"consecutive_errors": 3, "same_goal": 4})
    line = next(line for line in command("status").stdout.splitlines() if "stuck?" in line)
    assert (
        "3 errors in a row, 4 times the same goal, no sign of life from the agent for 14 m 00 s"
        in line
    )


def test_one_of_them_is_one_and_an_ended_loop_is_not_stuck(command) -> None:
    once = {"consecutive_errors": 1, "no_change": 1, "same_goal": 1, "gate_failures": 1}
    command.write_status(counters=once)
    told = "perhaps: 1 error, 1 iteration changed nothing, 1 gate failure\n"
    assert told in command("status").stdout
    end = {"code": 3, "state": "stagnated", "reason": "", "at": command.iso()}
    command.write_status(counters=once, state="stagnated", run=None, exit=end)
    command.release()
    assert "stuck?" not in command("status").stdout


def test_what_a_person_can_do_is_shown_to_its_end(command) -> None:
    path = "/home/somebody/with-a-long/path-to/" + "x" * 150
    told = f"{'many words ' * 30}then mend {path} by hand"
    command.write_status(warnings=[told], goal=told)
    lines = command("status").stdout.splitlines()
    assert told in " ".join(" ".join(lines).split())
    assert sum("…" in line for line in lines) == 1  # the goal


def test_the_gates_that_failed_are_named(command) -> None:
    one = {"verdict": "gate_failed", "summary": "done", "duration_sec": 1.0}
    recent = [one | {"gates_failed": ["pytest -q", "make"]}, one | {"gates_failed": []}]
    command.write_status(recent=recent)
    first, second = [line for line in command("status").stdout.splitlines() if "done" in line]
    assert first.endswith("gate `pytest -q`, … failed: done")
    assert "gate `" not in second


def test_why_a_claim_was_not_believed_is_said(command) -> None:
    why = "3 of 3 plan items are still open"
    one = {"verdict": "claim_rejected", "summary": "done", "duration_sec": 1.0}
    recent = [one | {"unproven": why, "gates_failed": []}]
    command.write_status(recent=recent, last=recent[0])
    text = command("status").stdout
    assert f"{why}: done" in text
    assert f"unproven   {why}\n" in text
    command.write_status(last=one)
    assert "unproven" not in command("status").stdout


def test_agent_text_cannot_drive_the_terminal(command) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\r\nnext\x9b5mline\u202edrow"
    recent = [{"iteration": 1, "verdict": "continue", "summary": evil, "duration_sec": 1.0}]
    command.write_status(goal=evil, reason=evil, warnings=[evil], recent=recent)
    text = command("status").stdout
    assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(text)
    assert "owned" not in text
    assert "next" in text


@pytest.mark.parametrize("began", [True, False])
def test_what_waits_in_the_inbox_is_shown_until_it_is_read(command, began: bool) -> None:
    if began:
        command.write_status(state="stopped", run=None, exit={"code": 0, "reason": "a STOP file"})
    command("goal", "make it fast")
    for text in ("first", "second"):
        command("steer", text)
    shown = command("status").stdout
    assert "the next goal: make it fast" in shown
    assert "2 messages for the next prompt" in shown
    value = json.loads(command("status", "--json").stdout)
    assert (value["waiting_goal"], value["waiting_messages"]) == ("make it fast", 2)
    inbox = command.state_dir / "inbox"
    (inbox / "done").mkdir(exist_ok=True)
    (inbox / "note.md~").touch()  # an editor's, no message
    for one in [*inbox.glob("*.md"), inbox / "goal"]:
        one.rename(inbox / "done" / one.name)
    shown = command("status").stdout
    assert not any(part in shown for part in ("the next goal", "for the next prompt"))
    value = json.loads(command("status", "--json").stdout)
    assert (value["waiting_goal"], value["waiting_messages"]) == ("", 0)


def documented() -> set[str]:
    """The fields of status.json that are always there."""
    docs = Path(__file__).parents[2] / "docs" / "status.md"
    return set(re.findall(r"^\| `(\w+)` \|", docs.read_text().partition("## The states")[0], re.M))


def test_a_workspace_without_a_loop(command) -> None:
    done = command("status")
    assert done.returncode == 0
    assert "No loop has run in" in done.stdout
    assert re.search(r"^Start it: \S*codex-self-iter run$", done.stdout, re.M)  # a plan is there
    far = command("status", "--workspace", str(command.workspace), cwd=command.workspace.parent)
    assert f"codex-self-iter run --workspace '{command.workspace}'" in far.stdout
    (command.workspace / "plan.md").unlink()
    assert (
        'codex-self-iter run "what is wanted"'
        in command("status", "--workspace", str(command.workspace)).stdout
    )
    command.state_dir.mkdir(exist_ok=True)
    (command.state_dir / "plan.md").touch()  # one that was made and accepted
    assert "what is wanted" not in command("status").stdout
    (command.state_dir / "plan.md").rename(command.workspace / "plan.md")
    value = json.loads(command("status", "--json").stdout)
    assert (value["alive"], value["state"], value["stale_sec"]) == (False, None, None)
    assert set(value) == documented()
    assert (value["warnings"], value["counters"]["no_change"]) == ([], 0)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\x00" * 50, b'{"state": 5, "run": [], "recent": {}, "plan": 1}'],
)
def test_a_broken_status_file_is_no_traceback(command, content: bytes) -> None:
    command.state_dir.mkdir()
    (command.state_dir / "status.json").write_bytes(content)
    done = command("status")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_workspace_that_is_not_there(command) -> None:
    done = command("status", "--workspace", "nowhere")
    assert done.returncode == 2
    assert "does not exist" in done.stderr


def test_a_directory_is_no_configuration_file(command) -> None:
    for words in (["status"], ["run"]):
        done = command(*words, "--config", str(command.workspace))
        assert done.returncode == 2
        assert "is a directory; name the file in it" in done.stderr


def test_the_configured_state_directory_is_found(command) -> None:
    (command.workspace / "codex-self-iter.toml").write_text(
        'state_dir = "elsewhere"\n', encoding="utf-8"
    )
    status = command.write_status()
    command.state_dir.rename(command.workspace / "elsewhere")
    assert json.loads(command("status", "--json").stdout)["iteration"] == status["iteration"]
    assert (
        json.loads(command("status", "--json", "--state-dir", "elsewhere").stdout)["iteration"]
        == 12
    )


def test_watch_prints_a_block_when_something_changed(command) -> None:
    command.write_status()
    with subprocess.Popen(
        command.argv("status", "--watch", "--json", "--interval", "0.05"),
        cwd=command.workspace,
        env=command.env,
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdout is not None
        first = json.loads(watch.stdout.readline())
        command.write_status(updated_at=command.iso())  # a heartbeat alone is no news
        command.write_status(iteration=13)
        second = json.loads(watch.stdout.readline())
        watch.terminate()
    assert (first["iteration"], second["iteration"]) == (12, 13)


def test_watch_redraws_in_place_on_a_terminal(command) -> None:
    command.write_status()
    main, other = pty.openpty()
    try:
        with subprocess.Popen(
            command.argv("status", "--watch", "--interval", "0.05"),
            cwd=command.workspace,
            env=command.env | {"TERM": "xterm"},
            stdout=other,
            stdin=other,
        ) as watch:
            seen = read_until(main, b"\x1b[H", times=2)
            watch.terminate()
    finally:
        os.close(main)
        os.close(other)
    assert b"\x1b[J" in seen
    assert b"\x1b[32;1mrunning" in seen or b"\x1b[32" in seen


def test_no_color_is_respected_on_a_terminal(command) -> None:
    command.write_status()
    main, other = pty.openpty()
    try:
        environment = command.env | {"TERM": "xterm", "NO_COLOR": "1"}
        subprocess.run(
            command.argv("status"), cwd=command.workspace, env=environment, stdout=other, check=True
        )
        seen = read_until(main, b"running", times=1)
    finally:
        os.close(main)
        os.close(other)
    assert b"\x1b[" not in seen


def test_a_table_that_is_wider_than_the_terminal_says_so(command) -> None:
    command.write_status()
    config = command.workspace / "two.toml"
    config.write_text('[[workspaces]]\npath = "a"\n[[workspaces]]\npath = "b"\n')
    main, other = pty.openpty()
    try:
        subprocess.run(
            command.argv("status", "--config", str(config)), cwd=command.workspace.parent,
            env=command.env | {"COLUMNS": "60"}, stdout=other, check=True,
        )  # fmt: skip
        lines = read_until(main, b"\n", times=3).decode().splitlines()
    finally:
        os.close(main)
        os.close(other)
    assert all(len(line) == 60 and line.endswith("…") for line in lines[1:])


def read_until(descriptor: int, mark: bytes, times: int) -> bytes:
    seen, deadline = b"", time.monotonic() + 20
    while seen.count(mark) < times and time.monotonic() < deadline:
        if select.select([descriptor], [], [], 0.2)[0]:
            seen += os.read(descriptor, 65536)
    assert seen.count(mark) >= times
    return seen


def test_a_terminal_without_unicode(command) -> None:
    command.write_status(goal="Grüße 日本")
    done = command("status", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "#############......." in done.stdout


def test_start_is_quick(command) -> None:
    """Some three times a bare interpreter; the import of one heavy library alone costs as much
    again. benchmarks/status.py has the figures."""
    command.write_status()
    ratios = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", ""], check=True)
        bare = time.perf_counter() - began
        began = time.perf_counter()
        command("status")
        ratios.append((time.perf_counter() - began) / bare)
    assert min(ratios) < 8, ratios


def test_the_process_probe_knows_boot_and_pid() -> None:
    here = registry.boot_id()
    assert registry.process_alive(os.getpid(), here)
    assert not registry.process_alive(0, here)
    assert not registry.process_alive(1 << 40, here)
    assert not registry.process_alive(os.getpid(), "another boot")


def test_a_current_directory_that_is_gone(command, tmp_path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = f'cd {gone} && rmdir {gone} && exec "$@"'
    argv = ["sh", "-c", shell, "sh", *command.argv("stop")]
    done = subprocess.run(
        argv, env=command.env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "no longer exists" in done.stderr


def test_a_configuration_with_several_loops_shows_all_of_them(command, tmp_path) -> None:
    command.write_status()
    other = tmp_path / "other repo"
    other.mkdir()
    config = tmp_path / "two.toml"
    entry = '[[workspaces]]\npath = "{}"\n'
    config.write_text(
        entry.format(command.workspace) + entry.format("other repo") + 'name = "two"\n'
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = command("status", "--config", str(config), cwd=elsewhere)
    assert (done.returncode, done.stderr) == (0, "")
    rows = done.stdout.splitlines()
    assert len(rows) == 3
    assert "running" in rows[1]
    assert rows[2].startswith("two")
    assert rows[2].endswith(str(other))  # whole: nobody's terminal is too narrow for a pipe
    assert rows[2].split()[1:3] == ["not", "started"]
    states = json.loads(command("status", "--json", "--config", str(config), cwd=elsewhere).stdout)
    assert [one["state"] for one in states] == ["running", None]
    # what is about one loop says which there are; within one of them, that one is meant
    done = command("history", "--config", str(config), cwd=elsewhere)
    assert done.returncode == 2
    assert f"--workspace {other}" in done.stderr
    assert "iteration 12" in command("status", "--config", str(config)).stdout
    config.write_text(entry.format(command.workspace))
    assert "iteration 12" in command("status", "--config", str(config), cwd=elsewhere).stdout


def test_tokens_without_a_price_are_told(command) -> None:
    command.write_status(
        usage={"tokens": 1500, "cost_usd": 0.0, "unpriced_tokens": 1500, "hours": 0}
    )
    assert "1.5k tokens, the cost of 1.5k is not known" in command("status").stdout
