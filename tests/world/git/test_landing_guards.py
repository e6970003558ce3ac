"""What a person does meanwhile is refused by git or found by the landing; nothing of it is lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from codex_self_iter.world.bounded import ToolResult
from codex_self_iter.world.git import follow, landing, locks
from codex_self_iter.world.git.landing import Advanced
from codex_self_iter.world.git.run import Git
from codex_self_iter.world.process.tool import run_tool
from tests.support.git_repo import Repo, isolate
from tests.world.git.test_landing import MAIN, lane

pytestmark = pytest.mark.anyio


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    isolate(monkeypatch)
    repo = Repo(tmp_path / "work tree")
    repo.write("b.txt", "b\n")
    repo.write("dir/c.txt", "c\n")
    repo.commit("base")
    return repo


@pytest.fixture
def git(repo: Repo) -> Git:
    return Git(run_tool, str(repo.path))


@pytest.fixture
def new(repo: Repo) -> str:
    return lane(repo, "one", {"a.txt": "lane\n", "one.txt": "1\n"})


def meanwhile(before: str, act: Callable[[], object]) -> Any:
    """A GitRunner that lets a person act once, just before this command of git."""
    done: list[str] = []

    async def runner(argv: Sequence[str], **rest: Any) -> ToolResult:
        if before in argv and not done:
            done.append(before)
            act()
        return await run_tool(argv, **rest)

    return runner


def tries(repo: Repo, *args: str) -> int:
    """A person's git, which may fail; its exit code."""
    done = subprocess.run(["git", *args], cwd=repo.path, check=False, capture_output=True)
    return done.returncode


