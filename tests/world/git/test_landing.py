"""Landing: commits are combined in the object store, and a work tree follows or is not touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_self_iter.world.git import landing
from codex_self_iter.world.git.landing import Combined, Conflict, Part
from codex_self_iter.world.git.run import Git, GitError
from codex_self_iter.world.process.tool import run_tool
from tests.support.git_repo import Repo, isolate

pytestmark = pytest.mark.anyio
MAIN = "refs/heads/main"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    isolate(monkeypatch)
    repo = Repo(tmp_path / "work 'tree' ä\n")
    repo.write("plan.md", "- [ ] one\n- [ ] two\n")
    repo.write("b.txt", "".join(f"{n}\n" for n in range(20)))
    repo.commit("base")
    return repo


@pytest.fixture
def git(repo: Repo) -> Git:
    return Git(run_tool, str(repo.path))


def lane(repo: Repo, name: str, files: dict[str, str | None], base: str = "main") -> str:
    """A commit on `base`, made in a work tree of its own; its id."""
    place = repo.path.parent / f"lane {name}"
    repo.git("worktree", "add", "-q", "--detach", str(place), base)
    for path, text in files.items():
        if text is None:
            (place / path).unlink()
        else:
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text)
    repo.git("add", "-A", cwd=place)
    repo.git("commit", "-qm", f"work of {name}", cwd=place)
    tip = repo.git("rev-parse", "HEAD", cwd=place).strip()
    repo.git("worktree", "remove", "--force", str(place))
    return tip


def show(repo: Repo, what: str) -> str:
    return repo.git("show", what)


async def landed(git: Git, repo: Repo, tip: str, **more: object) -> Combined:
    found = await landing.combine(git, repo.head(), Part(tip, "Land it"), **more)  # type: ignore[arg-type]
    assert isinstance(found, Combined)
    return found


async def test_both_sides_are_in_the_combined_commit(repo: Repo, git: Git) -> None:
    tip = lane(repo, "one", {"one.txt": "1\n"})
    repo.write("two.txt", "2\n")
    onto = repo.commit("person")
    before = (repo.index_bytes(), repo.status())
    found = await landed(git, repo, tip)
    assert show(repo, f"{found.commit}:one.txt") == "1\n"
    assert show(repo, f"{found.commit}:two.txt") == "2\n"
    assert repo.git("show", "-s", "--format=%P%n%B", found.commit) == f"{onto} {tip}\nLand it\n\n"
    assert (repo.index_bytes(), repo.status()) == before
    assert repo.head() == onto


async def test_a_conflict_names_files_and_says_what_git_says(repo: Repo, git: Git) -> None:
    tip = lane(repo, "one", {"a.txt": "lane\n", "dir ä/x": "n\n"})
    repo.write("a.txt", "person\n")
    onto = repo.commit("person")
    found = await landing.combine(git, onto, Part(tip, "m"))
    assert isinstance(found, Conflict)
    assert found.files == ("a.txt",)
    assert "Merge conflict in a.txt" in found.text
    assert "Auto-merging" not in found.text
    commit = await landing.marked(git, tip, onto, found, "Solve it")
    assert "<<<<<<<" in show(repo, f"{commit}:a.txt")
    assert repo.git("show", "-s", "--format=%P", commit).split() == [tip, onto]


async def test_the_lanes_plan_does_not_count(repo: Repo, git: Git) -> None:
    tip = lane(repo, "one", {"plan.md": "nonsense\n", "one.txt": "1\n"})
    repo.write("plan.md", "- [x] one\n- [ ] two\n")
    onto = repo.commit("person")
    assert isinstance(await landing.combine(git, onto, Part(tip, "m")), Conflict)  # but for this
    found = await landed(git, repo, tip, plan="plan.md")
    assert show(repo, f"{found.commit}:plan.md") == "- [x] one\n- [ ] two\n"
    ticked = await landed(git, repo, tip, plan="plan.md", plan_text=b"- [x] all\n")
    assert show(repo, f"{ticked.commit}:plan.md") == "- [x] all\n"
    assert show(repo, f"{ticked.commit}:one.txt") == "1\n"
    assert repo.git("show", "-s", "--format=%P", ticked.commit).split() == [onto, tip]


async def test_the_branch_moves_and_the_work_tree_follows(repo: Repo, git: Git) -> None:
    tip = lane(repo, "one", {"one.txt": "1\n", "a.txt": None})
    repo.write("mine.txt", "untracked")
    old, stat = repo.head(), (repo.path / "b.txt").stat()
    found = await landed(git, repo, tip)
    result = await landing.advance(git, MAIN, old, found.commit, "land lane one")
    assert result == landing.Advanced(True, place=str(repo.path))
    assert repo.head() == found.commit
    assert repo.status() == "?? mine.txt\n"
    assert repo.read("one.txt") == "1\n"
    assert (repo.path / "b.txt").stat() == stat
    assert "land lane one" in repo.git("reflog", "-1", "main")
    assert not [name for name in (repo.path / ".git").iterdir() if "codex" in name.name]


async def test_a_branch_elsewhere_is_not_checked_out(repo: Repo, git: Git) -> None:
    old, tip = repo.head(), lane(repo, "one", {"one.txt": "1\n"})
    repo.git("switch", "-qc", "other")
    assert await landing.checkout_of(git, MAIN) == ""
    found = await landed(git, repo, tip)
    assert await landing.advance(git, MAIN, old, found.commit, "m") == landing.Advanced(True)
    assert repo.status() == ""
    with pytest.raises(GitError, match="does not hold"):
        await landing.advance(git, MAIN, found.commit, old, "m")


async def test_changes_of_a_person_are_told_and_nothing_is_touched(repo: Repo, git: Git) -> None:
    old, tip = repo.head(), lane(repo, "one", {"one.txt": "1\n"})
    found = await landed(git, repo, tip)
    repo.write("a.txt", "edit\n")
    result = await landing.advance(git, MAIN, old, found.commit, "m")
    told = f"{repo.path} has changes of yours in 1 file (a.txt); commit or stash them"
    assert result == landing.Advanced(False, told, place=str(repo.path))
    assert repo.head() == old
    assert repo.status() == " M a.txt\n"
