"""Output files: bounded on disk while they grow and afterwards, read in bounded memory whatever is
in them."""

from __future__ import annotations

import errno
import os
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.world.process.bare import KEPT_BYTES, PIECE_BYTES, Pump
from codex_self_iter.world.process.output import (
    Stream,
    free_disk_mb,
    read_head_tail,
)

MIB = 1 << 20


def appended(path: Path, blocks: int, stream: Stream | None = None) -> None:
    """Write `blocks` MiB of numbered lines the way an agent does; let the cap work after each."""
    with open(path, "ab", buffering=0) as file:
        for number in range(blocks):
            file.write((b"line %08d\n" % number * (MIB // 14))[:-1] + b"\n")
            if stream:
                stream.poll(time.monotonic())


def test_a_growing_file_stays_under_its_cap_and_keeps_head_and_tail(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.write_bytes(b"the beginning\n")
    stream = Stream(str(path), 8 * MIB)
    peak = 0
    for _ in range(10):
        appended(path, 10, stream)
        peak = max(peak, path.stat().st_blocks * 512)
    with open(path, "ab") as file:
        file.write(b"the answer\n")
    assert peak <= 8 * MIB
    assert path.stat().st_size > 90 * MIB  # offsets stay valid for a reader that follows
    assert stream.finish() > 90 * MIB
    assert path.stat().st_size <= 8 * MIB
    text = path.read_bytes()
    assert text.startswith(b"the beginning\n")
    assert text.endswith(b"the answer\n")
    assert text.count(b"bytes dropped ...]\n") == 1
    assert b"\0" not in text


def test_without_the_cap_the_file_grows(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.touch()
    stream = Stream(str(path), 0)
    appended(path, 20, stream)
    stream.finish()
    assert path.stat().st_size >= 19 * MIB


def test_where_holes_are_impossible_the_head_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.write_bytes(b"the beginning\n")
    stream = Stream(str(path), 4 * MIB, holes=False)
    appended(path, 30, stream)
    stream.finish()
    assert path.stat().st_size <= 4 * MIB
    assert path.read_bytes().startswith(b"the beginning\n")


def test_a_small_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.write_bytes(b"a\nb")
    stream = Stream(str(path), MIB)
    stream.poll(1.0)
    assert stream.finish() == 3
    assert path.read_bytes() == b"a\nb"


def test_a_flood_is_looked_at_more_often_than_silence(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.touch()
    stream = Stream(str(path), 512 * MIB)
    quiet = stream.poll(0.0)
    path.write_bytes(b"x")
    chatty = stream.poll(0.1)
    appended(path, 20)
    flood = stream.poll(0.2)
    stream.close()
    assert flood < chatty < quiet


def test_a_deleted_file_comes_back_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "stdout.log"
    path.parent.mkdir()
    path.write_bytes(b"before ")
    stream = Stream(str(path), MIB)
    with open(path, "ab", buffering=0) as agent:
        path.unlink()
        path.parent.rmdir()
        agent.write(b"after")
    stream.finish()
    assert path.read_bytes() == b"before after"
    assert path.stat().st_mode & 0o777 == 0o600


def test_readers_are_flat_on_a_line_of_200_mib(tmp_path: Path) -> None:
    path = tmp_path / "line"
    with open(path, "wb") as file:
        file.write(b"first\n")
        for _ in range(200):
            file.write(b"x" * MIB)
        file.write(b"\nlast\n")
    tracemalloc.start()
    try:
        head, tail, _ = read_head_tail(str(path), 6, 6)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert head == b"first\n"
    assert tail == b"\nlast\n"
    assert peak < 8 * MIB


def test_missing_files_are_empty(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    assert read_head_tail(missing, 10, 10) == (b"", b"", 0)


@given(st.binary(max_size=300), st.integers(0, 100), st.integers(0, 100))
def test_head_and_tail_never_overlap(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, head: int, tail: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "head-tail"
    path.write_bytes(data)
    first, last, dropped = read_head_tail(str(path), head, tail)
    assert len(first) + dropped + len(last) == len(data)
    assert data.startswith(first)
    assert data.endswith(last)
    assert len(first) <= head
    assert len(last) <= tail


def test_free_disk_of_a_directory_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert abs(free_disk_mb(str(tmp_path / "a" / "b")) - free_disk_mb(str(tmp_path))) < 1024


@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
def test_what_took_the_files_name_is_set_aside_and_said(tmp_path: Path, kind: str) -> None:
    path, aside = tmp_path / "stdout.log", tmp_path / "aside"
    path.write_text("the answer\n")
    stream = Stream(str(path), MIB, aside=str(aside))
    path.unlink()
    {"directory": path.mkdir, "fifo": lambda: os.mkfifo(path),
     "link": lambda: path.symlink_to("/dev/zero")}[kind]()  # fmt: skip
    stream.finish()
    assert path.read_text() == "the answer\n"
    assert [name.startswith("stdout.log.") for name in os.listdir(aside)] == [True]
    assert "was no file" in stream.troubles[0]


def test_a_file_that_somebody_cut_is_said(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.write_bytes(b"x" * 1000)
    stream = Stream(str(path), MIB)
    stream.poll(1.0)
    os.truncate(path, 10)
    stream.poll(2.0)
    stream.close()
    assert ["cut by 990 bytes" in trouble for trouble in stream.troubles] == [True]


def test_a_full_disk_is_an_error_and_no_leak(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.touch()
    stream = Stream(str(path), MIB, aside="/dev/null/nowhere")
    path.unlink()
    path.mkdir()  # the name is taken, and cannot be freed: the file cannot come back
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError) as caught:  # noqa: PT011
        stream.finish()
    assert caught.value.errno == errno.ENOTDIR
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_what_a_full_disk_did_not_take_is_written_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    source, writer = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    pump = Pump(source, full)
    printed = b"".join(b"line %08d\n" % number for number in range(2 * KEPT_BYTES // 14))
    for start in range(0, len(printed), PIECE_BYTES):
        os.write(writer, printed[start : start + PIECE_BYTES])
        pump.move()
    os.write(writer, b"the answer\n")
    os.close(writer)
    pump.move()
    room = threading.Timer(0.1, os.dup2, (file, full))
    room.start()
    pump.settle()
    room.join()
    pump.close()
    os.close(file)
    text = path.read_bytes()
    lost = len(printed) + len(b"the answer\n") - KEPT_BYTES
    assert text.startswith(b"\n[... %d bytes lost ...]\n" % lost)
    assert text.endswith((printed + b"the answer\n")[-KEPT_BYTES:])


def test_an_end_does_not_wait_for_ever_for_a_full_disk() -> None:
    source, writer = os.pipe()
    pump = Pump(source, os.open("/dev/full", os.O_WRONLY))
    os.write(writer, b"the answer\n")
    pump.move()
    pump.settle()
    os.close(writer)
    pump.close()
