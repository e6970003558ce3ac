"""A landing that is killed at any step: the checkout is wholly old or wholly new in the end, and a
person's own files are as they were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codex_self_iter.world.git import follow, landing
from codex_self_iter.world.git.landing import Advanced
from codex_self_iter.world.git.run import Git
from codex_self_iter.world.process.tool import run_tool
from tests.support.git_repo import Repo, isolate
from tests.world.git.test_landing import MAIN, lane

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]
MINE = {"mine.txt": "untracked\n", "some.log": "ignored\n"}


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    isolate(monkeypatch)
    repo = Repo(tmp_path / "work tree")
    for name in ("changed.txt", "sub/gone.txt", "kind"):
        repo.write(name, "old\n")
    repo.commit("base")
    for name, text in MINE.items():
        repo.write(name, text)
    return repo


@pytest.fixture
def git(repo: Repo) -> Git:
    return Git(run_tool, str(repo.path))


@pytest.fixture
def new(repo: Repo) -> str:
    changes = {"changed.txt": "new\n" * 9, "sub/gone.txt": None, "new dir/added.txt": "new\n" * 9}
    return lane(repo, "one", changes)


def killed_at(repo: Repo, old: str, new: str, step: int, *edited: str) -> bool:
    """Whether the landing was killed there; False when it was over before."""
    argv = [sys.executable, "-m", "tests.support.landing_to_kill", str(repo.path), old, new]
    done = subprocess.run([*argv, str(step), *edited], cwd=ROOT, check=False, timeout=100)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


def litter(repo: Repo) -> list[str]:
    found = [name for name in os.listdir(repo.path / ".git") if name.startswith("codex-self-iter")]
    return found + [
        name for name in ("index.lock", "HEAD.lock") if (repo.path / ".git" / name).exists()
    ]


def whole(repo: Repo, commit: str) -> None:
    """The checkout is at this commit, and nobody's files are touched."""
    assert repo.head() == commit
    assert repo.status() == "?? mine.txt\n"
    assert {name: repo.read(name) for name in MINE} == MINE
    assert litter(repo) == []
    assert repo.git("symbolic-ref", "HEAD") == f"{MAIN}\n"


@pytest.mark.slow
async def test_killed_at_every_step(repo: Repo, git: Git, new: str) -> None:
    old, seen, torn = repo.head(), set(), 0
    for step in range(200):
        if not killed_at(repo, old, new, step):
            break
        torn += repo.head() == new and repo.status() != "?? mine.txt\n"  # what `finish` is for
        result = await landing.finish_advance(git, MAIN, old, new)
        assert result == Advanced(repo.head() == new, place=str(repo.path))
        whole(repo, repo.head())
        assert await landing.finish_advance(git, MAIN, old, new) == result
        seen.add(repo.head())
        repo.git("reset", "-q", "--hard", old)
    else:
        pytest.fail("it never ended")
    assert seen == {old, new}
    assert torn
    whole(repo, new)


@pytest.mark.slow
async def test_a_file_that_may_be_edited_is_as_it_was_after_a_kill_at_every_step(
    repo: Repo, git: Git, new: str
) -> None:
    """The landing changes it, too; in the end the target has it, and the person's text is there."""
    old, mine = repo.head(), "old\nand mine\n"
    for step in range(200):
        repo.write("changed.txt", mine)
        if not killed_at(repo, old, new, step, "changed.txt"):
            break
        result = await landing.finish_advance(git, MAIN, old, new)
        assert repo.read("changed.txt") == mine
        assert litter(repo) == []
        if not result.moved:
            result = await landing.advance(git, MAIN, old, new, "land", "changed.txt")
        assert result.moved
        assert repo.status() == " M changed.txt\n?? mine.txt\n"
        assert repo.read("changed.txt") == mine
        assert repo.head() == new
        repo.git("reset", "-q", "--hard", old)
    else:
        pytest.fail("it never ended")
    assert step > 10
    assert repo.read("changed.txt") == mine


async def test_a_file_that_may_be_edited_is_waited_for_once_it_is_staged(
    repo: Repo, git: Git, new: str
) -> None:
    old = repo.head()
    repo.write("changed.txt", "staged\n")
    repo.git("add", "changed.txt")
    result = await landing.advance(git, MAIN, old, new, "land", "changed.txt")
    assert not result.moved
    assert "changed.txt" in result.why
    repo.git("reset", "-q")
    assert (await landing.advance(git, MAIN, old, new, "land", "changed.txt")).moved
    assert repo.read("changed.txt") == "staged\n"
    assert not (await landing.advance(git, MAIN, new, new, "land")).moved  # others may not be