@pytest.mark.parametrize("locked", [True, False])
async def test_the_index_is_locked_while_files_are_written(
    repo: Repo, new: str, locked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []

    def person() -> None:
        repo.write("mine.txt", "m\n")
        codes.append(tries(repo, "add", "mine.txt"))

    if not locked:
        monkeypatch.setattr(follow.Hold, "lock", lambda *_: True)
    git = Git(meanwhile("read-tree", person), str(repo.path))
    assert (await landing.advance(git, MAIN, repo.head(), new, "m")).moved
    assert (codes[0] != 0) is locked
    # without the lock what was staged is lost
    assert repo.status() == "?? mine.txt\n"


@pytest.mark.parametrize("held", [True, False])
async def test_head_is_held_while_files_are_written(
    repo: Repo, new: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not held:
        lock = follow.Hold.lock
        monkeypatch.setattr(
            follow.Hold, "lock", lambda self, name: name == self.HEAD or lock(self, name)
        )
    person = lambda: tries(repo, "symbolic-ref", "HEAD", "refs/heads/other")  # noqa: E731
    repo.git("branch", "other")
    git = Git(meanwhile("read-tree", person), str(repo.path))
    assert (await landing.advance(git, MAIN, repo.head(), new, "m")).moved
    assert (repo.status() == "") is held  # the other branch has got the files of this one


async def test_a_switch_between_branch_and_files_leaves_the_files(repo: Repo, new: str) -> None:
    def person() -> None:
        assert tries(repo, "symbolic-ref", "HEAD", "refs/heads/other") == 0

    repo.git("branch", "other")
    git = Git(meanwhile("update-ref", person), str(repo.path))
    assert (await landing.advance(git, MAIN, repo.head(), new, "m")).moved
    assert repo.git("rev-parse", "main").strip() == new
    assert repo.git("symbolic-ref", "HEAD") == "refs/heads/other\n"
    assert repo.status() == ""


async def test_a_commit_just_before_the_branch_moves_wins(repo: Repo, new: str) -> None:
    old, theirs = repo.head(), []

    def person() -> None:
        commit = repo.git("commit-tree", "-p", old, "-m", "p", "HEAD^{tree}").strip()
        repo.git("update-ref", MAIN, commit, old)
        theirs.append(commit)

    git = Git(meanwhile("update-ref", person), str(repo.path))
    result = await landing.advance(git, MAIN, old, new, "m")
    assert (result.moved, result.raced) == (False, True)
    assert repo.head() == theirs[0]
    assert repo.status() == ""
    assert not (repo.path / ".git/index.lock").exists()


async def test_an_edit_just_before_files_are_written_is_kept(repo: Repo, new: str) -> None:
    old = repo.head()
    git = Git(meanwhile("read-tree", lambda: repo.write("a.txt", "edit\n")), str(repo.path))
    result = await landing.advance(git, MAIN, old, new, "m")
    assert not result.moved
    assert repo.head() == old
    assert repo.status() == " M a.txt\n"
    assert repo.read("a.txt") == "edit\n"
    assert "landing taken back" in repo.git("reflog", "-1", "main")


async def test_the_index_is_not_published_while_a_git_may_have_read_the_old_one(
    repo: Repo, new: str
) -> None:
    """It would lock the index once that is free, and write back what it has read."""
    lock = repo.path / ".git" / "index.lock"
    still_locked: list[bool] = []

    async def person() -> None:
        begun = ["git", "cat-file", "--batch"]
        async with await anyio.open_process(begun, cwd=repo.path) as process:
            started.set()
            await anyio.sleep(0.2)
            still_locked.append(lock.exists())
            process.terminate()

    async def runner(argv: Sequence[str], **rest: Any) -> ToolResult:
        if "read-tree" in argv:
            tasks.start_soon(person)
            await started.wait()
        return await run_tool(argv, **rest)

    started = anyio.Event()
    async with anyio.create_task_group() as tasks:
        git = Git(runner, str(repo.path))
        assert (await landing.advance(git, MAIN, repo.head(), new, "m")).moved
    assert still_locked == [True]
    assert repo.status() == ""


async def test_an_edit_just_before_the_lock_is_told(repo: Repo, new: str) -> None:
    old = repo.head()
    for act in (
        lambda: repo.write("b.txt", "edit\n"),
        lambda: repo.git("bisect", "start"),
        lambda: repo.git("bisect", "reset"),
    ):
        git = Git(meanwhile("status", act), str(repo.path))
        result = await landing.advance(git, MAIN, old, new, "m")
        assert not result.moved
        assert result.why
    assert repo.head() == old
    assert repo.status() == " M b.txt\n"


def merge(repo: Repo) -> None:
    repo.git("switch", "-qc", "side")
    repo.write("b.txt", "side\n")
    repo.commit("side")
    repo.git("switch", "-q", "main")
    repo.git("merge", "-q", "--no-commit", "--no-ff", "side")


def rebase(repo: Repo) -> None:
    repo.git("rebase", "-q", "--exec", "false", "HEAD~1", check=False)


def bisect(repo: Repo) -> None:
    repo.git("bisect", "start", "HEAD", "HEAD~1")


def cherry_pick(repo: Repo) -> None:
    repo.git("branch", "side")
    repo.git("cherry-pick", "--no-commit", "HEAD", check=False)
    repo.git("update-ref", "CHERRY_PICK_HEAD", "HEAD")


def staged(repo: Repo) -> None:
    repo.write("b.txt", "staged\n")
    repo.git("add", "b.txt")


def announced(repo: Repo) -> None:
    repo.write("n.txt", "n\n")
    repo.git("add", "-N", "n.txt")


OBSTACLES: dict[str, tuple[Callable[[Repo], object], str]] = {
    "merge": (merge, "has a merge in progress; finish or abort it"),
    "rebase": (rebase, "has a rebase in progress; finish or abort it"),
    "bisect": (bisect, "has a bisect in progress; finish or abort it"),
    "cherry-pick": (cherry_pick, "has a cherry-pick in progress; finish or abort it"),
    "sequence": (
        lambda repo: (repo.path / ".git/sequencer").mkdir(),
        "has a cherry-pick or revert in progress; finish or abort it",
    ),
    "staged": (staged, "has changes of yours in 1 file (b.txt); commit or stash them"),
    "announced": (announced, "has changes of yours in 1 file (n.txt); commit or stash them"),
    "deleted": (
        lambda repo: (repo.path / "b.txt").unlink(),
        "has changes of yours in 1 file (b.txt); commit or stash them",
    ),
    "mode": (
        lambda repo: (repo.path / "b.txt").chmod(0o755),
        "has changes of yours in 1 file (b.txt); commit or stash them",
    ),
    "untracked": (
        lambda repo: repo.write("one.txt", "mine\n"),
        "has files that would be overwritten (one.txt); move them away or commit them",
    ),
    "a directory": (
        lambda repo: repo.write("one.txt/deep", "mine\n"),
        "has files that would be overwritten (one.txt/deep); move them away or commit them",
    ),
    "locked": (
        lambda repo: (repo.path / ".git/index.lock").touch(),
        "index.lock exists: a git command is at work there; if none is running, remove it",
    ),
}


@pytest.mark.parametrize("kind", OBSTACLES)
async def test_what_is_in_the_way_is_told_and_nothing_is_touched(
    repo: Repo, git: Git, new: str, kind: str
) -> None:
    old = repo.head()
    act, told = OBSTACLES[kind]
    act(repo)
    before = (repo.git("for-each-ref"), repo.status(), repo.index_bytes())
    assert await landing.checkout_of(git, MAIN) == str(repo.path)
    result = await landing.advance(git, MAIN, old, new, "m")
    assert not result.moved
    assert not result.raced
    assert result.why.startswith(str(repo.path))
    assert result.why.endswith(told)
    assert (repo.git("for-each-ref"), repo.status(), repo.index_bytes()) == before


async def test_an_ignored_file_is_not_overwritten(repo: Repo, git: Git) -> None:
    new = lane(repo, "one", {".gitignore": "", "keys.log": "lane\n"})
    repo.write("keys.log", "secret\n")
    result = await landing.advance(git, MAIN, repo.head(), new, "m")
    assert "(keys.log)" in result.why
    assert repo.read("keys.log") == "secret\n"


async def test_an_ignored_file_in_place_of_a_directory_is_kept(repo: Repo, git: Git) -> None:
    new = lane(repo, "one", {".gitignore": "", "x.log/deep": "lane\n"})
    repo.write("x.log", "mine\n")
    result = await landing.advance(git, MAIN, repo.head(), new, "m")
    assert "(x.log)" in result.why
    assert repo.read("x.log") == "mine\n"


async def test_a_directory_that_becomes_a_file_and_back(repo: Repo, git: Git, new: str) -> None:
    old = repo.head()
    place = repo.path.parent / "p"
    repo.git("worktree", "add", "-q", "--detach", str(place))
    repo.git("rm", "-q", "dir/c.txt", cwd=place)
    (place / "dir").write_text("file\n")
    repo.git("add", "-A", cwd=place)
    repo.git("commit", "-qm", "x", cwd=place)
    there = repo.git("rev-parse", "HEAD", cwd=place).strip()
    assert (await landing.advance(git, MAIN, old, there, "m")).moved
    assert repo.status() == ""
    back = repo.git("commit-tree", "-p", there, "-m", "back", f"{old}^{{tree}}").strip()
    assert (await landing.advance(git, MAIN, there, back, "m")).moved
    assert repo.status() == ""
    assert repo.read("dir/c.txt") == "c\n"


async def test_a_file_that_was_only_touched_is_no_change(repo: Repo, git: Git, new: str) -> None:
    os.utime(repo.path / "a.txt", (1, 1))
    assert (await landing.advance(git, MAIN, repo.head(), new, "m")).moved
    assert repo.status() == ""


async def test_a_work_tree_that_is_gone_or_two(repo: Repo, git: Git, new: str) -> None:
    old, place = repo.head(), repo.path.parent / "second"
    repo.git("worktree", "add", "-qf", str(place), "main")
    result = await landing.advance(git, MAIN, old, new, "m")
    assert result.why == f"main is checked out in {repo.path} and {place}; leave it in one"
    repo.git("switch", "-qc", "other")
    place.rename(repo.path.parent / "moved")
    result = await landing.advance(git, MAIN, old, new, "m")
    assert f"{place}, which is not there; bring it back" in result.why
    assert repo.git("rev-parse", "main").strip() == old


async def test_a_branch_that_is_gone_or_moved(repo: Repo, git: Git, new: str) -> None:
    old = repo.head()
    repo.git("switch", "-qc", "other")
    repo.git("branch", "-qD", "main")
    result = await landing.advance(git, MAIN, old, new, "m")
    assert result == Advanced(False, f"main is gone; it was at {old[:12]}", raced=True)


async def test_two_landings_at_once_do_not_meet(repo: Repo, git: Git, new: str) -> None:
    hold = follow.Hold(str(repo.path / ".git"))
    assert hold.open()
    result = await landing.advance(git, MAIN, repo.head(), new, "m")
    assert "another landing is at work" in result.why
    hold.clear()
    hold.release()
    assert (await landing.advance(git, MAIN, repo.head(), new, "m")).moved


@pytest.mark.parametrize("watched", [True, False])
async def test_a_switch_to_the_branch_that_ends_too_late_is_caught_up_with(
    repo: Repo, new: str, watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`git switch` has read where the branch is, and writes HEAD when it has moved."""

    def person() -> None:
        repo.git("symbolic-ref", "HEAD", MAIN)

    if not watched:
        places = landing._places

        async def only(git: Git, branch: str) -> tuple[list[follow.Place], list[follow.Place]]:
            return (await places(git, branch))[0], []

        monkeypatch.setattr(landing, "_places", only)
    old = repo.head()
    repo.git("switch", "-qc", "other")
    git = Git(meanwhile("update-ref", person), str(repo.path))
    result = await landing.advance(git, MAIN, old, new, "m")
    assert result == Advanced(True, place=str(repo.path) if watched else "")
    assert (repo.status() == "") is watched
    assert not (repo.path / ".git/index.lock").exists()


@pytest.mark.parametrize("young", [True, False])
@pytest.mark.parametrize("branch", ["main", "other"])
async def test_no_branch_moves_beside_a_git_at_work(
    repo: Repo, git: Git, new: str, young: bool, branch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = repo.head()
    if branch == "other":
        repo.git("switch", "-qc", "other")
    if not young:  # a log that is shown for long is nobody's obstacle
        monkeypatch.setattr(locks, "LONG_SEC", -1.0)
    with open_pipe(repo) as busy:
        assert busy.poll() is None
        result = await landing.advance(git, MAIN, old, new, "m")
    assert result.moved is not young
    if young:
        assert result.why == f"a git command is at work in {repo.path}; wait for it"
        assert (await landing.advance(git, MAIN, old, new, "m")).moved
    assert repo.status() == ""


@contextlib.contextmanager
def open_pipe(repo: Repo) -> Iterator[subprocess.Popen[bytes]]:
    """A git that is at work until the end of the block."""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(["git", "cat-file", "--batch"], cwd=repo.path, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"HEAD\n")
        process.stdin.flush()
        process.stdout.readline()
        yield process
        process.stdin.close()
        process.stdout.read()
