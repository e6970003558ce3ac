"""Checkpoints and going back: everything is kept, and nothing of the person's is touched."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from codex_self_iter.errors import UsageError
from codex_self_iter.world.git.checkpoints import Checkpoints
from codex_self_iter.world.git.repository import Repository, discover, loop_name
from codex_self_iter.world.git.rewind import plan_rewind, rewind
from codex_self_iter.world.git.run import Git
from codex_self_iter.world.git.worktree import GitWorkTree
from codex_self_iter.world.process.tool import run_tool
from tests.support.git_repo import Counting, Repo, isolate

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024


def checkpoints_of(repo: Repo, **options: object) -> Checkpoints:
    return Checkpoints(Git(run_tool, str(repo.path)), str(repo.state), **options)  # type: ignore[arg-type]


def files_of(root: Path) -> dict[str, str]:
    """Everything in the work tree but .git and the state directory: name -> kind and content."""

    def walk(directory: Path) -> Iterator[Path]:
        for entry in sorted(directory.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                if entry.name not in (".git", ".codex-self-iter"):
                    yield from walk(entry)
            else:
                yield entry

    def content(file: Path) -> str:
        if file.is_symlink():
            return f"-> {os.readlink(file)}"
        return f"{file.stat().st_mode & 0o100:o} {file.read_bytes()!r}"

    return {str(file.relative_to(root)): content(file) for file in walk(root)}


def persons_things(repo: Repo) -> dict[str, object]:
    """Index, branches, stash, reflogs, HEAD: whatever must not change."""
    git = repo.path / ".git"
    logs = {str(p): p.read_bytes() for p in sorted((git / "logs").rglob("*")) if p.is_file()}
    refs = [
        line for line in repo.git("for-each-ref").splitlines() if "refs/codex-self-iter" not in line
    ]
    return {
        "index": repo.index_bytes(),
        "logs": logs,
        "refs": refs,
        "HEAD": (git / "HEAD").read_bytes(),
    }


async def test_a_checkpoint_holds_the_work_tree_and_touches_nothing_of_the_persons(
    repo: Repo,
) -> None:
    repo.write("a.txt", "stashed\n")
    repo.git("stash", "-q")
    repo.write("staged.txt", "staged\n")
    repo.git("add", "staged.txt")
    repo.write("staged.txt", "and edited\n")
    repo.write("new/ü.txt", "untracked\n")
    repo.write("x.log", "ignored\n")
    repo.write(".codex-stop", "not the work")
    (repo.path / "a.txt").unlink()
    marker = repo.path.parent / "hook ran"
    for name in ("post-index-change", "reference-transaction", "pre-commit", "post-commit"):
        hook = repo.path / ".git/hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch '{marker}'\n")
        hook.chmod(0o755)
    repo.git("config", "commit.gpgsign", "true")
    repo.git("config", "core.logAllRefUpdates", "always")
    repo.git("config", "user.useConfigOnly", "true")
    repo.git("config", "--unset", "user.name")
    before = persons_things(repo)

    saved = await checkpoints_of(repo).save(3, title="did things")
    assert saved.error == ""
    assert persons_things(repo) == before
    assert not marker.exists()
    assert repo.git("rev-parse", "refs/codex-self-iter/main/000003").strip() == saved.commit
    assert repo.git("-c", "core.quotepath=off", "ls-tree", "-r", "--name-only", saved.commit).split(
        "\n"
    )[:-1] == [
        ".gitignore",
        "new/ü.txt",
        "staged.txt",
    ]
    assert repo.git("show", f"{saved.commit}:staged.txt") == "and edited\n"
    assert repo.git("log", "-1", "--format=%an %s%n%P", saved.commit).split("\n")[:2] == [
        "codex-self-iter Checkpoint of iteration 3",
        repo.head(),
    ]
    repo.git("add", "-A")  # the negative control: an ordinary add does all of this
    assert repo.index_bytes() != before["index"]
    assert marker.exists()


async def test_an_edit_in_the_same_tick_as_the_index_is_not_missed(repo: Repo) -> None:
    repo.git("config", "core.trustctime", "false")
    repo.git("config", "core.checkStat", "minimal")
    tick = 1_700_000_000 * 10**9
    file, index = repo.write("x", "1"), repo.path / ".git/index"
    os.utime(file, ns=(tick, tick))
    repo.commit("x")
    os.utime(index, ns=(tick, tick))
    repo.write("x", "2")
    os.utime(file, ns=(tick, tick))
    saved = await checkpoints_of(repo).save(1)
    assert repo.git("show", f"{saved.commit}:x") == "2"
    # the negative control: a younger index misses it
    os.utime(index, ns=(tick + 10**10, tick + 10**10))
    saved = await checkpoints_of(repo).save(2)
    assert repo.git("show", f"{saved.commit}:x") == "1"


async def test_private_files_are_private_whatever_the_umask(repo: Repo) -> None:
    old = os.umask(0)
    try:
        await checkpoints_of(repo).save(1)
    finally:
        os.umask(old)
    assert (repo.state / "git").stat().st_mode & 0o777 == 0o700
    for file in (repo.state / "git").iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


async def test_big_files_are_skipped_listed_and_left_alone_by_a_rewind(repo: Repo) -> None:
    points = checkpoints_of(repo, max_file_mb=1)
    big = repo.path / "big\nfile.bin"
    big.write_bytes(b"x" * (MIB + 1))
    repo.write("small", "1")
    saved = await points.save(1)
    assert saved.skipped == ("big\nfile.bin",)
    assert "big" not in repo.git("ls-tree", "-r", "--name-only", saved.commit)
    repo.write("small", "2")
    big.write_bytes(b"now small enough to be kept")
    plan = await plan_rewind(points, "1")
    assert plan.kept == ("big\nfile.bin (too big for a checkpoint, refused by git, or ours)",)
    await rewind(points, plan)
    assert repo.read("small") == "1"
    assert big.read_bytes() == b"now small enough to be kept"


async def test_an_unborn_branch_and_an_unfinished_merge_can_be_kept(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unborn = Repo(tmp_path / "u", commit=False)
    unborn.write("x", "x")
    assert (await checkpoints_of(unborn).save(1)).commit
    assert b"+x" in await checkpoints_of(unborn).diff("1")

    repo.git("switch", "-q", "-c", "side")
    repo.write("a.txt", "side\n")
    repo.commit("side")
    repo.git("switch", "-q", "main")
    repo.write("a.txt", "main\n")
    repo.commit("main")
    repo.git("merge", "side", check=False)
    (repo.path / ".git/index.lock").touch()
    saved = await checkpoints_of(repo).save(1)
    assert saved.error == ""
    assert "<<<<<<<" in repo.git("show", f"{saved.commit}:a.txt")


async def test_an_unreadable_file_or_an_empty_inner_repository_does_not_hold_up_the_rest(
    repo: Repo,
) -> None:
    (repo.path / "inner").mkdir()
    repo.git("init", "-q", cwd=repo.path / "inner")
    repo.write("b.txt", "b")
    saved = await checkpoints_of(repo).save(1)
    assert saved.error == ""
    assert "b.txt" in repo.git("ls-tree", "-r", "--name-only", saved.commit)


async def test_what_a_filter_refuses_is_left_out_named_and_left_alone_by_a_rewind(
    repo: Repo,
) -> None:
    """A repository with git-lfs, on a machine without it."""
    repo.git("config", "filter.lfs.process", "no-such-git-lfs filter-process")
    repo.git("config", "filter.lfs.required", "true")
    repo.write(".gitattributes", "*.bin filter=lfs\n")
    for number in range(40):
        repo.write(f"{number}.txt", "text")
    repo.write("one.bin", "1")
    (repo.path / "a.txt").unlink()
    points = checkpoints_of(repo)
    saved = await points.save(1)
    assert saved.error == ""
    assert list(saved.refused) == ["one.bin"]
    assert "no-such-git-lfs" in saved.refused["one.bin"]
    kept = repo.git("ls-tree", "-r", "--name-only", saved.commit).split()
    assert len(kept) == 40 + 2
    repo.write("0.txt", "changed")
    await rewind(points, await plan_rewind(points, "1"))
    assert (repo.read("0.txt"), repo.read("one.bin")) == ("text", "1")


async def test_a_lock_left_by_a_killed_git_does_not_stop_the_next_checkpoint(repo: Repo) -> None:
    points = checkpoints_of(repo)
    await points.save(1)
    (repo.state / "git/checkpoint.index.lock").touch()
    assert (await points.save(2)).error == ""


async def test_a_fault_is_an_answer_and_no_exception(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    none = Checkpoints(Git(run_tool, str(tmp_path / "plain")), str(tmp_path / "plain/s"))
    assert "no checkpoints in" in (await none.save(1)).error
    (repo.path / ".git/index").write_bytes(b"rubbish")
    assert (await checkpoints_of(repo).save(1)).error != ""


async def test_nothing_changed_costs_only_the_commit(repo: Repo) -> None:
    counting = Counting()
    points = Checkpoints(Git(counting, str(repo.path)), str(repo.state))
    snapshot = await GitWorkTree(str(repo.path), str(repo.state), run_tool).snapshot(None)
    first = await points.save(1, snapshot=snapshot)
    counting.calls.clear()
    second = await points.save(2, snapshot=snapshot)
    assert len(counting.calls) == 2  # commit-tree, update-ref
    assert first.commit != second.commit
    assert await points.diff("2") == b""


async def test_diff_shows_one_iteration_or_what_lies_between_two(repo: Repo) -> None:
    points = checkpoints_of(repo)
    for number, text in enumerate(("one\n", "two\n", "three\n")):
        repo.write("a.txt", text)
        await points.save(number)
    assert b"-two\n+three" in await points.diff("2")
    assert b"-one\n+three" in await points.diff("0", "2")
    assert b"a.txt | 2" in await points.diff("002", summary=True)
    with pytest.raises(UsageError, match=r"there is no checkpoint 9 .*; there are: 0-2"):
        await points.diff("9")


async def test_the_first_iterations_diff_is_against_the_commit_it_started_from(repo: Repo) -> None:
    repo.write("a.txt", "changed\n")
    points = checkpoints_of(repo)
    await points.save(1)
    assert b"-one\n+changed" in await points.diff("1")


async def test_what_a_person_did_in_between_is_not_shown_as_the_iterations(repo: Repo) -> None:
    points = checkpoints_of(repo)
    repo.write("a.txt", "person 0\n")
    await points.save_before(1)
    repo.write("a.txt", "iteration 1\n")
    await points.save(1)
    repo.write("b.txt", "person\n")
    found = await points.save_before(2)
    repo.write("b.txt", "person\niteration 2\n")
    assert await points.save_before(2) == found  # after a crash: what the iteration found first
    await points.save(2)
    assert b"-person 0\n+iteration 1" in await points.diff("1")
    assert b"a.txt" not in await points.diff("2")
    assert b" person\n+iteration 2" in await points.diff("2")
    assert [one.label for one in await points.listing()] == ["1-before", "1", "2-before", "2"]
    await rewind(points, await plan_rewind(points, "1-before"))
    assert repo.read("a.txt") == "person 0\n"
    assert not (repo.path / "b.txt").exists()


async def test_a_rewind_restores_content_exactly_and_can_be_taken_back(repo: Repo) -> None:
    (repo.path / "link").symlink_to("a.txt")
    repo.write("run.sh", "x").chmod(0o755)
    repo.write("d/inner", "1")
    repo.write("untracked.txt", "u")
    points = checkpoints_of(repo)
    await points.save(1)
    then = files_of(repo.path)

    repo.write("a.txt", "changed\n")
    repo.commit("changed")
    (repo.path / "link").unlink()
    repo.write("link", "a file now")
    (repo.path / "run.sh").chmod(0o644)
    (repo.path / "d/inner").unlink()
    (repo.path / "d").rmdir()
    repo.write("d", "file")
    repo.write("later/x/y", "later")
    repo.write("x.log", "ignored")
    (repo.path / "untracked.txt").unlink()
    repo.git("add", "d")
    now = files_of(repo.path)
    mine = persons_things(repo)

    plan = await plan_rewind(points, "1")
    assert {line.split()[0] for line in plan.lines()} == {"restore", "change", "remove"}
    assert files_of(repo.path) == now  # a plan changes nothing
    label = await rewind(points, plan)
    assert files_of(repo.path) == {**then, "x.log": now["x.log"]}
    assert not (repo.path / "later").exists()
    assert persons_things(repo) == mine

    await rewind(points, await plan_rewind(points, label))
    assert files_of(repo.path) == now
    assert [c.label for c in await points.listing()][:2] == ["1", label]


async def test_an_ignored_file_in_the_way_is_kept_in_the_checkpoint_before(repo: Repo) -> None:
    repo.write("notes", "old\n")
    points = checkpoints_of(repo)
    await points.save(1)
    repo.write(".gitignore", "notes\n")
    repo.write("notes", "precious\n")
    label = await rewind(points, await plan_rewind(points, "1"))
    assert repo.read("notes") == "old\n"
    await rewind(points, await plan_rewind(points, label))
    assert repo.read("notes") == "precious\n"


async def test_a_work_tree_that_changed_after_the_plan_is_not_overwritten(repo: Repo) -> None:
    points = checkpoints_of(repo)
    await points.save(1)
    repo.write("a.txt", "two\n")
    plan = await plan_rewind(points, "1")
    repo.write("a.txt", "three\n")
    with pytest.raises(UsageError, match="nothing was done"):
        await rewind(points, plan)
    assert repo.read("a.txt") == "three\n"


async def test_ignored_things_of_another_kind_in_the_way_are_kept_too(repo: Repo) -> None:
    repo.write("d", "file")
    repo.write("e/inner", "file")
    points = checkpoints_of(repo)
    await points.save(1)
    (repo.path / "d").unlink()
    repo.write("d/x.log", "ignored, in a directory where a file was")
    (repo.path / "e/inner").unlink()
    (repo.path / "e").rmdir()
    repo.write("e", "ignored, a file where a directory was")
    repo.write(".gitignore", "*.log\ne\n")
    now = files_of(repo.path)
    plan = await plan_rewind(points, "1")
    assert set(plan.lines()) == {
        "change   .gitignore",
        "restore  d",
        "remove   d/x.log",
        "remove   e",
        "restore  e/inner",
    }
    label = await rewind(points, plan)
    assert repo.read("d") == repo.read("e/inner") == "file"
    await rewind(points, await plan_rewind(points, label))
    assert files_of(repo.path) == now


async def test_what_is_inside_a_submodule_stays(repo: Repo, tmp_path: Path) -> None:
    library = Repo(tmp_path / "library")
    repo.git("submodule", "--quiet", "add", str(library.path), "lib")
    repo.commit("lib")
    points = checkpoints_of(repo)
    await points.save(1)
    repo.git(
        "-c",
        "user.name=x",
        "-c",
        "user.email=x",
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        "x",
        cwd=repo.path / "lib",
    )
    head = repo.git("rev-parse", "HEAD", cwd=repo.path / "lib")
    repo.write("a.txt", "two\n")
    plan = await plan_rewind(points, "1")
    assert plan.kept == ("lib (a repository of its own)",)
    await rewind(points, plan)
    assert repo.git("rev-parse", "HEAD", cwd=repo.path / "lib") == head
    assert repo.read("a.txt") == "one\n"


async def test_a_workspace_below_the_top_is_rewound_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(monkeypatch)
    repo = Repo(tmp_path / "r")
    repo.write("pkg/x", "1")
    repo.write("pkg/s/private", "1")
    repo.commit("with a state directory that somebody tracks")
    points = Checkpoints(Git(run_tool, str(repo.path / "pkg")), str(repo.path / "pkg/s"))
    saved = await points.save(1)
    assert (
        repo.git("rev-parse", "--verify", "refs/codex-self-iter/main-pkg-s/000001").strip()
        == saved.commit
    )
    for name in ("a.txt", "pkg/x", "pkg/s/private"):
        repo.write(name, "2")
    plan = await plan_rewind(points, "1")
    assert plan.lines() == ["change   pkg/x"]
    await rewind(points, plan)
    assert [repo.read(name) for name in ("a.txt", "pkg/x", "pkg/s/private")] == ["2", "1", "2"]


async def test_pruning_by_count_and_age_keeps_the_newest(repo: Repo) -> None:
    points = checkpoints_of(repo)
    for number in range(1, 6):
        await points.save(number)
    now = (await points.listing())[-1].created
    assert await points.prune(3, 30, now) == 2
    assert [c.label for c in await points.listing()] == ["3", "4", "5"]
    assert await points.prune(0, 0, now + 10**9) == 0
    assert await points.prune(3, 30, now + 31 * 86400) == 2
    assert [c.label for c in await points.listing()] == ["5"]
    commits = repo.git("rev-list", "--all").split()
    repo.git("gc", "-q", "--prune=now")
    assert len(commits) == 2  # HEAD and one checkpoint: nothing holds the pruned ones


async def test_two_loops_in_linked_work_trees_do_not_share_names(
    repo: Repo, tmp_path: Path
) -> None:
    repo.git("worktree", "add", "-q", str(tmp_path / "second"))
    other = Checkpoints(
        Git(run_tool, str(tmp_path / "second")), str(tmp_path / "second/.codex-self-iter")
    )
    await checkpoints_of(repo).save(1)
    await other.save(1)
    refs = repo.git("for-each-ref", "--format=%(refname)", "refs/codex-self-iter").split()
    assert refs == ["refs/codex-self-iter/main/000001", "refs/codex-self-iter/second/000001"]


async def test_file_names_that_are_no_utf8_and_a_sha256_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(monkeypatch)
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    repo = Repo(tmp_path / "r")
    odd = Path(os.fsdecode(os.fsencode(repo.path) + b"/:!\xff\n name"))
    odd.write_text("1")
    points = checkpoints_of(repo)
    await points.save(1)
    odd.unlink()
    repo.write("extra", "x")
    plan = await plan_rewind(points, "1")
    assert plan.lines() == ["restore  :!\\xff\n name", "remove   extra"]
    await rewind(points, plan)
    assert odd.read_text() == "1"
    assert not (repo.path / "extra").exists()


@pytest.mark.parametrize(
    ("repository", "state_dir", "name"),
    [
        (Repository("/w/.git", "", "sha1", "/w/.git"), "/w/.codex-self-iter", "main"),
        (
            Repository("/w/.git/worktrees/lane", "", "sha1", "/w/.git"),
            "/x/.codex-self-iter",
            "lane",
        ),
        (Repository("/w/.git", "a/b/", "sha1", "/w/.git"), "/w/a/b/.codex-self-iter", "main-a-b"),
        (Repository("/w/.git", "", "sha1", "/w/.git"), "/w/state", "main-state"),
    ],
)
def test_loop_names_are_readable(repository: Repository, state_dir: str, name: str) -> None:
    assert loop_name(repository, state_dir) == name


async def test_odd_loop_names_are_valid_refs_and_distinct(repo: Repo) -> None:
    found, _ = await discover(Git(run_tool, str(repo.path)))
    assert found is not None
    names = {
        loop_name(found, f"/w/{odd}") for odd in ("a b", "a.lock", "a..b", "~^:?*[\\", "ü", "@{x}")
    }
    assert len(names) == 6
    for name in names:
        subprocess.run(["git", "check-ref-format", f"refs/codex-self-iter/{name}/1"], check=True)  # noqa: ASYNC221


async def test_what_every_iteration_found_has_a_name(repo: Repo) -> None:
    """Where nobody edited in between it is what the one before has left."""
    points = checkpoints_of(repo)
    await points.save_before(1)
    made = {}
    for number in (1, 2, 4):  # the third changed nothing
        repo.write("a.txt", f"{number}")
        made[number] = await points.save(number)
    assert (await points.find("002-before")).label == "1"
    assert (await points.find("3-before")).label == "2"
    assert (await points.find("4-before")).label == "2"
    assert (await points.find("1-before")).label == "1-before"
    for label in ("0-before", "5-before", "9-before"):
        with pytest.raises(UsageError, match=f"there is no checkpoint {label}; there are"):
            await points.find(label)


async def test_stretches_have_the_work_of_iterations_and_no_edit_between_them(repo: Repo) -> None:
    points, results = checkpoints_of(repo), dict[int, str]()

    async def work(number: int, name: str) -> None:
        repo.write(name, f"{number}")
        results[number] = (await points.save(number)).commit

    repo.write("persons.txt", "before it began")
    await points.save_before(1)
    await work(1, "one.txt")
    await work(2, "two.txt")
    repo.git("add", "-A")
    repo.git("commit", "-qm", "committed")
    await points.save_before(3)  # a new supervisor, nothing was edited
    await work(3, "three.txt")
    repo.write("persons.txt", "and in between")
    await points.save_before(4)
    await work(4, "four.txt")
    await points.save(5)  # of a journal that is not there any more
    found = await points.stretches(results)
    assert [(one.first, one.last) for one in found] == [(1, 3), (4, 4)]
    names = [repo.git("diff", "--name-only", one.old, one.new).split() for one in found]
    assert names == [["one.txt", "three.txt", "two.txt"], ["four.txt"]]
    # pruned: what iteration 2 found is what the first that is left did
    repo.git("update-ref", "-d", await points.ref("1-before"))
    found = await points.stretches(results)
    assert [(one.first, one.last) for one in found] == [(2, 3), (4, 4)]
