"""Landing in every kind of repository, and beside a person who never rests."""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from codex_self_iter.world.git import landing
from codex_self_iter.world.git.landing import Advanced, Combined, Part
from codex_self_iter.world.git.run import Git
from codex_self_iter.world.process.tool import run_tool
from tests.support.git_repo import IDENTITY, Repo, isolate
from tests.world.git.test_landing import MAIN, lane

pytestmark = pytest.mark.anyio


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    isolate(monkeypatch)
    repo = Repo(tmp_path / "work tree")
    for number in range(5):
        repo.write(f"dir {number}/file ä.txt", f"{number}\n")
    repo.commit("base")
    return repo


@pytest.fixture
def git(repo: Repo) -> Git:
    return Git(run_tool, str(repo.path))


async def land(git: Git, old: str, tip: str) -> str:
    """The whole way; the new commit."""
    found = await landing.combine(git, old, Part(tip, "Land"))
    assert isinstance(found, Combined)
    result = await landing.advance(git, MAIN, old, found.commit, "land")
    assert result.moved, result
    return found.commit


def split(repo: Repo) -> None:
    repo.git("config", "core.splitIndex", "true")
    repo.git("update-index", "--split-index")


def configured_apart(repo: Repo) -> None:
    repo.git("config", "extensions.worktreeConfig", "true")
    repo.git("config", "--worktree", "core.autocrlf", "input")


def failing_hooks(repo: Repo) -> None:
    hooks = repo.path / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "reference-transaction", "pre-commit", "post-index-change"):
        (hooks / name).write_text("#!/bin/sh\nexit 1\n")
        (hooks / name).chmod(0o755)


def sparse(repo: Repo) -> None:
    repo.git("sparse-checkout", "set", "dir 0", "dir 1")


def sparse_index(repo: Repo) -> None:
    repo.git("sparse-checkout", "set", "--cone", "--sparse-index", "dir 0", "dir 1")


def watched(repo: Repo) -> None:
    repo.git("config", "core.untrackedCache", "true")
    repo.git("update-index", "--untracked-cache")
    repo.git("status")


def line_ends(repo: Repo) -> None:
    repo.write(".gitattributes", "*.txt text eol=crlf\n")
    repo.commit("crlf")
    repo.git("rm", "-rq", "--cached", ".")
    repo.git("reset", "-q", "--hard")


def no_reflog(repo: Repo) -> None:
    repo.git("config", "core.logAllRefUpdates", "false")


def nobody(repo: Repo) -> None:
    repo.git("config", "--unset", "user.name")
    repo.git("config", "--unset", "user.email")
    repo.git("config", "user.useConfigOnly", "true")


def packed(repo: Repo) -> None:
    repo.git("gc", "-q", "--prune=now")


