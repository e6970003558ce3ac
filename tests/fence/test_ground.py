"""What is found around a run: git's directories in every shape, homes, keys, sockets."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.core.fence import Ground
from codex_self_iter.errors import StorageError
from codex_self_iter.world.git.ground import Wanted, survey
from codex_self_iter.world.state import put_back


def git(*words: str, at: Path) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
    subprocess.run(["git", *who, *words], cwd=at, check=True, capture_output=True)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    made = tmp_path / "ws"
    made.mkdir()
    git("init", "-q", "-b", "main", at=made)
    git("commit", "-q", "--allow-empty", "-m", "x", at=made)
    (tmp_path / "home").mkdir()
    return made


def look(workspace: Path, root: Path, **changes: Any) -> tuple[Ground, tuple[str, ...]]:
    values: dict[str, Any] = {
        "agent": "codex", "workspace": str(workspace), "state": str(root / "state"), "run": str(root / "state/run"),
        "scratch": str(root / "state/run/tmp"), "environment": {"HOME": str(root / "home")},
    }  # fmt: skip
    return survey(Wanted(**{**values, **changes}))


def test_a_plain_repository(top: Path, tmp_path: Path) -> None:
    ground, remarks = look(top, tmp_path)
    assert remarks == ()
    assert str(top / ".git") in ground.open
    assert str(top / ".git/config") in ground.sealed
    assert str(top / ".git/config.worktree") in ground.programs
    assert str(top / ".git/config.worktree") not in ground.sealed  # it is not there
    assert str(tmp_path / "home/.codex") in ground.open  # made
    assert (tmp_path / "home/.codex").stat().st_mode & 0o777 == 0o700


def test_a_part_of_a_repository(top: Path, tmp_path: Path) -> None:
    (top / "part").mkdir()
    ground, _ = look(top / "part", tmp_path)
    assert str(top / ".git") in ground.open
    assert str(top / ".git/config") in ground.sealed


def test_a_linked_work_tree(top: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    git("worktree", "add", "-q", str(tree), at=top)
    ground, _ = look(tree, tmp_path)
    own = top / ".git/worktrees/tree"
    assert {str(own), str(top / ".git")} <= set(ground.open)
    sealed = {
        tree / ".git",
        own / "gitdir",
        own / "commondir",
        top / ".git/HEAD",
        top / ".git/worktrees",
    }
    assert set(map(str, sealed)) <= set(ground.sealed)
    assert str(tree / ".git") in ground.programs
    assert str(own / "index") not in ground.sealed


def test_a_submodule_and_hooks_elsewhere(top: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git("init", "-q", at=other)
    git("commit", "-q", "--allow-empty", "-m", "x", at=other)
    git("submodule", "add", "-q", str(other), "sub", at=top)
    (top / ".husky").mkdir()
    git("config", "core.hooksPath", ".husky", at=top)
    ground, _ = look(top, tmp_path)
    assert str(top / ".git/modules/sub/config") in ground.sealed
    assert str(top / ".husky") in ground.sealed


def test_a_repository_behind_a_link(top: Path, tmp_path: Path) -> None:
    (top / ".git").rename(tmp_path / "git")
    (top / ".git").symlink_to(tmp_path / "git")
    ground, _ = look(top, tmp_path)
    assert str(tmp_path / "git/config") in ground.sealed
    assert str(top / ".git") in ground.programs  # the link itself


def test_no_repository(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "home").mkdir()
    ground, _ = look(tmp_path / "plain", tmp_path)
    assert ground.programs == ground.places == ()


def test_what_is_configured_and_odd_is_remarked(top: Path, tmp_path: Path) -> None:
    (tmp_path / "home/.ssh").mkdir()
    (tmp_path / "home/.cache").mkdir()
    ground, remarks = look(
        top,
        tmp_path,
        allow_write=("~/.cache", "~/none"),
        deny_read=("~/.cache/x",),
        allow_read=("~/.ssh",),
    )
    assert str(tmp_path / "home/.cache") in ground.open
    assert ground.closed == ()
    said = " | ".join(remarks)
    assert "allow_write: ~/none is not there" in said
    assert "deny_read: ~/.cache/x is not there" in said
    assert f"allow_read opens {tmp_path}/home/.ssh, which is closed otherwise" in said
    ground, remarks = look(top, tmp_path, allow_write=(str(tmp_path),))
    assert f"{tmp_path} is open, and the workspace lies in it" in remarks


def test_keys_by_a_link_are_closed_where_they_are(top: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "home/.ssh").symlink_to(tmp_path / "keys")
    ground, _ = look(top, tmp_path)
    assert ground.closed == (str(tmp_path / "keys"),)
    assert str(tmp_path / "keys") not in ground.readable
    assert str(tmp_path / "home") in ground.readable


def test_sockets_of_others_are_found_and_those_in_the_workspace_left(
    top: Path, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as far, socket.socket(socket.AF_UNIX) as near:
        for one, path in ((far, tmp_path / "s"), (near, top / "s")):
            one.bind(str(path))
            one.listen()
        ground, _ = look(top, tmp_path)
        assert str(tmp_path / "s") in ground.sockets
        assert str(top / "s") not in ground.sockets
        allowed, _ = look(top, tmp_path, allow_read=(str(tmp_path / "s"),))
        assert str(tmp_path / "s") not in allowed.sockets


# -- put back --------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, Path, str]:
    place, aside, record = tmp_path / "git", tmp_path / "aside", str(tmp_path / "rec/before.json")
    (place / "hooks").mkdir(parents=True)
    (place / "hooks/old").write_text("old")
    (place / "hooks/old").chmod(0o755)
    (place / "hooks/link").symlink_to("old")
    (place / "config").write_text("config")
    paths = [str(place / name) for name in ("hooks", "config", "info")]
    assert put_back.keep(paths, [str(place)], record) == ()
    return place, aside, record


def test_what_was_changed_is_as_before_and_the_change_is_kept(kept: tuple[Path, Path, str]) -> None:
    place, aside, record = kept
    (place / "hooks/old").write_text("new")
    (place / "config").unlink()
    (place / "info").mkdir()
    (place / "info/exclude").write_text("x")
    changed = put_back.put_back(record, str(aside))
    assert [os.path.basename(one) for one in changed] == ["hooks", "config", "info"]
    assert (place / "hooks/old").read_text() == "old"
    assert (place / "hooks/old").stat().st_mode & 0o777 == 0o755
    assert (place / "hooks/link").readlink() == Path("old")
    assert (place / "config").read_text() == "config"
    assert not (place / "info").exists()
    assert sorted(
        path.read_text() for path in aside.rglob("*") if path.is_file() and not path.is_symlink()
    ) == ["new", "x"]
    assert put_back.put_back(record, str(aside)) == ()  # once more: nothing to do
    put_back.forget(record)
    put_back.forget(record)
    (place / "config").write_text("a person's")
    assert put_back.put_back(record, str(aside)) == ()
    assert (place / "config").read_text() == "a person's"


def test_a_directory_that_was_moved_comes_back(kept: tuple[Path, Path, str]) -> None:
    place, aside, record = kept
    place.rename(place.with_name("moved"))
    (place).mkdir()
    (place / "config").write_text("evil")
    changed = put_back.put_back(record, str(aside))
    assert changed[0] == str(place)
    assert (place / "config").read_text() == "config"
    assert not place.with_name("moved").exists()
    assert "evil" in {path.read_text() for path in aside.rglob("config")}


def test_what_cannot_be_put_back_is_said_after_the_others(kept: tuple[Path, Path, str]) -> None:
    place, aside, record = kept
    (place / "hooks/old").write_text("new")
    (place / "config").unlink()
    aside.write_text("no directory")
    with pytest.raises(StorageError):
        put_back.put_back(record, str(aside))
    assert (place / "config").read_text() == "config"
    aside.unlink()
    assert put_back.put_back(record, str(aside)) == (str(place / "hooks"),)


def test_what_is_too_large_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(put_back, "MOST_BYTES", 1000)
    (tmp_path / "big").write_bytes(bytes(2000))
    (tmp_path / "small").write_bytes(b"x")
    paths = [str(tmp_path / "big"), str(tmp_path / "small")]
    assert put_back.keep(paths, [], str(tmp_path / "rec/before.json")) == (paths[0],)
