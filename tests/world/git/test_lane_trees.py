"""Work trees of lanes: made, taken over, and removed only when nothing is lost with them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from codex_self_iter.world.git import lane_trees
from codex_self_iter.world.git.run import Git, GitError
from codex_self_iter.world.process.tool import run_tool
from tests.support.git_repo import Repo, isolate

pytestmark = pytest.mark.anyio


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    isolate(monkeypatch)
    return Repo(tmp_path / "the 'repo' ä")


@pytest.fixture
def git(repo: Repo) -> Git:
    return Git(run_tool, str(repo.path))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "lanes" / 'of "x"\n ü' / "1"


def names(repo: Repo) -> list[str]:
    """Paths of the linked work trees."""
    blocks = repo.git("worktree", "list", "--porcelain", "-z").split("\0\0")
    return [block.split("\0")[0].removeprefix("worktree ") for block in blocks[1:] if block]


async def test_a_lane_comes_and_goes(repo: Repo, git: Git, place: Path) -> None:
    assert await lane_trees.add(git, str(place), repo.head()) == []
    assert (place / "a.txt").read_text() == "one\n"
    assert repo.git("rev-parse", "HEAD", cwd=place).strip() == repo.head()
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert names(repo) == [str(place)]
    (place / "ignored").mkdir()
    (place / "ignored/x").write_text("")
    assert await lane_trees.in_the_way(git, str(place)) == ""
    await lane_trees.remove(git, str(place))
    assert not place.exists()
    assert names(repo) == []
    await lane_trees.remove(git, str(place))


async def test_what_is_there_is_taken_over_as_it_is(repo: Repo, git: Git, place: Path) -> None:
    await lane_trees.add(git, str(place), repo.head())
    (place / "work").write_text("w")
    assert await lane_trees.add(git, str(place), repo.head()) == []
    assert (place / "work").read_text() == "w"
    assert "(work)" in await lane_trees.in_the_way(git, str(place))


async def test_a_foreign_directory_is_never_touched(repo: Repo, git: Git, place: Path) -> None:
    place.mkdir(parents=True)
    (place / "x").write_text("x")
    with pytest.raises(GitError, match="move it away"):
        await lane_trees.add(git, str(place), repo.head())
    with pytest.raises(GitError, match="not removed"):
        await lane_trees.remove(git, str(place))
    assert os.listdir(place) == ["x"]


async def test_kept_commits(repo: Repo, git: Git) -> None:
    first = repo.head()
    await lane_trees.keep(git, "1", first)
    second = repo.git("commit-tree", "-m", "x", "HEAD^{tree}").strip()
    await lane_trees.keep(git, "1", second)
    assert await lane_trees.kept(git) == {"1": second, "1.1": first}
    await lane_trees.forget(git, "1")
    assert await lane_trees.kept(git) == {"1.1": first}
