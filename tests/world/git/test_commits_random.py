"""Random histories of a work tree, judged by a plain oracle: the bytes of all files that are not
ignored."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from codex_self_iter.core.owed import Debt, staged, worked
from codex_self_iter.core.owed import seen as looked
from codex_self_iter.core.progress import compare
from codex_self_iter.world.git.checkpoints import Checkpoints
from codex_self_iter.world.git.commits import SupervisorCommits, message
from codex_self_iter.world.git.rewind import plan_rewind, rewind
from codex_self_iter.world.git.run import Git
from codex_self_iter.world.git.worktree import GitWorkTree
from codex_self_iter.world.process.tool import run_tool
from tests.support.git_repo import Repo, isolate

pytestmark = pytest.mark.anyio

NAMES = ["a", "b", "d", "d/e", "d/f", "d/e/g", "x y", "ü\n", "k.log", "ign/z"]


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    isolate(monkeypatch)
    repo = Repo(tmp_path / "r")
    repo.write(".gitignore", "*.log\nign/\n")
    repo.commit("ignore")
    return repo


def content(repo: Repo) -> dict[str, str]:
    """The oracle: every file that git does not ignore, with its kind, execute bit and bytes."""
    names = repo.git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    found = {}
    for name in filter(None, names):
        path = repo.path / name
        linked = any(parent.is_symlink() for parent in path.parents if repo.path in parent.parents)
        if path.is_symlink() and not linked:
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file() and not linked:
            found[name] = f"{path.stat().st_mode & 0o100:o} {path.read_bytes()!r}"
    return found


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()


def make_way(repo: Repo, name: str) -> Path:
    """Whatever stands in the place or in place of its directories goes."""
    path = repo.path / name
    for parent in path.parents:
        if repo.path in parent.parents and (parent.is_symlink() or parent.is_file()):
            parent.unlink()
    remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def edit(repo: Repo, chance: random.Random) -> None:
    """One random act of an agent on the files."""
    name = chance.choice(NAMES)
    act = chance.randrange(6)
    if act <= 2:
        make_way(repo, name).write_text(chance.choice("12345"))
    elif act == 3:
        remove(repo.path / name)
    elif act == 4:
        make_way(repo, name).symlink_to(chance.choice(["a", "d", "nowhere"]))
    else:
        path = make_way(repo, name)
        path.write_text("1")
        path.chmod(chance.choice([0o644, 0o755]))


def handle_git(repo: Repo, chance: random.Random) -> None:
    """One random act on the index or the history.

    Not among them: `add -N`. Of a file so announced and then deleted git says that HEAD has it, so
    that taking the announcement back looks like a change once."""
    act = chance.choice(["add", "rm --cached", "commit", "reset", "stash"])
    if act == "add":
        repo.git("add", "-A")
    elif act == "rm --cached":
        repo.git("rm", "-q", "-r", "--cached", "--ignore-unmatch", "--", "a", "d", check=False)
    elif act == "commit":
        repo.git("commit", "-qm", "x", "--allow-empty", check=False)
    elif act == "reset":
        repo.git("reset", "-q", check=False)
    else:
        repo.git("stash", "-q", "-u", check=False)


@pytest.mark.parametrize("seed", range(6))
async def test_progress_is_what_the_oracle_says(repo: Repo, seed: int) -> None:
    chance = random.Random(seed)
    tree = GitWorkTree(str(repo.path), str(repo.state), run_tool)
    before, was, head = await tree.snapshot(None), content(repo), repo.head()
    for _ in range(25):
        (handle_git if chance.random() < 0.3 else edit)(repo, chance)
        after, now, new_head = await tree.snapshot(before), content(repo), repo.head()
        change = compare(before, after, await tree.committed(before.head, after.head))
        assert change.changed is (head != new_head or was != now)
        if was != now:
            differing = {name for name in was.keys() | now.keys() if was.get(name) != now.get(name)}
            assert set(change.files) == differing
        before, was, head = after, now, new_head


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
async def test_every_checkpoint_can_be_gone_back_to_and_nothing_of_the_persons_moves(
    repo: Repo, seed: int
) -> None:
    chance = random.Random(1000 + seed)
    points = Checkpoints(Git(run_tool, str(repo.path)), str(repo.state))
    tree = GitWorkTree(str(repo.path), str(repo.state), run_tool)
    kept: dict[str, dict[str, str]] = {}
    for number in range(1, 7):
        for _ in range(chance.randrange(1, 5)):
            (handle_git if chance.random() < 0.2 else edit)(repo, chance)
        snapshot = await tree.snapshot(None) if chance.random() < 0.7 else None
        assert (await points.save(number, snapshot=snapshot)).error == ""
        kept[str(number)] = content(repo)
    for _ in range(8):
        label = chance.choice(sorted(kept))
        index, refs, now = (
            repo.index_bytes(),
            repo.git("for-each-ref", "refs/heads", "refs/stash"),
            content(repo),
        )
        kept[await rewind(points, await plan_rewind(points, label))] = now
        assert files(repo) >= set(kept[label].items())
        assert (repo.index_bytes(), repo.git("for-each-ref", "refs/heads", "refs/stash")) == (
            index,
            refs,
        )


def files(repo: Repo) -> set[tuple[str, str]]:
    """Like `content`, ignored files included: what is ignored depends on the index, which a rewind
    leaves."""
    found = set()
    for directory, names, entries in os.walk(repo.path):
        names[:] = [name for name in names if name not in (".git", ".codex-self-iter")]
        for name in [*entries, *(n for n in names if (Path(directory) / n).is_symlink())]:
            path = Path(directory) / name
            text = (
                f"-> {os.readlink(path)}"
                if path.is_symlink()
                else f"{path.stat().st_mode & 0o100:o} {path.read_bytes()!r}"
            )
            found.add((str(path.relative_to(repo.path)), text))
    return found


@pytest.mark.parametrize("seed", range(6))
async def test_commits_take_what_is_the_iterations_and_leave_what_is_the_persons(
    repo: Repo, seed: int
) -> None:
    chance = random.Random(2000 + seed)
    tree = GitWorkTree(str(repo.path), str(repo.state), run_tool)
    commits = SupervisorCommits(Git(run_tool, str(repo.path)), str(repo.state))
    for name in ("a", "b", "d/e"):
        repo.write(name, "0")
    repo.commit("start")
    debts: dict[str, Debt] = {}
    mine: dict[str, str] = {}
    for number in range(1, 9):
        for _ in range(chance.randrange(0, 3)):  # the person
            edit(repo, chance)
            if chance.random() < 0.5:
                repo.git("add", "-A")
        index = repo.git("diff", "--cached", "--raw", "--no-renames", "--no-abbrev")
        before, was = await tree.snapshot(None), content(repo)
        staging = chance.random() < 0.5
        for _ in range(chance.randrange(1, 4)):  # the agent
            edit(repo, chance)
            if staging and chance.random() < 0.5:
                repo.git("add", "-A")
        after, now, seen = await tree.snapshot(before), content(repo), files(repo)
        ours = {path for path, debt in looked(debts, before).items() if not debt.mixed}
        debts = worked(debts, before, after, number, 0.0)
        mine = staged(mine, before, after)
        result = await commits.commit(debts, after, message("g", number, "s"), mine)
        kept = await tree.snapshot(after)
        debts, mine = worked(debts, after, kept, number, 0.0), staged(mine, after, kept)
        assert result.error == ""
        assert files(repo) == seen  # the work tree is never touched
        left = set(result.left)
        changed = {name for name in was.keys() | now.keys() if was.get(name) != now.get(name)}
        assert set(result.files) <= changed | ours  # nobody else's work is in it
        assert not set(result.files) & (before.entries.keys() - ours)  # nothing that was dirty
        unborn = changed - before.entries.keys() - set(result.files) - left
        assert not unborn, unborn  # everything else of the agent's is in it
        if not staging and not left and not ours & set(result.files):
            assert index == repo.git("diff", "--cached", "--raw", "--no-renames", "--no-abbrev")
        if result.commit:
            assert not set(
                repo.git("diff", "--name-only", "-z", "--", *result.files).split("\0")
            ) & set(result.files)