def cut_off(repo: Repo, git: Git, old: str, new: str) -> follow.Hold:
    """As after a kill between the branch and the files."""
    hold = follow.Hold(str(repo.path / ".git"))
    assert hold.open()
    hold.write(follow.Move(MAIN, old, new))
    assert hold.lock(hold.INDEX)
    hold.release()
    repo.git("update-ref", MAIN, new, old)
    return hold


async def test_files_that_git_was_killed_writing_are_written_anew(
    repo: Repo, git: Git, new: str
) -> None:
    old = repo.head()
    cut_off(repo, git, old, new)
    repo.write("changed.txt", "new\nne")
    repo.write("new dir/added.txt", "")
    (repo.path / "sub/gone.txt").unlink()
    assert (await landing.finish_advance(git, MAIN, old, new)).moved
    whole(repo, new)


async def test_what_a_person_edits_after_the_kill_is_kept_and_all_goes_back(
    repo: Repo, git: Git, new: str
) -> None:
    old = repo.head()
    cut_off(repo, git, old, new)
    repo.write("new dir/added.txt", "new\n" * 9)  # git has written this one
    repo.write("changed.txt", "person\n")
    result = await landing.finish_advance(git, MAIN, old, new)
    assert not result.moved
    assert "changes of yours in 1 file (changed.txt)" in result.why
    assert repo.head() == old
    assert repo.status() == " M changed.txt\n?? mine.txt\n"
    assert repo.read("changed.txt") == "person\n"
    assert litter(repo) == []


async def test_what_a_person_stages_after_the_kill_is_kept(repo: Repo, git: Git, new: str) -> None:
    old = repo.head()
    cut_off(repo, git, old, new)
    (repo.path / ".git/index.lock").unlink()  # as git says
    repo.write("changed.txt", "person\n")
    repo.write("a.txt", "person\n")
    repo.git("add", "changed.txt", "a.txt")
    result = await landing.finish_advance(git, MAIN, old, new)
    assert not result.moved
    assert "(changed.txt)" in result.why
    assert repo.status() == "M  a.txt\nM  changed.txt\n?? mine.txt\n"
    assert litter(repo) == []


async def test_the_next_landing_finishes_the_last(repo: Repo, git: Git, new: str) -> None:
    old = repo.head()
    cut_off(repo, git, old, new)
    later = lane(repo, "two", {"two.txt": "2\n"}, base=new)
    assert (await landing.advance(git, MAIN, new, later, "m")).moved
    whole(repo, later)


async def test_a_person_who_went_on_elsewhere_is_left_alone(repo: Repo, git: Git, new: str) -> None:
    old = repo.head()
    cut_off(repo, git, old, new)
    (repo.path / ".git/index.lock").unlink()
    repo.git("switch", "-qc", "other", old)
    assert (await landing.finish_advance(git, MAIN, old, new)).moved
    assert repo.git("symbolic-ref", "HEAD") == "refs/heads/other\n"
    assert repo.status() == "?? mine.txt\n"
    assert litter(repo) == []


async def test_a_lock_of_somebody_else_is_never_removed(repo: Repo, git: Git, new: str) -> None:
    old = repo.head()
    lock = repo.path / ".git/index.lock"
    lock.write_bytes(b"")
    for result in (
        await landing.advance(git, MAIN, old, new, "m"),
        await landing.finish_advance(git, MAIN, old, new),
    ):
        assert not result.moved
    cut_off_lock = await landing.advance(git, MAIN, old, new, "m")
    assert str(lock) in cut_off_lock.why
    assert lock.exists()
    lock.unlink()
    whole(repo, old)


async def test_a_filter_that_kills_git_takes_all_back(repo: Repo, git: Git) -> None:
    repo.write(".gitattributes", "*.dat filter=deadly\n")
    repo.write("a.dat", "1\n")
    repo.git("add", ".gitattributes", "a.dat")
    repo.git("commit", "-qm", "filtered")
    old = repo.head()
    new = lane(repo, "one", {"a.dat": "2\n", "aa.txt": "1\n", "z.dat": "2\n", "changed.txt": "n\n"})
    deadly = 'read -r x; if [ "$x" = 2 ]; then kill -9 $PPID; fi; echo "$x"'
    repo.git("config", "filter.deadly.clean", "cat")
    repo.git("config", "filter.deadly.smudge", deadly)
    result = await landing.advance(git, MAIN, old, new, "m")
    assert not result.moved
    assert "cannot be brought to the new commit" in result.why
    assert "signal 9" in result.why
    repo.git("config", "filter.deadly.smudge", "cat")
    whole(repo, old)
    assert (await landing.advance(git, MAIN, old, new, "m")).moved
    whole(repo, new)
