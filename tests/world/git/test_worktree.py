"""Progress by content: what counts, what does not, and a git that misbehaves."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import psutil
import pytest

from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.core.progress import Change, compare
from codex_self_iter.world.git.scan import ScanLimits
from codex_self_iter.world.git.worktree import GitWorkTree
from codex_self_iter.world.process.tool import run_tool
from tests.support.git_repo import Counting, Repo, isolate

pytestmark = pytest.mark.anyio


def tree_of(repo: Repo, **options: object) -> GitWorkTree:
    return GitWorkTree(str(repo.path), str(repo.state), run_tool, **options)  # type: ignore[arg-type]


async def change_by(repo: Repo, act: Callable[[Repo], object]) -> Change:
    """The change that `act` makes, as one object sees it, and as a fresh one (without a stat cache)
    does."""
    tree = tree_of(repo)
    before = await tree.snapshot(None)
    act(repo)
    after = await tree.snapshot(before)
    fresh = await tree_of(repo).snapshot(None)
    assert after == fresh
    assert before.complete
    assert after.complete
    return compare(before, after, await tree.committed(before.head, after.head))


def touch_later(file: Path) -> None:
    os.utime(file, ns=(file.stat().st_mtime_ns + 10**9, file.stat().st_mtime_ns + 10**9))


def run_shell(command: str, directory: Path) -> None:
    subprocess.run(["sh", "-c", command], cwd=directory, check=True, timeout=60)


def run_git(*args: str) -> None:
    subprocess.run(["git", *args], check=True, timeout=60)


async def ended(pid: int) -> None:
    """Wait until the process is gone or a zombie: a KILL takes effect a moment after it was
    sent."""
    with anyio.fail_after(20):
        while psutil.pid_exists(pid):
            try:
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    return
            except psutil.NoSuchProcess:
                return
            await anyio.sleep(0.01)


def set_up_dirty(repo: Repo) -> None:
    repo.write("a.txt", "dirty\n")
    repo.write("new.txt", "new\n")


PROGRESS: dict[str, Callable[[Repo], object]] = {
    "edit of a tracked file": lambda r: r.write("a.txt", "two\n"),
    "deletion of a tracked file": lambda r: (r.path / "a.txt").unlink(),
    "new untracked file": lambda r: r.write("sub/new.txt", "x"),
    "mode": lambda r: (r.path / "a.txt").chmod(0o755),
    "commit": lambda r: (r.write("a.txt", "two\n"), r.commit("second")),
    "empty commit": lambda r: r.git("commit", "-q", "--allow-empty", "-m", "empty"),
    "amend": lambda r: r.git("commit", "-q", "--amend", "-m", "other words"),
    "rename": lambda r: r.git("mv", "a.txt", "b.txt"),
    "file becomes a link": lambda r: (
        (r.path / "a.txt").unlink(),
        (r.path / "a.txt").symlink_to("x"),
    ),
    "orphan branch and its first commit": lambda r: (
        r.git("checkout", "-q", "--orphan", "o"),
        r.commit("o"),
    ),
}


@pytest.mark.parametrize("name", PROGRESS)
async def test_content_changes_are_progress(repo: Repo, name: str) -> None:
    assert (await change_by(repo, PROGRESS[name])).changed is True


NO_PROGRESS: dict[str, Callable[[Repo], object]] = {
    "nothing": lambda r: None,
    "touch": lambda r: touch_later(r.path / "a.txt"),
    "touch of a dirty file": lambda r: touch_later(r.path / "dirty.txt"),
    "ignored file": lambda r: (r.write("x.log", "x"), r.write("ignored/y", "y")),
    "state directory": lambda r: (r.state / "status.json").write_text("{}"),
    "state directory whose own ignore file is gone": lambda r: (r.state / ".gitignore").unlink(),
    "deleted and made again identically": lambda r: (
        (r.path / "a.txt").unlink(),
        r.write("a.txt", "one\n"),
    ),
    "untracked file made again": lambda r: (
        (r.path / "dirty.txt").unlink(),
        r.write("dirty.txt", "d\n"),
    ),
    "staging alone": lambda r: r.git("add", "-A"),
    "staged and taken back": lambda r: (
        r.write("a.txt", "two\n"),
        r.git("add", "a.txt"),
        r.write("a.txt", "one\n"),
    ),
    "taken out of the index only": lambda r: r.git("rm", "-q", "--cached", "a.txt"),
    "intent to add": lambda r: r.git("add", "-N", "dirty.txt"),
    "another branch at the same commit": lambda r: r.git("switch", "-q", "-c", "other"),
    "detached at the same commit": lambda r: r.git("checkout", "-q", "--detach"),
    "a stash that is kept and applied": lambda r: (
        r.write("a.txt", "two\n"),
        r.git("stash", "-q"),
    ),
    "the STOP file of the workspace": lambda r: r.write(".codex-stop", ""),
    "empty directory": lambda r: (r.path / "empty").mkdir(),
}


@pytest.mark.parametrize("name", NO_PROGRESS)
async def test_what_leaves_the_content_alone_is_no_progress(repo: Repo, name: str) -> None:
    repo.write("dirty.txt", "d\n")
    change = await change_by(repo, NO_PROGRESS[name])
    assert change.changed is False
    assert change.files == ()


async def test_a_second_edit_of_a_dirty_file_is_progress_and_status_text_alone_would_miss_it(
    repo: Repo,
) -> None:
    set_up_dirty(repo)
    text = repo.status()
    change = await change_by(
        repo, lambda r: (r.write("a.txt", "dirtier\n"), r.write("new.txt", "newer\n"))
    )
    assert change.files == ("a.txt", "new.txt")
    assert repo.status() == text  # the negative control: the status lines are the same


async def test_a_second_edit_with_the_same_size_and_restored_times_is_seen(repo: Repo) -> None:
    file = repo.write("a.txt", "AAA\n")
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)

    def act(r: Repo) -> None:
        with file.open("r+") as opened:
            opened.write("BBB\n")
        os.utime(file, ns=times)

    assert (await change_by(repo, act)).files == ("a.txt",)


async def test_deleting_a_dirty_untracked_file_is_progress(repo: Repo) -> None:
    set_up_dirty(repo)
    assert (await change_by(repo, lambda r: (r.path / "new.txt").unlink())).files == ("new.txt",)


async def test_reset_and_switch_to_another_commit_are_progress(repo: Repo) -> None:
    repo.write("a.txt", "two\n")
    repo.commit("second")
    assert (
        await change_by(repo, lambda r: r.git("reset", "-q", "--hard", "HEAD~"))
    ).changed is True
    repo.git("branch", "old", "HEAD@{1}")
    assert (await change_by(repo, lambda r: r.git("switch", "-q", "old"))).changed is True


async def test_a_branch_switch_without_content_says_so(repo: Repo) -> None:
    change = await change_by(repo, lambda r: r.git("switch", "-q", "-c", "other"))
    assert change.note.startswith("branch main -> other, same commit")


async def test_files_are_exact_across_a_commit(repo: Repo) -> None:
    set_up_dirty(repo)  # the person's own work: committing it changes no content
    repo.write("gate.py", "x")

    def act(r: Repo) -> None:
        r.write("gate.py", "weakened")
        r.write("b.txt", "b")
        r.commit("all of it")
        r.write("c.txt", "c")

    assert (await change_by(repo, act)).files == ("b.txt", "c.txt", "gate.py")


async def test_odd_names_survive_json(repo: Repo) -> None:
    odd = os.fsencode(repo.path) + b"/bad \xff\xfe name"
    Path(os.fsdecode(odd)).write_text("x")
    repo.write("new\nline 'q' \"d\" \\ \tü", "y")
    tree = tree_of(repo)
    before = await tree.snapshot(None)
    again = Snapshot.from_json(json.loads(json.dumps(before.to_json())))
    assert again == before
    Path(os.fsdecode(odd)).write_text("changed")
    change = compare(again, await tree.snapshot(again))
    assert change.files == ("bad \\xff\\xfe name",)
    change.files[0].encode("utf-8")
    assert "new\nline 'q' \"d\" \\ \tü" in before.entries


async def test_one_git_process_once_the_repository_is_known(repo: Repo) -> None:
    counting = Counting()
    tree = GitWorkTree(str(repo.path), str(repo.state), counting)
    previous = await tree.snapshot(None)
    set_up_dirty(repo)
    counting.calls.clear()
    await tree.snapshot(previous)
    assert len(counting.calls) == 1


async def test_the_index_and_the_repository_are_not_written(repo: Repo) -> None:
    marker = repo.path.parent / "hook ran"
    hook = repo.path / ".git/hooks/post-index-change"
    hook.write_text(f"#!/bin/sh\ntouch '{marker}'\n")
    hook.chmod(0o755)
    repo.git("config", "core.fsmonitor", f"touch '{marker}'; false")
    touch_later(repo.path / "a.txt")
    before = repo.index_bytes()
    await tree_of(repo).snapshot(None)
    assert repo.index_bytes() == before
    assert not marker.exists()
    repo.git("status")
    assert marker.exists()  # the negative control: a plain status runs it


async def test_a_redirecting_environment_is_not_inherited(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = Repo(tmp_path / "elsewhere")
    set_up_dirty(repo)
    monkeypatch.setenv("GIT_DIR", str(elsewhere.path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "no index"))
    monkeypatch.setenv("GIT_TRACE", "1")
    taken = await tree_of(repo).snapshot(None)
    assert set(taken.entries) == {"a.txt", "new.txt"}


async def test_a_workspace_below_the_top_counts_its_own_content_and_every_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(monkeypatch)
    repo = Repo(tmp_path / "r")
    repo.write("pkg/in.txt", "in")
    repo.commit("pkg")
    (repo.path / "pkg/state").mkdir()
    tree = GitWorkTree(str(repo.path / "pkg"), str(repo.path / "pkg/state"), run_tool)
    first = await tree.snapshot(None)
    repo.write("a.txt", "outside")
    repo.write("pkg/state/x", "private")
    second = await tree.snapshot(first)
    assert compare(first, second).changed is False
    repo.write("pkg/in.txt", "inside")
    third = await tree.snapshot(second)
    assert compare(second, third).files == ("in.txt",)
    repo.git("commit", "-qm", "outside", "a.txt")
    assert compare(third, await tree.snapshot(third)).changed is True


async def test_an_edit_of_a_dirty_file_inside_a_submodule_is_progress(
    repo: Repo, tmp_path: Path
) -> None:
    library = Repo(tmp_path / "library")
    repo.git("submodule", "--quiet", "add", str(library.path), "lib")
    repo.commit("with library")
    assert (await change_by(repo, lambda r: r.write("lib/a.txt", "1"))).files == (
        "lib",
        "lib/a.txt",
    )
    text = repo.status()
    assert (await change_by(repo, lambda r: r.write("lib/a.txt", "2"))).files == ("lib/a.txt",)
    assert repo.status() == text
    assert (await change_by(repo, lambda r: r.write("lib/u.txt", "2"))).files == ("lib/u.txt",)
    repo.git("config", "user.name", "x", cwd=repo.path / "lib")
    repo.git("config", "user.email", "x", cwd=repo.path / "lib")
    change = await change_by(repo, lambda r: r.git("commit", "-qam", "in lib", cwd=r.path / "lib"))
    assert "lib" in change.files


async def test_a_repository_that_is_not_tracked_is_looked_into(repo: Repo) -> None:
    inner = Repo(repo.path / "clone")
    assert (await change_by(repo, lambda r: inner.write("a.txt", "1"))).files == ("clone/a.txt",)
    assert (await change_by(repo, lambda r: inner.commit("2"))).changed is True


async def test_a_broken_inner_repository_does_not_answer_for_the_outer_one(repo: Repo) -> None:
    inner = Repo(repo.path / "clone")
    inner.write("x", "1")
    (inner.path / ".git/HEAD").unlink()
    taken = await tree_of(repo).snapshot(None)
    assert all(name.startswith("clone") for name in taken.entries)


@pytest.mark.parametrize(
    "lead_away",
    [
        "git config core.worktree {other}",
        "git config core.worktree ../..",
        "mv .git ../kept; echo gitdir: {other}/.git > .git",
        "mv .git ../kept; git -C .. init -q",
    ],
)
async def test_a_git_that_was_led_to_another_tree_is_not_followed(
    repo: Repo, tmp_path: Path, lead_away: str
) -> None:
    other = Repo(tmp_path / "other")
    other.write("theirs.txt", "x")
    tree = tree_of(repo)
    before = await tree.snapshot(None)
    act = lead_away.format(other=other.path)
    run_shell(act, repo.path)
    repo.write("ours.txt", "x")
    after = await tree.snapshot(before)
    assert not after.complete
    assert tree.repository is None
    assert "led elsewhere" in after.note or "core.worktree names another" in after.note
    assert compare(before, after).changed is None
    (repo.path / ".git").unlink() if (repo.path / ".git").is_file() else None
    if (tmp_path / "kept").exists():
        (tmp_path / "kept").rename(repo.path / ".git")
    repo.git("config", "--unset", "core.worktree", check=False)
    again = await tree.snapshot(after)
    assert again.complete
    assert [*again.entries] == ["ours.txt"]


async def test_a_git_file_that_is_written_in_its_place_is_read_again(
    repo: Repo, tmp_path: Path
) -> None:
    repo.git("worktree", "add", "-q", str(tmp_path / "linked"))
    other = Repo(tmp_path / "other")
    tree = GitWorkTree(str(tmp_path / "linked"), str(tmp_path / "state"), run_tool)
    assert (await tree.snapshot(None)).complete
    repo.git("config", "core.quotePath", "false")  # a changed configuration alone is no other tree
    assert (await tree.snapshot(None)).complete
    (tmp_path / "linked" / ".git").write_text(f"gitdir: {other.path}/.git\n")
    assert "led elsewhere" in (await tree.snapshot(None)).note


async def test_a_submodule_as_workspace_has_its_work_tree_named_and_is_followed(
    repo: Repo, tmp_path: Path
) -> None:
    library = Repo(tmp_path / "library")
    repo.git("submodule", "--quiet", "add", str(library.path), "lib")
    run_git("-C", str(repo.path / "lib"), "config", "user.name", "x")
    tree = GitWorkTree(str(repo.path / "lib"), str(tmp_path / "state"), run_tool)
    assert (await tree.snapshot(None)).complete
    run_git("-C", str(repo.path / "lib"), "config", "user.name", "y")
    repo.write("lib/new.txt", "x")
    assert [*(await tree.snapshot(None)).entries] == ["new.txt"]


async def test_unborn_detached_merge_and_lock_are_noted(repo: Repo, tmp_path: Path) -> None:
    unborn = Repo(tmp_path / "unborn", commit=False)
    unborn.write("x", "x")
    taken = await tree_of(unborn).snapshot(None)
    assert (taken.head, taken.branch, list(taken.entries)) == ("", "main", ["x"])
    assert (await change_by(unborn, lambda r: r.commit("born"))).changed is True

    repo.git("switch", "-q", "-c", "side")
    repo.write("a.txt", "side\n")
    repo.commit("side")
    repo.git("switch", "-q", "main")
    repo.write("a.txt", "main\n")
    repo.commit("main")
    repo.git("merge", "side", check=False)
    (repo.path / ".git/index.lock").touch()
    taken = await tree_of(repo).snapshot(None)
    assert taken.complete
    assert "merge in progress" in taken.note
    assert "index.lock" in taken.note
    assert list(taken.entries) == ["a.txt"]
    assert (await change_by(repo, lambda r: r.write("a.txt", "resolved\n"))).changed is True


async def test_too_many_untracked_files_are_compared_by_name_size_and_time(repo: Repo) -> None:
    for number in range(12):
        repo.write(f"gen/{number:02}", str(number))
    tree = tree_of(repo, limits=ScanLimits(files=10))
    before = await tree.snapshot(None)
    assert not before.complete
    assert "untracked files" in before.note
    assert compare(before, await tree.snapshot(before)).changed is False
    repo.write("gen/11", "not read")
    after = await tree.snapshot(before)
    assert compare(before, after).changed is None
    repo.write("a.txt", "a tracked file is compared, whatever is beyond")
    assert compare(after, await tree.snapshot(after)).files == ("a.txt",)
    repo.write("gen/00", "changed")
    assert "gen/00" in compare(before, await tree.snapshot(after)).files
    Repo(repo.path / "clone")
    tree = tree_of(repo, limits=ScanLimits(files=10, nested=0))
    flawed = await tree.snapshot(None)
    assert compare(flawed, await tree.snapshot(None)).changed is None  # more is missing


async def test_a_git_that_hangs_is_bounded_and_killed_with_its_children(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tree_of(repo, timeout_sec=2)
    good = await tree.snapshot(None)
    pids = tmp_path / "pids"
    fake = tmp_path / "bin/git"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\nsleep 600 &\necho $! $$ > '{pids}'\nwait\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    hung = await tree.snapshot(good)
    assert not hung.complete
    assert "no answer within 2 s" in hung.note
    assert compare(good, hung).changed is None
    for pid in pids.read_text().split():
        await ended(int(pid))


async def test_a_broken_repository_is_incomplete_with_a_reason(repo: Repo) -> None:
    tree = tree_of(repo)
    good = await tree.snapshot(None)
    (repo.path / ".git/index").write_bytes(b"garbage" * 10)
    broken = await tree.snapshot(good)
    assert not broken.complete
    assert "index" in broken.note
    (repo.path / ".git/HEAD").unlink()
    assert not (await tree.snapshot(broken)).complete


async def test_a_missing_git_and_a_missing_workspace_are_said_plainly(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = GitWorkTree(str(tmp_path / "gone"), str(tmp_path / "gone/state"), run_tool)
    taken = await gone.snapshot(None)
    assert not taken.complete
    assert "is gone" in taken.note
    monkeypatch.setenv("PATH", str(tmp_path))
    taken = await tree_of(repo).snapshot(None)
    assert "is it installed" in taken.note
    assert set(taken.entries) == {"a.txt", ".gitignore"}


async def test_a_workspace_without_git_is_scanned_until_it_gets_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(monkeypatch)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "plain/state").mkdir(parents=True)
    (tmp_path / "plain/f").write_text("1")
    tree = GitWorkTree(str(tmp_path / "plain"), str(tmp_path / "plain/state"), run_tool)
    first = await tree.snapshot(None)
    assert first.complete
    assert "not a git repository" in first.note
    (tmp_path / "plain/f").write_text("2")
    second = await tree.snapshot(first)
    assert compare(first, second).files == ("f",)
    run_git("init", "-q", str(tmp_path / "plain"))
    third = await tree.snapshot(second)
    assert third.branch
    assert compare(second, third).note == "a git repository appeared"


async def test_a_workspace_that_the_outer_repository_ignores_is_scanned(repo: Repo) -> None:
    repo.write("ignored/work/f", "1")
    tree = GitWorkTree(str(repo.path / "ignored/work"), str(repo.path / "ignored/work/s"), run_tool)
    first = await tree.snapshot(None)
    repo.write("ignored/work/f", "2")
    assert compare(first, await tree.snapshot(first)).changed is True


async def test_a_bare_repository_is_scanned_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(monkeypatch)
    run_git("init", "-q", "--bare", str(tmp_path / "b/.git"))
    taken = await GitWorkTree(str(tmp_path / "b"), str(tmp_path / "b/s"), run_tool).snapshot(None)
    assert "without git" in taken.note


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory to another user needs root")
async def test_a_repository_that_was_made_bare_says_how_to_mend_it(repo: Repo) -> None:
    tree = GitWorkTree(str(repo.path), str(repo.state), run_tool)
    before = await tree.snapshot(None)
    repo.git("config", "core.bare", "true")
    looked = await tree.snapshot(before)
    assert not looked.complete
    mend = looked.note.rpartition(": ")[2]
    assert mend.startswith("git config")
    repo.git(*mend.split()[1:])
    assert (await tree.snapshot(before)).complete


async def test_a_repository_of_another_user_says_how_to_allow_it(repo: Repo) -> None:
    os.chown(repo.path, 12345, 12345)
    os.chown(repo.path / ".git", 12345, 12345)
    taken = await tree_of(repo).snapshot(None)
    assert "safe.directory" in taken.note


async def test_files_that_are_no_files_do_not_block(repo: Repo) -> None:
    (repo.path / "a.txt").unlink()
    os.mkfifo(repo.path / "a.txt")
    taken = await tree_of(repo).snapshot(None)
    assert taken.entries["a.txt"].startswith("special")


@pytest.mark.skipif(sys.platform == "darwin", reason="sha256 repositories: Linux git")
async def test_a_sha256_repository_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    repo = Repo(tmp_path / "r")
    assert len(repo.head()) == 64
    assert (
        await change_by(repo, lambda r: r.git("rm", "-q", "--cached", "a.txt"))
    ).changed is False
    assert stat.S_ISREG((repo.path / "a.txt").stat().st_mode)
