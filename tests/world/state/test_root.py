"""Nothing that an agent plants in the state directory leads a write out of it, and everything is
private."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path

import pytest

from codex_self_iter.errors import StorageError, UsageError
from codex_self_iter.world.state.durable import encode_json, stamp, write_all
from codex_self_iter.world.state.root import StateRoot


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=["umask0", "umask22", "umask777"])
def umask(request: pytest.FixtureRequest):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def aside(root: StateRoot) -> list[str]:
    return sorted(os.listdir(f"{root.path}/quarantine"))


def test_everything_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    root = StateRoot(str(tmp_path / "state"))
    root.replace("deep/er/file", b"x")
    root.replace("file", b"x", durable=False)
    os.close(root.open_file("deep/log", os.O_WRONLY | os.O_CREAT))
    assert mode(root.path) & 0o077 == 0
    assert mode(f"{root.path}/deep") == mode(f"{root.path}/deep/er") == 0o700
    assert (
        mode(f"{root.path}/file")
        == mode(f"{root.path}/deep/er/file")
        == mode(f"{root.path}/deep/log")
        == 0o600
    )
    root.close()


def test_a_directory_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state").chmod(0o755)
    StateRoot(str(tmp_path / "state")).close()
    assert mode(tmp_path / "state") == 0o700


def test_replace_leaves_one_whole_file_and_no_temporary(root: StateRoot) -> None:
    root.replace("a.json", b"one", keep="a.json.1")
    root.replace("a.json", b"two", keep="a.json.1")
    assert root.read("a.json", 100) == b"two"
    assert root.read("a.json.1", 100) == b"one"
    assert sorted(os.listdir(root.path)) == ["a.json", "a.json.1"]


def test_a_temporary_file_left_by_a_crash_is_no_obstacle(root: StateRoot) -> None:
    Path(root.path, "a.json.tmp").write_bytes(b"half")
    root.replace("a.json", b"whole")
    assert os.listdir(root.path) == ["a.json"]


@pytest.mark.parametrize("name", ["a.json", "a.json.tmp", "a.json.1"])
def test_a_planted_symlink_is_never_written_through(
    root: StateRoot, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    root.replace("a.json", b"one")
    Path(root.path, name).unlink(missing_ok=True)
    os.symlink(outside, f"{root.path}/{name}")
    root.replace("a.json", b"two", keep="a.json.1")
    root.replace("a.json", b"three", keep="a.json.1")
    assert outside.read_text() == "precious"
    assert root.read("a.json", 100) == b"three"
    assert root.read("a.json.1", 100) == b"two"


def test_without_nofollow_the_planted_symlink_would_be_written_through(tmp_path: Path) -> None:
    """The negative control: the plain way to write does what the test above forbids."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    os.symlink(outside, tmp_path / "a.json")
    (tmp_path / "a.json").write_text("lost")
    assert outside.read_text() == "lost"


def test_a_hard_link_under_the_temporary_name_is_not_emptied(
    root: StateRoot, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    os.link(outside, f"{root.path}/a.json.tmp")
    root.replace("a.json", b"ours")
    assert outside.read_text() == "precious"


@pytest.mark.parametrize("name", ["logs", "logs/runs", "quarantine"])
def test_a_directory_that_became_a_symlink_is_set_aside(
    root: StateRoot, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    if "/" in name:
        Path(root.path, "logs").mkdir()
    os.symlink(outside, f"{root.path}/{name}")
    root.replace("logs/runs/x", b"ours")
    root.set_aside("logs/runs/x", "for the test")
    assert os.listdir(outside) == []
    assert not os.path.islink(f"{root.path}/{name}")
    assert any(os.path.islink(f"{root.path}/quarantine/{one}") for one in aside(root))
    assert any(line.startswith(name) for line in root.take_warnings())
    assert root.take_warnings() == []


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
def test_what_is_no_file_is_set_aside_before_it_is_opened(
    root: StateRoot, tmp_path: Path, kind: str
) -> None:
    path = f"{root.path}/thing"
    {
        "symlink": lambda: os.symlink(tmp_path, path),
        "directory": lambda: os.mkdir(path),
        "fifo": lambda: os.mkfifo(path),
    }[kind]()
    os.close(root.open_file("thing", os.O_WRONLY | os.O_CREAT))
    assert stat.S_ISREG(os.lstat(path).st_mode)
    assert len(aside(root)) == 1


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
def test_reading_what_is_no_file_neither_hangs_nor_follows(
    root: StateRoot, tmp_path: Path, kind: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    path = f"{root.path}/thing"
    {
        "symlink": lambda: os.symlink(outside, path),
        "directory": lambda: os.mkdir(path),
        "fifo": lambda: os.mkfifo(path),
    }[kind]()
    assert root.read("thing", 100) is None
    assert root.read("thing", 100) is None
    assert len(aside(root)) == 1


def test_a_file_with_a_second_name_elsewhere_is_not_appended_to(
    root: StateRoot, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    os.link(outside, f"{root.path}/log")
    fd = root.open_file("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    write_all(fd, b"ours")
    os.close(fd)
    assert outside.read_text() == "precious"


def test_setting_aside_never_overwrites(root: StateRoot) -> None:
    for number in range(20):
        root.replace("a.json", str(number).encode(), durable=False)
        root.set_aside("a.json", "for the test")
    assert sorted(
        int(Path(root.path, "quarantine", one).read_text()) for one in aside(root)
    ) == list(range(20))


def test_setting_aside_nothing_is_no_error(root: StateRoot) -> None:
    assert root.set_aside("nothing", "for the test") == ""
    assert root.set_aside("no/thing", "for the test") == ""


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a//x", "./a/x"])
def test_a_name_that_leads_out_is_refused(root: StateRoot, name: str) -> None:
    with pytest.raises(ValueError, match="below the state directory"):
        root.replace(name, b"x")


def test_a_path_that_is_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(UsageError, match="not a directory"):
        StateRoot(str(tmp_path / "state"))


def test_a_missing_directory_is_a_storage_error_when_it_must_exist(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="ENOENT"):
        StateRoot(str(tmp_path / "state"), create=False)


def test_reopening_follows_the_path_not_the_old_inode(root: StateRoot, tmp_path: Path) -> None:
    os.rename(root.path, tmp_path / "moved")
    assert not root.is_current()
    root.reopen()
    assert root.is_current()
    root.replace("a.json", b"x")
    assert os.listdir(root.path) == ["a.json"]


def test_a_symlink_in_place_of_the_directory_itself_is_not_followed(
    root: StateRoot, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    os.rename(root.path, tmp_path / "moved")
    os.symlink(outside, root.path)
    assert not root.is_current()
    root.reopen()
    root.replace("a.json", b"x")
    assert os.listdir(outside) == []
    assert len(aside(root)) == 1
    assert sorted(os.listdir(tmp_path)) == ["moved", "outside", "state"]


def test_json_is_accepted_by_every_reader(root: StateRoot) -> None:
    data = encode_json(
        {"nan": math.nan, "deep": [math.inf, (1, 2)], "odd": "\udcff", "path": Path("/x"), "ü": "ü"}
    )
    assert json.loads(data) == {
        "nan": None,
        "deep": [None, [1, 2]],
        "odd": "\udcff",
        "path": "/x",
        "ü": "ü",
    }
    assert b"NaN" not in data
    assert encode_json({"a": "ü"}) == '{"a":"ü"}'.encode()


def test_stamps_sort_like_the_times() -> None:
    times = [0.0, 0.5, 0.999999, 1.0, 1e9, 1.5e9 + 0.25]
    assert [stamp(one) for one in times] == sorted(stamp(one) for one in times)
