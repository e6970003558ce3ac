"""The console never waits for its reader, and says what the reader has missed."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from typing import TextIO

import pytest

from codex_self_iter.world import console
from codex_self_iter.world.console import MOST_LINES, Console, say


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """The smallest pipe: its end to read from, and a stream that writes to it."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    with open(write, "w", encoding="utf-8") as stream:
        yield read, stream
    os.close(read)


def read_until(fd: int, text: str) -> list[str]:
    """Lines up to the one that has the text."""
    said = b""
    while text.encode() not in said or not said.endswith(b"\n"):
        said += os.read(fd, 65536)
    return said.decode().splitlines()


def test_lines_that_nobody_reads_are_counted_and_told(pipe: tuple[int, TextIO]) -> None:
    read, stream = pipe
    shown = Console(stream)
    shown.say_lost = lambda lines: shown.line(f"lost {lines}")
    for number in range(5 * MOST_LINES):
        shown.line(f"line {number}")
    lines = read_until(read, "lost ")
    kept, lost = lines[:-1], int(lines[-1].removeprefix("lost "))
    assert len(kept) + lost == 5 * MOST_LINES
    assert lost > 0
    numbers = [int(line.removeprefix("line ")) for line in kept]  # some after the first lost, too
    assert numbers == sorted(set(numbers))
    assert numbers[:MOST_LINES] == [*range(MOST_LINES)]
    shown.line("again")
    assert read_until(read, "again") == ["again"]


def test_the_end_waits_for_a_reader_only_while_it_reads(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "PATIENCE_SEC", 0.2)
    read, stream = pipe
    shown = Console(stream)
    for number in range(MOST_LINES):
        shown.line(f"line {number} {'x' * 100}")
    begun = time.monotonic()
    shown.close()  # returns although nobody reads
    assert time.monotonic() - begun >= 0.2
    read_until(read, f"line {MOST_LINES - 1} ")


def test_what_is_read_is_written_before_the_end(pipe: tuple[int, TextIO]) -> None:
    read, stream = pipe
    shown = Console(stream)
    shown.line("the last")
    shown.close()
    assert os.read(read, 100) == b"the last\n"


def test_a_live_line_that_nobody_reads_does_not_pile_up(pipe: tuple[int, TextIO]) -> None:
    read, stream = pipe
    shown = Console(stream)
    shown.line("x" * 8000)
    for number in range(5 * MOST_LINES):
        shown.live(f"now {number}")
    assert read_until_live(read, "now 4999").count("now ") == 1
    shown.close()


def read_until_live(fd: int, text: str) -> str:
    said = b""
    while text.encode() not in said:
        said += os.read(fd, 65536)
    return said.decode()


def test_last_words_are_given_up_when_nobody_listens(pipe: tuple[int, TextIO]) -> None:
    read, stream = pipe
    say(stream, "heard")
    assert os.read(read, 100) == b"heard\n"
    os.write(stream.fileno(), b"x" * 4096)
    say(stream, "unheard", 0.1)
    assert read_until(read, "unheard")[0].startswith("xxx")


def test_a_nonblocking_stream_gets_all_of_a_line(pipe: tuple[int, TextIO]) -> None:
    read, stream = pipe
    os.set_blocking(stream.fileno(), False)
    shown = Console(stream)
    shown.line("y" * 20_000)
    assert read_until(read, "y" * 20_000) == ["y" * 20_000]
    shown.close()
