"""Work trees of lanes: made, taken over, and removed only when nothing is lost with them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.world.bounded import ToolResult
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


@pytest.fixture
async def lane(repo: Repo, git: Git, place: Path) -> Path:
    assert await lane_trees.add(git, str(place), repo.head()) == []
    return place


def names(repo: Repo) -> list[str]:
    """Paths of the linked work trees."""
    blocks = repo.git("worktree", "list", "--porcelain", "-z").split("\0\0")
    return [block.split("\0")[0].removeprefix("worktree ") for block in blocks[1:] if block]


def commit(repo: Repo, lane: Path, name: str = "work") -> str:
    (lane / name).write_text(f"{name}\n")
    repo.git("add", "-A", cwd=lane)
    repo.git("commit", "-qm", name, cwd=lane)
    return repo.git("rev-parse", "HEAD", cwd=lane).strip()


async def test_a_lane_comes_and_goes(repo: Repo, git: Git, lane: Path) -> None:
    assert (lane / "a.txt").read_text() == "one\n"
    assert repo.git("rev-parse", "HEAD", cwd=lane).strip() == repo.head()
    assert repo.git("symbolic-ref", "-q", "HEAD", cwd=lane, check=False) == ""
    assert stat.S_IMODE(lane.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(lane.parent.parent.stat().st_mode) == 0o700
    assert names(repo) == [str(lane)]
    (lane / "ignored").mkdir()
    (lane / "ignored/x").write_text("")
    assert await lane_trees.in_the_way(git, str(lane)) == ""
    await lane_trees.remove(git, str(lane))
    assert not lane.exists()
    assert names(repo) == []
    await lane_trees.remove(git, str(lane))
    assert await lane_trees.in_the_way(git, str(lane)) == ""


async def test_hooks_that_fail_are_not_asked(repo: Repo, git: Git, place: Path) -> None:
    hook = repo.path / ".git/hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    await lane_trees.add(git, str(place), repo.head())
    await lane_trees.remove(git, str(place))


async def test_what_is_there_is_taken_over_as_it_is(repo: Repo, git: Git, lane: Path) -> None:
    (lane / "work").write_text("w")
    tip = commit(repo, lane, "other")
    (lane / "work").write_text("more")
    lock = Path(repo.git("rev-parse", "--absolute-git-dir", cwd=lane).strip()) / "index.lock"
    lock.touch()
    os.utime(lock, (1, 1))
    assert await lane_trees.add(git, str(lane), repo.head()) == []
    assert (lane / "work").read_text() == "more"
    assert repo.git("rev-parse", "HEAD", cwd=lane).strip() == tip
    assert not lock.exists()


async def test_what_git_knows_no_more_is_moved_aside(repo: Repo, git: Git, lane: Path) -> None:
    (lane / "work").write_text("w")
    shutil.rmtree(repo.path / ".git/worktrees/1")
    aside = f"{lane}.1"
    told = f"git knows no more of what was at {lane}: it is at {aside} now"
    assert await lane_trees.add(git, str(lane), repo.head()) == [told]
    assert (Path(aside) / "work").read_text() == "w"
    assert await lane_trees.in_the_way(git, str(lane)) == ""


@pytest.mark.parametrize("how", ["marked", "without a commit", "gone"])
async def test_one_that_was_cut_off_is_made_anew(
    repo: Repo, git: Git, lane: Path, how: str
) -> None:
    own = Path(repo.git("rev-parse", "--absolute-git-dir", cwd=lane).strip())
    (lane / "a.txt").unlink()
    if how == "marked":
        (own / "locked").write_text("initializing")
        (own / "index").unlink()
    elif how == "without a commit":
        (own / "HEAD").write_text("0" * 40 + "\n")
    else:
        shutil.rmtree(lane)
    other = lane.parent / "other"
    repo.git("worktree", "add", "-q", "--detach", str(other))
    shutil.rmtree(other)
    assert await lane_trees.add(git, str(lane), repo.head()) == []
    assert (lane / "a.txt").read_text() == "one\n"
    assert sorted(names(repo)) == sorted([str(lane), str(other)])  # another's is not pruned
    assert await lane_trees.in_the_way(git, str(lane)) == ""


async def test_making_one_that_is_killed_is_done_by_the_next(
    repo: Repo, git: Git, place: Path
) -> None:
    repo.write(".gitattributes", "*.big filter=deadly\n")
    repo.write("x.big", "x\n")
    repo.commit("big")
    repo.git("config", "filter.deadly.smudge", "kill -9 $PPID $(ps -o ppid= $PPID)")
    runner = Git(run_tool, str(repo.path))
    with pytest.raises(GitError):
        await lane_trees.add(runner, str(place), repo.head())
    repo.git("config", "filter.deadly.smudge", "cat")
    assert await lane_trees.add(git, str(place), repo.head()) == []
    assert await lane_trees.in_the_way(git, str(place)) == ""


async def test_a_foreign_directory_is_never_touched(
    repo: Repo, git: Git, place: Path, tmp_path: Path
) -> None:
    place.mkdir(parents=True)
    (place / "x").write_text("x")
    stranger = Repo(tmp_path / "stranger")
    link = tmp_path / "link"
    link.symlink_to(place)
    for path in (place, stranger.path, link, repo.path):
        with pytest.raises(GitError, match=r"move it away|symbolic link"):
            await lane_trees.add(git, str(path), repo.head())
        with pytest.raises(GitError, match=r"not removed|symbolic link"):
            await lane_trees.remove(git, str(path))
    assert os.listdir(place) == ["x"]
    assert stranger.status() == repo.status() == ""


async def test_a_link_inside_is_not_followed(
    repo: Repo, git: Git, lane: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("x")
    (lane / "to").symlink_to(outside)
    (lane / "ignored").mkdir()
    (lane / "ignored/to").symlink_to(outside)
    await lane_trees.remove(git, str(lane))
    assert (outside / "x").read_text() == "x"
    assert not lane.exists()


async def test_directories_that_may_not_be_written(repo: Repo, git: Git, lane: Path) -> None:
    cache = lane / "ignored/mod/deep"
    cache.mkdir(parents=True)
    (cache / "x").write_text("")
    cache.chmod(0o555)
    cache.parent.chmod(0o555)
    await lane_trees.remove(git, str(lane))
    assert not lane.exists()
    assert names(repo) == []


async def test_a_removal_that_was_cut_off_is_done_by_the_next(
    repo: Repo, git: Git, lane: Path
) -> None:
    for name in os.listdir(lane):
        (lane / name).unlink()
    await lane_trees.remove(git, str(lane))
    assert not lane.exists()
    assert names(repo) == []


def untracked(repo: Repo, lane: Path) -> None:
    for number in range(5):
        (lane / f"n{number}").write_text("")


def committed(repo: Repo, lane: Path) -> None:
    commit(repo, lane)


def locked(repo: Repo, lane: Path) -> None:
    repo.git("worktree", "lock", "--reason", "on a stick", str(lane))


def merging(repo: Repo, lane: Path) -> None:
    repo.git("update-ref", "MERGE_HEAD", "HEAD", cwd=lane)


OBSTACLES: list[tuple[Callable[[Repo, Path], None], str]] = [
    (untracked, "has 5 files that no commit has (n0, n1, n2 and 2 more)"),
    (lambda _, lane: (lane / "a.txt").unlink(), "has 1 file that no commit has (a.txt)"),
    (committed, "which no branch and no tag holds; land it or keep it"),
    (locked, "is locked (on a stick); git worktree unlock it"),
    (merging, "has a merge in progress; finish or abort it"),
]


@pytest.mark.parametrize(("act", "told"), OBSTACLES)
async def test_what_would_be_lost_is_told(
    repo: Repo, git: Git, lane: Path, act: Callable[[Repo, Path], None], told: str
) -> None:
    assert await lane_trees.in_the_way(git, str(lane)) == ""
    act(repo, lane)
    assert told in await lane_trees.in_the_way(git, str(lane))


async def test_whose_refs_count(repo: Repo, git: Git, lane: Path) -> None:
    tip = commit(repo, lane)
    repo.git("update-ref", "refs/bisect/good", tip, cwd=lane)  # goes with the work tree
    repo.git("update-ref", "refs/worktree/mine", tip, cwd=lane)
    path = str(lane)
    assert await lane_trees.in_the_way(git, path)
    assert await lane_trees.in_the_way(Git(run_tool, path), path)
    await lane_trees.keep(git, "1", tip)
    assert await lane_trees.in_the_way(git, path)
    assert await lane_trees.in_the_way(git, path, keep_refs=True) == ""
    repo.git("update-ref", "refs/heads/mine", tip)
    assert await lane_trees.in_the_way(git, path) == ""


@pytest.fixture
def somebody(lane: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts processes that stay."""
    started = []

    def start(script: str) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        one = subprocess.Popen(["sh", "-c", script], cwd="/", **pipes)
        assert one.stdout is not None
        one.stdout.readline()
        started.append(one)
        return one

    yield start
    for one in started:
        one.kill()
        one.communicate()


