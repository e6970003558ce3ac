"""logs: what the agent printed, rendered, raw, across iterations, bounded, followed."""

import json
import os
import pathlib
import resource
import subprocess
import time
from pathlib import Path
from typing import IO

import pytest

from codex_self_iter.core.agent_names import AUTO
from codex_self_iter.views.summary import Life, Seen, standstill

RECORDED = pathlib.Path(__file__).parents[1] / "agents" / "recorded"
CODEX = [
    {"type": "thread.started", "thread_id": "t-1"},
    {
        "type": "item.started",
        "item": {"type": "command_execution", "command": "/bin/bash -lc 'pytest -q'"},
    },
    {
        "type": "item.completed",
        "item": {
            "type": "command_execution",
            "command": "/bin/bash -lc 'pytest -q'",
            "aggregated_output": "F\n1 failed\n",
            "exit_code": 1,
        },
    },
    {"type": "item.completed", "item": {"type": "agent_message", "text": "I mend it."}},
]


def run_directory(
    command, name: str, stdout: bytes | list[object] = b"", stderr: bytes = b""
) -> Path:
    directory = command.state_dir / "logs" / "runs" / name
    directory.mkdir(parents=True)
    if isinstance(stdout, list):
        stdout = b"".join(json.dumps(event).encode() + b"\n" for event in stdout)
    (directory / "stdout.log").write_bytes(stdout)
    (directory / "stderr.log").write_bytes(stderr)
    return directory


def test_the_last_iteration_is_rendered(command) -> None:
    run_directory(command, "000001-executor", b"old\n")
    run_directory(command, "000002-executor", CODEX, b"a warning\n")
    done = command("logs")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "── 000002-executor ──", "  thread t-1", "$ pytest -q", "  | F", "  | 1 failed", "  exit 1",
        "I mend it.",
        "! a warning",
    ]  # fmt: skip


def test_how_a_gate_ended_is_said_above_its_output(command) -> None:
    for number in (1, 2):
        run_directory(command, f"000001-gate-{number}", b"working\n")
    gates = [
        {"command": "make", "exit_code": 0, "timed_out": False, "ok": True},
        {"command": "pytest", "exit_code": None, "timed_out": True, "ok": False},
    ]
    record = json.dumps({"iteration": 1, "gates": gates})
    (command.state_dir / "logs" / "iterations.jsonl").write_text(record + "\n")
    heads = command("logs").stdout.splitlines()[::2]
    assert heads == ["── 000001-gate-1 ──", "── 000001-gate-2: timed out ──"]


@pytest.mark.parametrize("cli", AUTO)
def test_what_real_agents_said_is_shown_byte_for_byte(command, cli: str) -> None:
    """`shown/` is what `logs` shows of the recordings, looked through when they were made."""
    for number, stream in enumerate(sorted(RECORDED.glob(f"{cli}/*.jsonl")), start=1):
        stderr = stream.parent / f"{stream.name.split('.')[0]}.stderr"
        said = stderr.read_bytes() if stderr.exists() else b""
        run_directory(command, f"{number:06}-executor", stream.read_bytes(), said)
    shown = pathlib.Path(__file__).parent / "shown" / f"{cli}.txt"
    assert command("logs", "--all").stdout == shown.read_text(encoding="utf-8")


def test_runs_are_in_the_order_in_which_they_ran(command) -> None:
    names = [
        "000009-executor",
        "000010-planner",
        "000010-executor",
        "000010-executor-2",
        "000010-gate-1",
        "000010-reviewer",
    ]
    for second, name in enumerate(names):
        directory = run_directory(command, name, name.encode() + b" speaks\n")
        os.utime(directory, (1_000_000 + second, 1_000_000 + second))
    (command.state_dir / "logs" / "runs" / "foreign").mkdir()
    spoken = [
        line.split()[0] for line in command("logs", "--all").stdout.splitlines() if "speaks" in line
    ]
    assert spoken == names
    assert "000009" not in command("logs").stdout
    assert "000009" in command("logs", "--last", "2").stdout
    assert "000010" not in command("logs", "9").stdout


