"""Whole files, replaced by rename: half of one is never read, and nothing is left of what failed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from codex_self_iter.world.guarded import read_guarded, read_object
from codex_self_iter.world.state.durable import replace_private, replacing


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_is_replaced_with_its_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.json"
    old = os.umask(0o777)
    try:
        replace_private(str(path), b"first", mode=mode)
        replace_private(str(path), b"second", mode=mode, sync=True)
    finally:
        os.umask(old)
    assert path.read_bytes() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_symlink_is_replaced_and_its_target_is_not_touched(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    link = tmp_path / "a.json"
    link.symlink_to(outside)
    replace_private(str(link), b"ours")
    assert (link.is_symlink(), link.read_bytes(), outside.read_bytes()) == (
        False, b"ours", b"theirs",
    )  # fmt: skip


def test_names_are_taken_below_an_open_directory(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        replace_private("a", b"here", dir_fd=fd)
    finally:
        os.close(fd)
    assert (tmp_path / "a").read_bytes() == b"here"


def test_what_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(str(path), f"{path}.tmp") as fd:
            os.write(fd, b"half")
            assert path.read_bytes() == b"old", "the present one stays until the new one is whole"
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", ["a"])


def test_what_was_planted_under_the_temporary_name_is_not_written_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    os.link(outside, tmp_path / "a.tmp")
    with replacing(str(tmp_path / "a"), str(tmp_path / "a.tmp")) as fd:
        os.write(fd, b"ours")
    assert ((tmp_path / "a").read_bytes(), outside.read_bytes()) == (b"ours", b"theirs")


@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "socket", "nothing"])
def test_only_a_regular_file_is_read_and_nothing_waits(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    (tmp_path / "outside").write_text('{"a": 1}')
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "outside")
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError):  # noqa: PT011 - which one differs by the kind
        read_guarded(str(path), 10)
    assert read_object(str(path)) is None
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "text", ["[1]", "{", "\0" * 9, "[" * 60_000, '{"a": "' + "x" * 70_000 + '"}']
)
def test_what_is_no_object_within_the_bound_is_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a"
    path.write_text(text)
    assert read_object(str(path)) is None


def test_negative_control_an_object_is_read_within_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text('{"a": 1}')
    assert read_object(str(path)) == {"a": 1}
    assert read_guarded(str(path), 3) == b'{"a'