@pytest.mark.parametrize(
    "script", ["cd '{}' && echo && read x", "exec 9<'{}/a.txt' && echo && read x"]
)
async def test_a_process_that_lives_in_it(
    git: Git, lane: Path, somebody: Callable[[str], subprocess.Popen[bytes]], script: str
) -> None:
    (lane.parent / "beside").mkdir()
    somebody(f"cd '{lane.parent}/beside' && echo && read x")
    one = somebody(script.format(lane))
    assert f"process {one.pid} (sh) is at work in {lane}; end it" == await lane_trees.in_the_way(
        git, str(lane)
    )


async def test_no_room_is_told_and_nothing_is_left(repo: Repo, place: Path) -> None:
    async def full(argv: Sequence[str], **rest: Any) -> ToolResult:
        done = await run_tool(argv, **rest)
        if "add" in argv:
            return done._replace(exit_code=128, stderr=b"fatal: x: No space left on device\n")
        return done

    with pytest.raises(
        GitError, match=r"(?s)no room for a work tree at .* is full \([0-9.]+ [GMT]B free\)"
    ):
        await lane_trees.add(Git(full, str(repo.path)), str(place), repo.head())
    assert not place.exists()
    assert names(repo) == []


async def test_a_commit_that_is_not_there(repo: Repo, git: Git, place: Path) -> None:
    with pytest.raises(GitError, match="no work tree at"):
        await lane_trees.add(git, str(place), "1" * 40)
    assert not place.exists()
    assert names(repo) == []