def test_an_iteration_without_output_names_what_is_kept(command) -> None:
    assert command("logs").returncode == 2
    run_directory(command, "000003-executor", b"x\n")
    done = command("logs", "7")
    assert done.returncode == 2
    assert "kept are 3 to 3" in done.stderr


def test_what_changes_in_a_run_directory_later_does_not_change_the_order(command) -> None:
    for second, name in enumerate(("000001-executor", "000001-gate-1")):
        directory = run_directory(command, name, name.encode() + b" speaks\n")
        (directory / "identity.json").touch()
        os.utime(directory / "identity.json", (1_000_000 + second, 1_000_000 + second))
        os.utime(directory, (2_000_000 - second, 2_000_000 - second))
    lines = command("logs").stdout.splitlines()
    spoken = [line.split()[0] for line in lines if "speaks" in line]
    assert spoken == ["000001-executor", "000001-gate-1"]


def test_raw_is_byte_for_byte(command) -> None:
    data = b"\x1b[31m\xff\x00 red\r\nno line feed at the end"
    run_directory(command, "000001-executor", data, b"err\xfe")
    done = subprocess.run(
        command.argv("logs", "--raw"),
        cwd=command.workspace,
        env=command.env,
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert (done.stdout, done.stderr) == (data, b"err\xfe")


def test_rendered_output_cannot_drive_the_terminal(command) -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jtext\x9b5m\u202e"
    run_directory(
        command,
        "000001-executor",
        [*CODEX, {"type": "item.completed", "item": {"type": "agent_message", "text": evil}}],
        evil.encode(),
    )
    text = command("logs").stdout
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)
    assert "text" in text


def test_a_line_of_any_length_is_cut_in_bounded_memory(command) -> None:
    directory = run_directory(command, "000001-executor")
    with (directory / "stdout.log").open("wb") as file:
        for _ in range(100):
            file.write(b"x" * 2_000_000)
        file.write(b"\nthe last line\n")

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (180_000_000, 180_000_000))

    done = subprocess.run(
        command.argv("logs"), cwd=command.workspace, env=command.env, capture_output=True, text=True,
        timeout=60, check=False, preexec_fn=bounded,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) < 40_000
    assert "the last line" in done.stdout


def test_a_hole_that_the_cap_punched_is_marked_not_read(command) -> None:
    directory = run_directory(command, "000001-executor")
    with (directory / "stdout.log").open("wb") as file:
        file.write(b"head\n")
        file.seek(1 << 34)
        file.write(b"tail\n")
    text = command("logs").stdout
    assert "head" in text
    assert "bytes were dropped here by the output cap" in text
    assert text.rstrip().endswith("tail")


class Follower:
    """`logs -f`, read line by line."""

    def __init__(self, command, *words: str) -> None:
        self.process = subprocess.Popen(
            command.argv("logs", "-f", *words),
            cwd=command.workspace,
            env=command.env,
            stdout=subprocess.PIPE,
            text=True,
        )

    def until(self, expected: str) -> list[str]:
        assert self.process.stdout is not None
        seen: list[str] = []
        for line in self.process.stdout:
            seen.append(line.rstrip("\n"))
            if expected in line:
                return seen
        raise AssertionError(f"{expected!r} never came, only {seen}")

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.mark.parametrize("words", [(), ("--raw",)])
def test_follow_goes_on_across_iterations(command, words: tuple[str, ...]) -> None:
    first = run_directory(command, "000001-executor", b"one\n")
    with Follower(command, *words) as follower:
        follower.until("one")
        append(first / "stdout.log", b"two\n")
        follower.until("two")
        append(first / "stdout.log", b"unfinished")
        second = run_directory(command, "000002-executor")
        append(second / "stdout.log", b"three\n")
        seen = follower.until("three")
        assert "unfinished" in "".join(seen)
        append(second / "stdout.log", b"four\n")
        follower.until("four")


def test_follow_may_begin_before_the_first_run(command) -> None:
    with Follower(command) as follower:
        follower.until("no supervisor has run here yet: waiting for the first start")
        run_directory(command, "000001-executor", b"first\n")
        follower.until("first")


