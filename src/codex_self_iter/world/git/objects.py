"""The repository's object store: what only old checkpoints needed goes, and git's own upkeep runs.

Every checkpoint of a file that changed is a whole copy of it. `git gc` would keep such copies for
two weeks after their checkpoint is gone, and runs only when somebody else's command starts it. So:

- An object goes when nothing reaches it any more but checkpoints that have just been deleted: no
  ref, HEAD, reflog or index of any work tree. It goes alone, by its name; packs are git's.
- Whoever stores the same content once more makes its file young again, and so says that it is
  needed: a file that is younger than the deleted checkpoints stays. It is looked at after it was
  moved aside, so that nobody can say it too late.
- `gc.pruneExpire`, where somebody set it, is obeyed: "never" keeps everything.
- While an index is locked somebody is at work: nothing goes.
- What a commit-graph names stays with all that it reaches: git takes a graph with a commit that is
  gone for damage. `git maintenance` and `git fetch` may write one that names checkpoints.

`git gc --auto` is what every commit of a person would run; our calls hold it off, so now and then
it is run by itself, with the repository's own settings. Only a commit-graph is not its business:
that would name the checkpoints that other loops are about to delete. Where there is one, it is
written anew from branches."""

from __future__ import annotations

import contextlib
import glob
import mmap
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from codex_self_iter.world.git.run import Git, failed
from codex_self_iter.world.guarded import stat_or_none

SLACK_SEC = 2.0
"""A commit's time has whole seconds, and its file is written after it was taken."""
_ELSEWHERE = ("ORIG_HEAD", "FETCH_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD")
"""Names that `--all` leaves out."""


class Stored(NamedTuple):
    """How much there is: number of loose objects, and MiB of loose and packed ones."""

    loose: int
    mb: float


async def count(git: Git) -> Stored:
    """How much the repository holds. Raises GitError."""
    lines = (await git.ask("count-objects", "-v")).decode().splitlines()
    figures = {name: int(value) for name, _, value in (x.partition(": ") for x in lines) if value}
    kib = figures.get("size", 0) + figures.get("size-pack", 0)
    return Stored(figures.get("count", 0), kib / 1024)


async def keep_up(git: Git) -> None:
    """What a commit of a person would start: `git gc --auto`, here, to its end. Raises GitError."""
    directory = await _directory(git)
    packs = await git.beside(_packs, directory)
    foreground = ("-c", "gc.autoDetach=false", "-c", "gc.writeCommitGraph=false")
    out = await git.run(*foreground, "gc", "--auto", "--quiet", hooks=True, upkeep=True)
    if out.exit_code != 0:
        raise failed(out, "gc", git)
    graphs = await git.beside(_graphs, directory)
    if graphs and await git.beside(_packs, directory) != packs:  # what they name may be gone
        kinds = ("refs/heads", "refs/remotes")
        known = await git.ask("for-each-ref", "--format=%(objectname)", *kinds)
        # it fails while somebody else writes one
        await git.run("commit-graph", "write", "--stdin-commits", stdin=known)


async def _directory(git: Git) -> str:
    """Where the objects are. Raises GitError."""
    return os.path.join(git.cwd, await git.line("rev-parse", "--git-path", "objects"))


def _packs(directory: str) -> int:
    """Is another one when packs came or went."""
    found = stat_or_none(os.path.join(directory, "pack"))
    return found.st_mtime_ns if found else 0


def _graphs(directory: str) -> list[str]:
    info = os.path.join(glob.escape(directory), "info")
    return glob.glob(f"{info}/commit-graph") + glob.glob(f"{info}/commit-graphs/*.graph")


def _named(directory: str, commits: Sequence[str]) -> list[str]:
    """Those of these commits that a commit-graph names. Blocking."""
    named: list[str] = []
    for path in _graphs(directory):
        with (
            contextlib.suppress(OSError, ValueError),
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as graph,
        ):
            named += [one for one in commits if graph.find(bytes.fromhex(one)) >= 0]
    return named


async def forget(git: Git, commits: Sequence[str], newest: float) -> int:
    """Remove what only these deleted checkpoints reached, the newest of them made at `newest`
    (Unix seconds). How many objects. Raises GitError."""
    limit = await _youngest(git, newest + SLACK_SEC)
    directory = await _directory(git)
    if limit is None or await git.beside(_somebody_at_work, directory):
        return 0
    named = await git.beside(_named, directory, commits)
    away = [f"^{name}" for name in (*_ELSEWHERE, *named)]
    out = await git.ask(
        *("rev-list", "--objects", "--ignore-missing", "--stdin", *away),
        *("--not", "--all", "--reflog", "--indexed-objects"),
        stdin="".join(f"{commit}\n" for commit in commits).encode(),
    )
    names = [line.partition(b" ")[0].decode() for line in out.splitlines()]
    return await git.beside(_remove, directory, names, limit)


async def _youngest(git: Git, newest: float) -> float | None:
    """Objects that are younger than this stay; None: all stay."""
    if (await git.run("config", "--get", "extensions.partialClone")).exit_code == 0:
        return None  # to look for an object would fetch it
    told = await git.run("config", "--get", "gc.pruneExpire")
    if told.exit_code != 0:
        return newest
    expire = told.stdout.decode("utf-8", "replace").strip()
    if expire in ("never", "false"):
        return None
    age = re.fullmatch(r"--max-age=(\d+)", await git.line("rev-parse", f"--since={expire}"))
    return min(newest, float(age[1])) if age else None


def _somebody_at_work(objects: str) -> bool:
    """True while any work tree's index is locked."""
    top = glob.escape(os.path.dirname(objects))
    patterns = (f"{top}/index.lock", f"{top}/worktrees/*/index.lock")
    return any(glob.glob(pattern) for pattern in patterns)


def _remove(directory: str, names: Iterable[str], limit: float) -> int:
    removed = 0
    for name in names:
        path = os.path.join(directory, name[:2], name[2:])
        with contextlib.suppress(OSError):  # packed, gone, or not ours to write to
            removed += _remove_one(path, limit)
    return removed


def _remove_one(path: str, limit: float) -> bool:
    """Raises OSError."""
    found = stat_or_none(path, follow=False)
    if found is None or found.st_mtime > limit:
        return False
    litter = f"tmp_obj_{os.urandom(6).hex()}"  # git's own name for it: its upkeep clears it away
    aside = os.path.join(os.path.dirname(path), litter)
    os.rename(path, aside)
    if os.lstat(aside).st_mtime > limit:
        os.rename(aside, path)
        return False
    os.unlink(aside)
    return True
