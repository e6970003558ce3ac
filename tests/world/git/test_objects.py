"""What only deleted checkpoints needed goes; what anybody else needs, or may need soon, stays."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from codex_self_iter.world.git import objects
from codex_self_iter.world.git.checkpoints import Checkpoints
from codex_self_iter.world.git.run import Git
from codex_self_iter.world.process.tool import run_tool
from tests.support.git_repo import Repo, isolate

pytestmark = pytest.mark.anyio
MIB = 2**20


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    isolate(monkeypatch)
    return Repo(tmp_path / "r")


@pytest.fixture
def git(repo: Repo) -> Git:
    return Git(run_tool, str(repo.path))


def blob(repo: Repo, name: str) -> str:
    return repo.git("hash-object", name).strip()


def there(repo: Repo, name: str) -> bool:
    return (repo.path / ".git/objects" / name[:2] / name[2:]).exists()


async def three_versions(repo: Repo, git: Git) -> list[str]:
    """Three checkpoints of one big file; its blobs. Then only the newest checkpoint is kept."""
    points, blobs = Checkpoints(git, str(repo.state)), []
    for number in (1, 2, 3):
        (repo.path / "big").write_bytes(os.urandom(MIB))
        assert not (await points.save(number)).error
        blobs.append(blob(repo, "big"))
    return blobs


async def prune(repo: Repo, git: Git) -> None:
    assert await Checkpoints(git, str(repo.state)).prune(1, 0, time.time()) == 2


async def test_old_versions_go_and_the_repository_is_whole(repo: Repo, git: Git) -> None:
    blobs = await three_versions(repo, git)
    assert all(there(repo, one) for one in blobs)
    await prune(repo, git)
    assert [there(repo, one) for one in blobs] == [False, False, True]
    assert "missing" not in repo.git("fsck", "--full")
    assert (await objects.count(git)).mb < 1.5


@pytest.mark.parametrize(
    "keep",
    [
        lambda repo, one: repo.git("update-index", "--add", "--cacheinfo", f"100644,{one},x"),
        lambda repo, one: repo.git("tag", "kept", one),
        lambda repo, one: os.utime(repo.path / ".git/objects" / one[:2] / one[2:], None),
        lambda repo, _: (repo.path / ".git/index.lock").touch(),
        lambda repo, _: repo.git("config", "gc.pruneExpire", "never"),
        lambda repo, _: repo.git("config", "gc.pruneExpire", "2.weeks.ago"),
    ],
    ids=["an index", "a ref", "written again", "somebody at work", "never", "not yet"],
)
async def test_what_somebody_needs_stays(repo: Repo, git: Git, keep) -> None:  # type: ignore[no-untyped-def]
    first, *_ = await three_versions(repo, git)
    path = repo.path / ".git/objects" / first[:2] / first[2:]
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    keep(repo, first)
    if path.stat().st_mtime > long_ago + 1800:  # so that it is younger than the checkpoints
        os.utime(path, (time.time() + 60, time.time() + 60))
    await prune(repo, git)
    assert there(repo, first)


async def test_another_work_trees_index_and_head_count(repo: Repo, git: Git) -> None:
    first, second, _ = await three_versions(repo, git)
    repo.git("worktree", "add", "-q", "--detach", str(repo.path.parent / "other"))
    other = repo.path.parent / "other"
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{first},x", cwd=other)
    await prune(repo, git)
    assert there(repo, first)
    assert not there(repo, second)


async def test_git_keeps_up_by_the_repositorys_own_settings(repo: Repo, git: Git) -> None:
    # git guesses from the number of objects in one of its 256 directories
    wanted = (str(number) for number in range(10**6) if _id(str(number)).startswith("17"))
    for number, text in zip(range(5), wanted, strict=False):
        repo.write(f"file {number}", text)
    repo.git("config", "gc.auto", "0")
    repo.commit("many")
    many = (await objects.count(git)).loose
    await objects.keep_up(git)
    assert (await objects.count(git)).loose == many
    repo.git("config", "gc.auto", "10")
    await objects.keep_up(git)
    assert (await objects.count(git)).loose == 0
    graph = repo.path / ".git/objects/info/commit-graph"
    assert not graph.exists()
    repo.git("gc", "-q")  # the negative control: by itself it writes one
    assert graph.exists()


@pytest.mark.parametrize("how", [(), ("--split",)], ids=["one", "a chain"])
async def test_what_a_commit_graph_names_stays_whole(
    repo: Repo, git: Git, how: tuple[str, ...]
) -> None:
    points = Checkpoints(git, str(repo.state))
    for number in (1, 2, 3, 4):
        repo.write("b.txt", str(number))
        assert not (await points.save(number)).error
        if number == 2:  # as `git maintenance` does
            repo.git("commit-graph", "write", "--reachable", *how)
    commits = {one.label: one.commit for one in await points.listing()}
    await points.prune(1, 0, time.time())
    assert [there(repo, commits[label]) for label in "1234"] == [True, True, False, True]
    repo.git("fsck", "--full")
    os.unlink(repo.path / ".git/objects" / commits["1"][:2] / commits["1"][2:])
    with pytest.raises(AssertionError, match="commit-graph"):  # the negative control
        repo.git("fsck", "--full")


async def test_a_commit_graph_is_written_anew_without_checkpoints(repo: Repo, git: Git) -> None:
    points = Checkpoints(git, str(repo.state))
    repo.write("b.txt", "1")
    commit = (await points.save(1)).commit
    repo.git("commit-graph", "write", "--reachable")
    graph = repo.path / ".git/objects/info/commit-graph"
    assert bytes.fromhex(commit) in graph.read_bytes()
    wanted = (str(number) for number in range(10**6) if _id(str(number)).startswith("17"))
    for number, text in zip(range(5), wanted, strict=False):
        repo.write(f"file {number}", text)
    repo.git("config", "gc.auto", "0")
    repo.commit("many")
    repo.git("config", "gc.auto", "10")
    await objects.keep_up(git)
    assert bytes.fromhex(repo.head()) in graph.read_bytes()
    assert bytes.fromhex(commit) not in graph.read_bytes()
    repo.git("fsck", "--full")


def _id(text: str) -> str:
    data = f"blob {len(text)}\0{text}".encode()
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