def ended(command) -> None:
    end = {"code": 4, "state": "blocked", "reason": "budget spent", "at": command.iso()}
    command.write_status(state="blocked", run=None, exit=end)
    command.release()


def rest(follower: Follower) -> list[str]:
    """What it says until it ends by itself."""
    assert follower.process.stdout is not None
    lines = follower.process.stdout.read().splitlines()
    assert follower.process.wait() == 0
    return lines


def test_follow_says_what_the_loop_waits_for_and_ends_with_it(command) -> None:
    directory = run_directory(command, "000001-executor", b"one\n")
    command.write_status()
    with Follower(command) as follower:
        follower.until("one")
        wait = {"kind": "error", "until": "2030-01-31T07:36:00.000Z", "reason": "exit code 7"}
        for _ in range(2):  # a heartbeat says the same again
            command.write_status(
                state="backoff", wait=wait, until=wait["until"], since="2030-01-31T07:35:00.000Z"
            )
            time.sleep(0.5)
        assert follower.until("exit code 7") == ["— waits until 07:36:00 (backoff): exit code 7 —"]
        command.write_status(state="paused", reason="PAUSE is there", since=command.iso())
        assert follower.until("paused") == ["— waits (paused): PAUSE is there —"]
        append(directory / "stdout.log", b"unfinished")
        ended(command)
        assert rest(follower) == ["unfinished", "— the loop has ended: blocked, budget spent —"]


def test_follow_waits_for_a_supervisor_that_starts_again(command) -> None:
    directory = run_directory(command, "000001-executor", b"one\n")
    command.write_status()
    with Follower(command) as follower:
        follower.until("one")
        ended(command)
        time.sleep(0.5)
        command.write_status()
        append(directory / "stdout.log", b"two\n")
        assert follower.until("two") == ["two"]


@pytest.mark.parametrize("words", [(), ("--raw",), ("--supervisor",)])
def test_follow_returns_from_a_loop_that_had_ended(command, words: tuple[str, ...]) -> None:
    run_directory(command, "000001-executor", b"last words\n")
    (command.state_dir / "logs" / "supervisor.log").write_text("last words\n", encoding="utf-8")
    ended(command)
    with Follower(command, *words) as follower:
        lines = rest(follower)
    assert "last words" in lines
    assert ("— the loop has ended: blocked, budget spent —" in lines) is (not words)


def test_an_orphan_that_works_on_is_followed_and_a_dead_loop_is_not() -> None:
    status = {"state": "running", "exit": None}
    for orphan, says in (7, ""), (0, "the supervisor is gone without saying why"):
        assert standstill(Seen("n", "/w", "/w/s", status, Life(False, 5.0, 1, orphan))) == says


def test_follow_survives_a_truncation_and_a_deletion(command) -> None:
    directory = run_directory(command, "000001-executor", b"one\n" * 10)
    with Follower(command) as follower, (directory / "stdout.log").open("ab") as agent:
        follower.until("one")
        agent.truncate(0)
        time.sleep(0.5)
        write_now(agent, b"after the cap\n")
        follower.until("after the cap")
        (directory / "stdout.log").unlink()
        write_now(agent, b"still heard\n")
        follower.until("still heard")


def write_now(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()


def test_a_half_line_is_shown_when_it_is_whole(command) -> None:
    event = json.dumps(CODEX[3]).encode()
    directory = run_directory(command, "000001-executor", event[:20])
    with Follower(command) as follower:
        time.sleep(0.5)
        append(directory / "stdout.log", event[20:] + b"\n")
        assert follower.until("I mend it.")[-1] == "I mend it."


def test_the_supervisors_own_log(command) -> None:
    assert command("logs", "--supervisor").returncode == 2
    log = command.state_dir / "logs" / "supervisor.log"
    log.parent.mkdir(parents=True)
    log.write_text("first\n", encoding="utf-8")
    assert command("logs", "--supervisor").stdout == "first\n"
    with Follower(command, "--supervisor") as follower:
        follower.until("first")
        log.rename(log.with_suffix(".log.1"))
        log.write_text("rotated\n", encoding="utf-8")
        follower.until("rotated")