@pytest.mark.parametrize("reachable", [True, False])
async def test_submodules(
    repo: Repo,
    git: Git,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reachable: bool,
) -> None:
    inner = Repo(tmp_path / "inner")
    repo.git("submodule", "--quiet", "add", str(inner.path), "sub")
    repo.commit("with a submodule")
    if reachable:
        monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
        monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.file.allow")
        monkeypatch.setenv("GIT_CONFIG_VALUE_0", "always")
    notes = await lane_trees.add(git, str(place), repo.head())
    assert (place / "sub/a.txt").exists() is reachable
    if not reachable:
        assert notes[0].startswith("submodules could not be fetched: ")
        return
    assert notes == []
    assert await lane_trees.in_the_way(git, str(place)) == ""
    for key, value in (("user.name", "P"), ("user.email", "p@example.org")):
        repo.git("config", key, value, cwd=place / "sub")
    commit(repo, place / "sub")
    assert "(sub)" in await lane_trees.in_the_way(git, str(place))
    repo.git("update-ref", "refs/heads/kept", commit(repo, place))
    assert "commits in a submodule" in await lane_trees.in_the_way(git, str(place))
    await lane_trees.remove(git, str(place))
    assert names(repo) == []


async def test_rest_at(repo: Repo, git: Git, lane: Path) -> None:
    old = repo.head()
    tip = commit(repo, lane)
    lane_git = Git(run_tool, str(lane))
    assert await lane_trees.rest_at(lane_git, old) == []
    assert not (lane / "work").exists()
    (lane / "mine").write_text("m")
    with pytest.raises(GitError, match="no commit has"):
        await lane_trees.rest_at(lane_git, tip)
    assert repo.git("rev-parse", "HEAD", cwd=lane).strip() == old