KINDS: list[Callable[[Repo], None]] = [
    split, configured_apart, failing_hooks, sparse, sparse_index, watched, line_ends, no_reflog,
    nobody, packed,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_a_landing_in_a_repository_of_any_kind(
    repo: Repo, git: Git, kind: Callable[[Repo], None]
) -> None:
    changes: dict[str, str | None] = {
        "dir 0/file ä.txt": "new\n", "dir 3/file ä.txt": "new\n", "dir 4/file ä.txt": None,
        "dir 9/x": "x\n",
    }  # fmt: skip
    tip = lane(repo, "one", changes)
    repo.git("update-ref", "refs/keep/one", tip)
    kind(repo)
    new = await land(git, repo.head(), tip)
    assert repo.head() == new
    assert repo.status() == ""
    assert repo.read("dir 0/file ä.txt").strip() == "new"
    assert (repo.path / "dir 3").exists() is ("sparse" not in kind.__name__)
    assert repo.git("fsck", "--connectivity-only", check=False) == ""


async def test_line_ends_are_the_work_trees(repo: Repo, git: Git) -> None:
    line_ends(repo)
    await land(git, repo.head(), lane(repo, "one", {"n.txt": "1\r\n2\r\n"}))
    assert (repo.path / "n.txt").read_bytes() == b"1\r\n2\r\n"


async def test_sha256_and_a_plan_deep_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(monkeypatch)
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    repo = Repo(tmp_path / "r")
    git = Git(run_tool, str(repo.path))
    tip = lane(repo, "one", {"docs/deep/plan.md": "lane's own\n", "one": "1\n"})
    onto = repo.head()
    assert len(onto) == 64
    found = await landing.combine(git, onto, Part(tip, "m"), "docs/deep/plan.md")
    assert isinstance(found, Combined)
    assert repo.git("ls-tree", "-r", "--name-only", found.commit).split() == [
        ".gitignore", "a.txt", "one",
    ]  # fmt: skip
    told = await landing.combine(git, onto, Part(tip, "m"), "docs/deep/plan.md", b"- [x] it\n")
    assert isinstance(told, Combined)
    assert repo.git("show", f"{told.commit}:docs/deep/plan.md") == "- [x] it\n"
    assert (await landing.advance(git, MAIN, onto, told.commit, "m")).moved
    assert repo.status() == ""


async def test_a_bare_repository_with_work_trees(repo: Repo) -> None:
    bare, place = repo.path.parent / "bare.git", repo.path.parent / "place"
    tip = lane(repo, "one", {"one.txt": "1\n"})
    repo.git("update-ref", "refs/keep/one", tip)
    repo.git("clone", "-q", "--mirror", str(repo.path), str(bare))
    old = repo.head()
    git = Git(run_tool, str(bare))
    assert await landing.current_branch(git) == MAIN
    assert await landing.checkout_of(git, MAIN) == ""
    first = await land(git, old, tip)
    repo.git("worktree", "add", "-q", str(place), "main", cwd=bare)
    for key, value in IDENTITY.items():
        repo.git("config", key, value, cwd=bare)
    assert await landing.checkout_of(git, MAIN) == str(place)
    second = repo.git("commit-tree", "-p", first, "-m", "x", f"{old}^{{tree}}", cwd=place).strip()
    result = await landing.advance(git, MAIN, first, second, "m")
    assert result == Advanced(True, place=str(place))
    assert repo.git("status", "--porcelain", cwd=place) == ""
    assert not (place / "one.txt").exists()


async def test_from_a_linked_work_tree_and_a_directory_below(repo: Repo, git: Git) -> None:
    place = repo.path.parent / "linked"
    tip = lane(repo, "one", {"dir 0/one.txt": "1\n"})
    repo.git("worktree", "add", "-q", "-b", "other", str(place))
    below = Git(run_tool, str(place / "dir 0"))
    assert await landing.current_branch(below) == "refs/heads/other"
    await land(below, repo.head(), tip)
    assert repo.status() == ""
    assert repo.read("dir 0/one.txt") == "1\n"
    repo.git("checkout", "-q", "--detach", cwd=place)
    assert await landing.current_branch(below) == ""


async def test_a_submodule_is_left_alone(repo: Repo, git: Git, tmp_path: Path) -> None:
    inner = Repo(tmp_path / "inner")
    first = inner.head()
    repo.git("submodule", "--quiet", "add", str(inner.path), "sub")
    repo.commit("with a submodule")
    inner.write("more", "m\n")
    second = inner.commit("more")
    repo.git("update-index", "--cacheinfo", f"160000,{second},sub")
    tree = repo.git("write-tree").strip()
    repo.git("reset", "-q")
    old = repo.head()
    new = repo.git("commit-tree", "-p", old, "-m", "sub", tree).strip()
    repo.git("config", "submodule.recurse", "true")
    assert (await landing.advance(git, MAIN, old, new, "m")).moved
    assert repo.git("rev-parse", "HEAD", cwd=repo.path / "sub").strip() == first
    assert repo.status() == " M sub\n"
    later = lane(repo, "two", {"two.txt": "2\n"})  # what it shows now is in nobody's way
    assert (await landing.advance(git, MAIN, new, later, "m")).moved


async def test_a_workspace_that_is_a_submodule(repo: Repo, tmp_path: Path) -> None:
    outer = Repo(tmp_path / "outer")
    outer.git("submodule", "--quiet", "add", str(repo.path), "sub")
    inner = outer.path / "sub"
    for key, value in (("user.name", "P"), ("user.email", "p@example.org")):
        outer.git("config", key, value, cwd=inner)
    old = repo.head()
    git = Git(run_tool, str(inner))
    assert await landing.checkout_of(git, MAIN) == str(inner)
    new = outer.git("commit-tree", "-p", old, "-m", "x", f"{old}~1^{{tree}}", cwd=inner).strip()
    assert await landing.advance(git, MAIN, old, new, "m") == Advanced(True, place=str(inner))
    assert outer.git("status", "--porcelain", cwd=inner) == ""


PERSON = textwrap.dedent(
    """
    n=0
    while [ ! -e "$1/stop" ]; do
      n=$((n+1))
      git commit -q --allow-empty -m "empty $n" 2>>"$1/err" && echo "empty $n" >>"$1/made"
      echo "edit $n" >>a.txt
      git commit -q -m "edit $n" a.txt 2>>"$1/err" && echo "edit $n" >>"$1/made"
      sleep 0.2
      echo "stashed $n" >>b.txt
      echo "stashed $n" >>"$1/stashed"
      if git stash -q 2>>"$1/err"; then
        for try in 1 2 3 4 5; do git stash pop -q 2>>"$1/err" && break; sleep 0.1; done
      fi
      git commit -q -am "all $n" 2>>"$1/err" && echo "all $n" >>"$1/made"
      git checkout -q other 2>>"$1/err" && git commit -q --allow-empty -m "other $n" 2>>"$1/err" \
        && echo "other $n" >>"$1/made"
      sleep 0.2
      until [ "$(git symbolic-ref HEAD)" = refs/heads/main ]; do
        git checkout -q main 2>>"$1/err"
      done
      sleep 0.2
    done
    """
)


def start(repo: Repo, notes: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sh", "-c", PERSON, "sh", str(notes)], cwd=repo.path)


@pytest.mark.slow
async def test_a_person_who_works_all_the_time_loses_nothing(
    repo: Repo, git: Git, tmp_path: Path
) -> None:
    repo.write("b.txt", "")
    repo.commit("b")
    repo.git("branch", "other")
    tips = [lane(repo, str(number), {f"lane {number}.txt": "x\n"}) for number in range(8)]
    notes = tmp_path / "notes"
    notes.mkdir()
    person = start(repo, notes)
    reasons: list[str] = []
    try:
        with anyio.fail_after(100):
            for tip in tips:
                while True:
                    old = await git.resolve(MAIN)
                    found = await landing.combine(git, old, Part(tip, "Land"))
                    assert isinstance(found, Combined)
                    result = await landing.advance(git, MAIN, old, found.commit, "land")
                    if result.moved:
                        break
                    reasons.append(result.why)
    finally:
        (notes / "stop").touch()
        person.wait(60)
    made = (notes / "made").read_text().splitlines()
    known = repo.git("log", "--format=%s", "main", "other").splitlines()
    assert set(made) <= set(known)
    assert {line for line in made if line.startswith("edit")} <= set(
        repo.read("a.txt").splitlines()
    )
    # a stash that found the index locked keeps its copy, and says so
    kept = [
        repo.git("show", f"{one}:b.txt")
        for one in repo.git("log", "-g", "--format=%H", "stash", check=False).split()
    ]
    lines = "".join([repo.read("b.txt"), *kept]).splitlines()
    assert set((notes / "stashed").read_text().splitlines()) <= set(lines)
    landed = repo.git("ls-tree", "--name-only", "main").splitlines()
    assert {f"lane {number}.txt" for number in range(8)} <= set(landed)
    repo.git("diff", "--exit-code", "--stat", "main", "--", "lane *.txt")
    assert len(re.findall("^edit ", repo.read("a.txt"), re.MULTILINE)) > 0
    assert not [why for why in reasons if "cannot be brought" in why]
