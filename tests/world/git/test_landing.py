"""Landing: commits are combined in the object store, and a work tree follows or is not touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_self_iter.world.bounded import ToolResult
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


async def test_squash_and_author(repo: Repo, git: Git) -> None:
    tip, onto = lane(repo, "one", {"one.txt": "1\n"}), repo.head()
    part = Part(tip, "Ünder one\n\nBody\n\n\n", "Ann Ö <ann@example.org>", squash=True)
    found = await landing.combine(git, onto, part)
    assert isinstance(found, Combined)
    shown = repo.git("show", "-s", "--format=%P|%an|%ae|%cn|%B", found.commit)
    assert shown == f"{onto}|Ann Ö|ann@example.org|Person|Ünder one\n\nBody\n\n"
    assert repo.git("rev-parse", f"{found.commit}^{{tree}}").strip() == found.tree
    with pytest.raises(GitError, match="is no author: write it as Name <mail>"):
        await landing.combine(git, onto, Part(tip, "m", "Ann"))


async def test_what_is_there_already_makes_no_commit(repo: Repo, git: Git) -> None:
    old = repo.head()
    repo.write("more.txt", "m\n")
    onto = repo.commit("more")
    tree = repo.git("rev-parse", "HEAD^{tree}").strip()
    assert await landing.combine(git, onto, Part(old, "m")) == Combined(onto, tree)
    ticked = await landing.combine(git, onto, Part(old, "m"), "plan.md", b"- [x] one\n")
    assert isinstance(ticked, Combined)
    assert repo.git("show", "-s", "--format=%P", ticked.commit).split() == [onto]
    assert repo.git("diff", "--name-only", onto, ticked.commit) == "plan.md\n"
    own = lane(repo, "plan only", {"plan.md": "own\n"})
    squashed = await landing.combine(git, onto, Part(own, "m", squash=True), "plan.md")
    assert squashed == Combined(onto, tree)


async def test_a_plan_that_the_lane_removed_or_made_executable(repo: Repo, git: Git) -> None:
    (repo.path / "plan.md").chmod(0o755)
    onto = repo.commit("mode")
    tip = lane(repo, "one", {"plan.md": None, "one.txt": "1\n"})
    found = await landed(git, repo, tip, plan="plan.md", plan_text=b"x\n")
    assert repo.git("ls-tree", found.commit, "plan.md").startswith("100755 blob")
    assert repo.git("diff", "--name-only", onto, found.commit).split() == ["one.txt", "plan.md"]


async def test_a_commit_is_signed_where_the_repository_signs(
    repo: Repo, git: Git, tmp_path: Path
) -> None:
    program = tmp_path / "sign"
    program.write_text(
        "#!/bin/sh\ncat >/dev/null\necho '[GNUPG:] SIG_CREATED ' >&2\n"
        "printf -- '-----BEGIN PGP SIGNATURE-----\\n\\n%s\\n-----END PGP SIGNATURE-----\\n' \"$3\"\n"
    )
    program.chmod(0o755)
    repo.git("config", "gpg.program", str(program))
    repo.git("config", "user.signingKey", "KEY")
    tip = lane(repo, "one", {"one.txt": "1\n"})
    plain = await landed(git, repo, tip)
    repo.git("config", "commit.gpgSign", "true")
    signed = await landed(git, repo, tip)
    assert "gpgsig" not in repo.git("cat-file", "commit", plain.commit)
    assert "gpgsig -----BEGIN PGP SIGNATURE-----" in repo.git("cat-file", "commit", signed.commit)
    program.write_text("#!/bin/sh\necho no key >&2\nexit 1\n")
    with pytest.raises(GitError, match="gpg failed to sign"):
        await landed(git, repo, tip)


async def test_the_text_of_a_conflict_is_bounded(repo: Repo, git: Git) -> None:
    many = {f"file {number}": "lane\n" for number in range(100)}
    tip = lane(repo, "one", dict(many))
    for name in many:
        repo.write(name, "person\n")
    found = await landing.combine(git, repo.commit("person"), Part(tip, "m"))
    assert isinstance(found, Conflict)
    assert set(found.files) == set(many)
    assert len(found.text) == 4000


async def test_a_commit_that_is_not_there_is_an_error(repo: Repo, git: Git) -> None:
    with pytest.raises(GitError, match="merge-tree"):
        await landing.combine(git, repo.head(), Part("1" * 40, "m"))


async def test_the_size_of_a_change(repo: Repo, git: Git) -> None:
    base = repo.head()
    repo.git("mv", "b.txt", "moved ä.txt")
    repo.write("plan.md", "x\n")
    repo.write("a.txt", "1\n2\n")
    (repo.path / "bin").write_bytes(bytes(range(256)))
    tip = repo.commit("all")
    assert await landing.size(git, base, tip, "plan.md") == 3 + 1
    assert await landing.size(git, base, tip) == 3 + 1 + 3
    assert await landing.size(git, tip, tip) == 0


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("git version 2.38.0", ""),
        ("git version 2.39.3 (Apple Git-146)", ""),
        ("git version 3.0.windows.1", ""),
        ("git version 2.34.1", "lanes need git 2.38 or later; this is 2.34.1"),
    ],
)
async def test_an_old_git_is_told(said: str, told: str) -> None:
    async def runner(*_: object, **__: object) -> ToolResult:
        return ToolResult(0, stdout=f"{said}\n".encode())

    assert await landing.too_old(Git(runner, "/")) == told


async def test_branches_in_use_by_a_rebase_or_a_bisect(repo: Repo, git: Git) -> None:
    place = repo.path.parent / "place"
    repo.git("worktree", "add", "-q", "-b", "topic", str(place))
    assert await landing.checkout_of(git, "refs/heads/topic") == str(place)
    repo.git("rebase", "-q", "--exec", "false", "HEAD~1", cwd=place, check=False)
    assert await landing.current_branch(Git(run_tool, str(place))) == ""
    assert await landing.checkout_of(git, "refs/heads/topic") == str(place)
    repo.git("rebase", "--abort", cwd=place)
    repo.git("bisect", "start", cwd=place)
    repo.git("checkout", "-q", "--detach", cwd=place)
    assert await landing.checkout_of(git, "refs/heads/topic") == str(place)
    repo.git("bisect", "reset", "HEAD", cwd=place)
    assert await landing.checkout_of(git, "refs/heads/topic") == ""