@pytest.mark.parametrize("lock", ["index.lock", "HEAD.lock"])
async def test_a_lock_that_a_killed_git_has_left_is_in_nobodys_way(
    repo: Repo, git: Git, lane: Path, lock: str
) -> None:
    tip, base = commit(repo, lane), repo.head()
    path = Path(repo.git("rev-parse", "--absolute-git-dir", cwd=lane).strip()) / lock
    tree = Git(run_tool, str(lane))
    for move, to in ((lane_trees.force_to, base), (lane_trees.rest_at, tip)):
        path.touch()
        os.utime(path, (1, 1))
        assert await move(tree, to) == []
        assert repo.git("rev-parse", "HEAD", cwd=lane).strip() == to
        assert not path.exists()
    path.touch()
    with path.open(), pytest.raises(GitError, match=lock.replace(".", r"\.")):  # somebody's
        await lane_trees.force_to(tree, base)
    assert path.exists()


async def test_kept_commits_are_never_lost_to_a_later_one(repo: Repo, git: Git) -> None:
    first = repo.head()
    repo.write("n", "n")
    second = repo.commit("second")
    aside = [repo.git("commit-tree", "-m", x, "HEAD^{tree}").strip() for x in "ab"]
    await lane_trees.keep(git, "1", first)
    await lane_trees.keep(git, "1", second)
    assert await lane_trees.kept(git) == {"1": second}
    for one in (*aside, aside[1], second, aside[0]):
        await lane_trees.keep(git, "1", one)
    assert await lane_trees.kept(git) == {
        "1": aside[0], "1.1": second, "1.2": aside[0], "1.3": aside[1],
    }  # fmt: skip
    with pytest.raises(GitError):
        await lane_trees.keep(git, "no..name", first)


async def test_only_what_has_landed_is_kept_no_more(repo: Repo, git: Git) -> None:
    first = repo.head()
    repo.write("n", "n")
    landed = repo.commit("landed")
    another = repo.git("commit-tree", "-m", "of another loop", "HEAD^{tree}").strip()
    for name, commit in {"1": another, "1.1": first, "1.2": landed, "11": first}.items():
        await lane_trees.keep(git, name, commit)
    await lane_trees.forget(git, "1", landed)
    assert await lane_trees.kept(git) == {"1": another, "11": first}


async def test_what_comes_and_goes_meanwhile_is_in_nobodys_way(
    repo: Repo, git: Git, lane: Path, place: Path
) -> None:
    commit(repo, lane)
    lane_git = Git(run_tool, str(lane))
    made = await lane_trees.keep_all(git, lane_git, "1")
    repo.git("reset", "-q", "--hard", "HEAD~1", cwd=lane)
    repo.git("update-ref", "-d", f"{lane_trees.KEPT}1")
    await lane_trees.add(git, str(place.parent / "2"), repo.head())
    half_made = repo.path / ".git/worktrees/2"  # as git has it before the files are written
    (half_made / "HEAD").write_text("0" * 40 + "\n")
    vanishing = repo.path / ".git" / f"{lane_trees.KEPT}9"  # as one that is removed in this moment
    vanishing.parent.mkdir(parents=True, exist_ok=True)
    vanishing.write_text("0" * 40 + "\n")
    await lane_trees.keep_all(git, lane_git, "1")
    assert made in (await lane_trees.kept(git)).values()
    assert await lane_trees.in_the_way(git, str(lane), keep_refs=True) == ""


async def test_a_bare_repository_with_its_own_configuration(
    repo: Repo, tmp_path: Path, place: Path
) -> None:
    bare = tmp_path / "bare.git"
    repo.git("clone", "-q", "--bare", str(repo.path), str(bare))
    repo.git("config", "extensions.worktreeConfig", "true", cwd=bare)
    repo.git("config", "--worktree", "core.bare", "true", cwd=bare)
    repo.git("config", "--unset", "core.bare", cwd=bare)
    git = Git(run_tool, str(bare))
    await lane_trees.add(git, str(place), repo.head())
    repo.git("gc", "-q", "--prune=now", cwd=bare)
    assert (place / "a.txt").exists()
    assert await lane_trees.in_the_way(git, str(place)) == ""
    await lane_trees.remove(git, str(place))
    assert not place.exists()
