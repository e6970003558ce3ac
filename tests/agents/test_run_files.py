"""Bounded reading: memory stays flat whatever an agent wrote."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from codex_self_iter.agents import catalog
from codex_self_iter.agents.base import Request
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core.runs import EndCause, RunOutcome

MIB = 1024 * 1024


@pytest.fixture
def files(tmp_path):
    return RunFiles(str(tmp_path))


def write(files, data: bytes, name="stdout.log"):
    with open(files.path(name), "wb") as file:
        file.write(data)


def test_missing_files_are_empty(files):
    assert files.size("x") == 0
    assert files.read_tail("x") == ""
    assert list(files.iter_lines("x")) == []


def test_lines_come_as_written_the_last_one_even_without_its_end(files):
    write(files, "a\r\n\nb ü\n{half".encode())
    assert list(files.iter_lines("stdout.log")) == ["a", "", "b ü", "{half"]


def test_a_tail_begins_with_a_whole_character(files):
    write(files, "üüü".encode())
    assert files.read_tail("stdout.log", 3) == "ü"
    write(files, b"\xff\xfe ok")
    assert files.read_tail("stdout.log").endswith(" ok")


def test_a_tail_begins_with_a_whole_word(files):
    """Half a secret is none that anybody could find."""
    write(files, b"key sk-proj-0123456789abcdef and more")
    assert files.read_tail("stdout.log", 20) == "and more"
    assert files.read_tail("stdout.log") == "key sk-proj-0123456789abcdef and more"
    write(files, b"x" * 9000)
    assert files.read_tail("stdout.log", 8000) == "x" * 8000  # nothing that could be a secret


def test_of_a_large_file_head_and_tail_are_read_in_whole_lines(files):
    line = b"x" * 999 + b"\n"
    write(files, b"first\n" + line * 30_000 + b"last\n")
    lines = list(files.iter_lines("stdout.log"))
    assert lines[0] == "first"
    assert lines[-1] == "last"
    assert {len(one) for one in lines[1:-1]} == {999}
    assert 9000 < len(lines) < 10_000


def test_a_monstrous_line_is_dropped_and_its_neighbours_are_not(files):
    write(files, b"before\n" + b"x" * (9 * MIB) + b"\nafter\n")
    assert list(files.iter_lines("stdout.log")) == ["before", "after"]


def test_a_hole_is_no_line(files):
    """What capping a log leaves behind: NULs where the middle was."""
    with open(files.path("stdout.log"), "wb") as file:
        file.write(b"before\n{half")
        file.seek(30 * MIB)
        file.write(b"rest}\nafter\n")
    lines = list(files.iter_lines("stdout.log"))
    assert lines[0] == "before"
    assert lines[-1] == "after"
    assert not any("half" in line and "rest" in line for line in lines)


READ = """
import sys
from codex_self_iter.agents import catalog
from codex_self_iter.agents.base import Request
from codex_self_iter.agents import catalog
from codex_self_iter.agents.base import Request
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core.runs import EndCause, RunOutcome
from codex_self_iter.core.runs import EndCause, RunOutcome
files = RunFiles(sys.argv[1])
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
before = peak()
run = RunOutcome("r", EndCause.EXIT, 0, None, 0.0, 1.0)
for name in ("codex", "claude", "plan-shell"):
    report = catalog.get(name).read(Request("", "", "/", "", sys.argv[1], environment={}), run, files)
    assert name == "claude" or report.answer.rstrip().endswith("done"), report
    files.read_tail("stdout.log", 4096)
if sys.argv[2:]:
    open(files.path("stdout.log"), "rb").read()
print((peak() - before) // 1024)
"""


def peak_growth(directory, *more) -> int:
    """MiB by which reading a run's files raised the peak of a fresh process's memory."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(directory), *more],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


END = (
    b'\n{"type":"item.completed","item":{"type":"agent_message","text":"done"}}\n'
    b'{"type":"turn.completed","usage":{"input_tokens":1}}\ndone\n'
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("kind", ["1 GiB", "200 MiB line"])
def test_memory_stays_flat(tmp_path, kind):
    """Two outputs that would not fit: 1 GiB (sparse), and one line of 200 MiB before the end."""
    with open(tmp_path / "stdout.log", "wb") as file:
        file.write(b'{"type":"thread.started","thread_id":"t"}\n{"type":"turn.started"}\n')
        if kind == "1 GiB":
            file.seek(1024 * MIB)
        else:
            for _ in range(200):
                file.write(b"x" * MIB)
        file.write(END)
    assert peak_growth(tmp_path) < 64


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_negative_control_reading_it_all_is_not_flat(tmp_path):
    with open(tmp_path / "stdout.log", "wb") as file:
        file.seek(200 * MIB)
        file.write(END)
    assert peak_growth(tmp_path, "all") > 150


@pytest.mark.parametrize("after", [b"", b"\n", b'\n{"type":"x"}\n'])
@pytest.mark.parametrize("size", [9 * MIB, 20 * MIB])
def test_a_final_event_that_is_too_long_is_said_to_be(tmp_path, after, size):
    files = RunFiles(str(tmp_path))
    final = b'{"type":"result","subtype":"success","result":"' + b"x" * size + b'"}'
    write(files, b'{"type":"system","subtype":"init"}\n' + final + after)
    request = Request("", "", "/", "", str(tmp_path), environment={"HOME": str(tmp_path)})
    ended = RunOutcome("r", EndCause.EXIT, 0, None, 0.0, 1.0)
    failure = catalog.get("claude").read(request, ended, files).failure
    assert failure is not None
    said = "an event longer than 8 MiB was not read, and no final one was seen"
    assert failure.message == said


def test_one_that_is_missing_is_said_to_be(tmp_path):
    files = RunFiles(str(tmp_path))
    write(files, b'{"type":"system","subtype":"init"}\n')
    request = Request("", "", "/", "", str(tmp_path), environment={"HOME": str(tmp_path)})
    ended = RunOutcome("r", EndCause.EXIT, 0, None, 0.0, 1.0)
    failure = catalog.get("claude").read(request, ended, files).failure
    assert failure is not None
    assert failure.message == "ended without a final event"
