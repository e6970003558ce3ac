"""What is asked of a lane arrives once and in order; what is no wish is set aside."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from codex_self_iter.core.lanes import Wish
from codex_self_iter.errors import UsageError
from codex_self_iter.world.state.lane_files import (
    MAX_WISH,
    MOST_WISHES,
    done,
    is_lane,
    read_wishes,
    write_wish,
)
from codex_self_iter.world.state.root import StateRoot


def plant(root: StateRoot, text: str, name: str = "planted.json") -> Path:
    path = Path(root.path, "lanes/asked", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_wishes_come_in_order_until_they_are_done(root: StateRoot) -> None:
    paths = [write_wish(root.path, wish, lane) for wish, lane in zip(Wish, "123", strict=True)]
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in paths} == {0o600}
    read = read_wishes(root)
    assert read == read_wishes(root)  # whoever is killed before it has acted reads them again
    assert [(wish, lane) for _, wish, lane in read] == list(zip(Wish, "123", strict=True))
    done(root, read[0][0])
    done(root, read[0][0])  # it may be gone already
    assert read_wishes(root) == read[1:]


def test_a_wish_can_be_left_before_the_first_start(tmp_path: Path) -> None:
    state = str(tmp_path / "work/.state")
    write_wish(state, Wish.KEEP, "3a-2")
    assert Path(state, ".gitignore").read_text() == "*\n"
    assert stat.S_IMODE(os.stat(f"{state}/lanes/asked").st_mode) == 0o700


def test_nothing_asked_makes_nothing(root: StateRoot) -> None:
    assert read_wishes(root) == []
    assert os.listdir(root.path) == []


def test_half_a_file_under_a_dot_name_waits(root: StateRoot) -> None:
    path = plant(root, '{"wish": "ke', ".half.json")
    assert read_wishes(root) == []
    assert path.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        '{"wish": "keep"}',
        '{"lane": "1"}',
        '{"wish": "merge", "lane": "1"}',
        '{"wish": ["keep"], "lane": "1"}',
        '{"wish": "keep", "lane": 1}',
        '{"wish": "keep", "lane": "../1"}',
        '{"wish": "keep", "lane": "٣"}',
        '{"wish": "keep", "lane": "1", "x": "' + "x" * MAX_WISH + '"}',
        '{"a":' * 2000,
    ],
)
def test_what_is_no_wish_is_set_aside_and_hides_no_other(root: StateRoot, text: str) -> None:
    path = plant(root, text)
    write_wish(root.path, Wish.DROP, "2")
    assert [(wish, lane) for _, wish, lane in read_wishes(root)] == [(Wish.DROP, "2")]
    assert not path.exists()
    assert len(os.listdir(f"{root.path}/quarantine")) == 1
    assert "was set aside" in root.take_warnings()[0]


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_no_file_is_set_aside(root: StateRoot, kind: str, tmp_path: Path) -> None:
    path = plant(root, "")
    path.unlink()
    if kind == "link":
        target = tmp_path / "wish"
        target.write_text(json.dumps({"wish": "keep", "lane": "1"}))
        path.symlink_to(target)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert read_wishes(root) == []
    assert not os.path.lexists(path)


def test_a_link_in_the_place_of_the_directory_leads_nowhere(
    root: StateRoot, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.json").write_text('{"wish": "drop", "lane": "1"}')
    Path(root.path, "lanes").mkdir()
    Path(root.path, "lanes/asked").symlink_to(elsewhere)
    assert read_wishes(root) == []
    assert (elsewhere / "1.json").exists()


def test_a_flood_is_read_in_parts(root: StateRoot) -> None:
    for number in range(MOST_WISHES + 1):
        plant(root, '{"wish": "keep", "lane": "1"}', f"{number:06d}.json")
    read = read_wishes(root)
    assert len(read) == MOST_WISHES
    for name, _, _ in read:
        done(root, name)
    assert len(read_wishes(root)) == 1


def test_a_directory_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is not a directory; move it away"):
        write_wish(str(tmp_path / "file/state"), Wish.KEEP, "1")


def test_the_names_of_lanes() -> None:
    assert all(map(is_lane, ("1", "12b", "3-2", "3a-12")))
    assert not any(map(is_lane, ("", "a", "1/2", "..", "1A", "-1", "1-", None, 3, "1\n")))
