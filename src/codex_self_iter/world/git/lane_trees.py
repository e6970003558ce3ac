"""The work trees of lanes: made outside the checkout, taken over after a kill, removed only when
nothing is lost with them.

Commits of lanes that no branch has are named below `refs/codex-self-iter/lanes/`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import stat
from collections.abc import Collection
from typing import Any

import anyio
import psutil

from codex_self_iter.core.progress import printable
from codex_self_iter.core.text import counted, listed, size
from codex_self_iter.world.git import labels
from codex_self_iter.world.git.index import PLUMBING
from codex_self_iter.world.git.locks import remove_left
from codex_self_iter.world.git.porcelain import Status, parse_status
from codex_self_iter.world.git.repository import Repository
from codex_self_iter.world.git.run import HEAD, Git, GitError, explain, failed
from codex_self_iter.world.git.worktree_list import Listed, git_dir_of, worktrees
from codex_self_iter.world.guarded import read_guarded

KEPT = f"{labels.REFS}/lanes/"
"""Where `keep` names commits."""
PATIENCE_SEC = 3600.0
"""A big work tree, or what its submodules and LFS fetch, may take long."""
_FULL = ("No space left on device", "Disk quota exceeded", "File too large")
_UNWRITTEN, _LITTLE = "unable to write file", 1_000_000
"""git does not say why a file could not be written; so few bytes left do."""
_MAKING = "initializing"
"""git's own mark of a work tree that it has not finished."""
_REFS_THAT_ARE = {"GIT_REF_PARANOIA": "0"}
"""Else a look at all refs fails when one of them is removed meanwhile."""
_OWN_REFS = ("bisect", "worktree", "rewritten")
"""Each work tree has these refs for itself, and they go with it."""
_TRIES = 10


class LastingError(GitError):
    """Trying again is no use before a person has done something."""


async def add(git: Git, path: str, commit: str) -> list[str]:
    """Make a work tree at `path`, detached at `commit`; one that is there is taken over as it is.

    Returns what a person should know. Raises GitError; then nothing is left of it."""
    known = await _registered(git, path)
    if known is not None and os.path.isdir(path):
        if not await _half_made(git, known):
            await git.beside(_unlock, path)
            return []
        await _discard(git, path)
    elif known is not None:
        if known.locked not in (None, _MAKING):
            raise GitError(f"the work tree {path} is gone but locked; git worktree unlock it")
        await git.ask("worktree", "remove", "--force", "--force", path)
    common = await git.line("rev-parse", "--path-format=absolute", "--git-common-dir")
    notes = await git.beside(_prepare, path, common)
    make = ("worktree", "add", "--quiet", "--detach", path, commit)
    try:
        out = await git.run(*make, timeout_sec=max(git.timeout_sec, PATIENCE_SEC))
        if out.exit_code != 0:
            raise failed(out, "worktree", git)
    except GitError as error:
        left = shutil.disk_usage(_standing(path)).free  # what git has written is still there
        await _discard(git, path)
        unsaid = _UNWRITTEN in str(error) and left < _LITTLE
        if unsaid or any(sign in str(error) for sign in _FULL):
            standing = _standing(path)
            free = size(shutil.disk_usage(standing).free)
            full = f"the disk of {standing} is full ({free} free)"
            raise GitError(f"no room for a work tree at {path}: {full}; free some") from error
        raise GitError(f"no work tree at {path}: {error}") from error
    return notes + await _fetch_submodules(dataclasses.replace(git, cwd=path))


async def in_the_way(git: Git, path: str, keep_refs: bool = False) -> str:
    """Why the work tree at `path` must not be removed now, "" if it may be (or is gone).

    `keep_refs`: that a commit is kept by `keep` is enough; else a branch or a tag must hold it.
    Raises GitError."""
    known = await _registered(git, path)
    if known is None or not os.path.lexists(path):
        return f"{path} is no work tree of this repository" if os.path.lexists(path) else ""
    if known.locked not in (None, _MAKING):
        reason = f" ({known.locked})" if known.locked else ""
        return f"{path} is locked{reason}; git worktree unlock it"
    lane = dataclasses.replace(git, cwd=path)
    if operation := Repository(known.git_dir, "", "", "").operation():
        return f"{path} has a {operation}; finish or abort it"
    return (
        await _changes(lane)
        or await _unreachable(git, lane, keep_refs)
        or await git.beside(_lived_in, path)
    )


async def remove(git: Git, path: str) -> None:
    """Remove a work tree, with all that is in it; ask `in_the_way` before. Raises GitError."""
    known = await _registered(git, path)
    if known is None:
        if os.path.lexists(path):
            raise GitError(f"{path} is not removed: it is no work tree of this repository")
        return
    if known.locked not in (None, _MAKING):
        raise GitError(f"{path} is not removed: it is locked; git worktree unlock it")
    await _discard(git, path)


async def rest_at(git_of_lane: Git, commit: str) -> list[str]:
    """Bring a lane's clean work tree to `commit`, detached. Returns what a person should know.
    Raises GitError, also where there are changes."""
    if changes := await _changes(git_of_lane):
        raise GitError(changes)
    await _check_out(git_of_lane, commit)
    return await _fetch_submodules(git_of_lane)


async def force_to(git_of_tree: Git, commit: str, *, swept: bool = False) -> list[str]:
    """Bring a work tree that nobody works in to `commit`, detached, whatever is in it; what git
    ignores stays. `swept`: there is nothing else that it does not know. Returns what a person should
    know. Raises GitError."""
    await _check_out(git_of_tree, commit, "--force")
    if not swept:
        await git_of_tree.ask("clean", "-ffd", "--quiet")
    return await _fetch_submodules(git_of_tree)


async def _check_out(tree: Git, commit: str, *flags: str) -> None:
    """Bring a work tree of ours to `commit`, detached; a lock that a killed git has left there goes."""
    order = ("checkout", "--quiet", "--no-recurse-submodules", "--detach", *flags, commit)
    for _ in range(_TRIES):
        try:
            await tree.ask(*order)
            return
        except GitError:
            if not await tree.beside(_unlock, tree.cwd):
                raise
    raise GitError(f"{tree.cwd} is locked again and again")


async def keep(git: Git, name: str, commit: str) -> None:
    """Name a lane's commit, so that nothing removes it. Was another one named so that this one does
    not hold, it is named NAME.1, NAME.2 … Raises GitError."""
    for _ in range(_TRIES):
        known = await kept(git)
        old = known.get(name, "")
        if old == commit:
            return
        orders = f"create {KEPT}{name}\0{commit}\0"
        if old:
            orders = f"update {KEPT}{name}\0{commit}\0{old}\0"
        if old and not await _holds(git, commit, old) and not _numbered(known, name, old):
            number = next(n for n in range(1, len(known) + 2) if f"{name}.{n}" not in known)
            orders += f"create {KEPT}{name}.{number}\0{old}\0"
        flags = ("update-ref", "--no-deref", "-z", "--stdin")
        out = await git.run(*PLUMBING, *flags, stdin=os.fsencode(orders))
        if out.exit_code == 0:
            return
        if (await kept(git)).get(name, "") == old:
            raise failed(out, "update-ref", git)
    raise GitError(f"{KEPT}{name} is moved by somebody else all the time")


_MOST_MOVES = 1000
"""Of a work tree's HEAD that are looked at."""


async def keep_all(git: Git, tree: Git, name: str) -> str:
    """Keep the commit that a lane's work tree is at, and every other that it was at and that no ref
    reaches any more (amended, reset): those as NAME.1, .2 … The commit, "" where there is none.
    Raises GitError."""
    tip = await tree.resolve("HEAD^{commit}")
    if tip:
        await keep(git, name, tip)
    out = await tree.run("reflog", "show", "--format=%H", f"-{_MOST_MOVES}", "HEAD")
    were = dict.fromkeys(out.stdout.decode().split() if out.exit_code == 0 else ())
    while were:
        # not --all: that reads the HEAD of a work tree that is just being made, which is none yet
        ask = ("rev-list", *were, "--not", "--glob=refs/*")
        lost = set((await git.ask(*ask, env=_REFS_THAT_ARE)).decode().split())
        newest = next((one for one in were if one in lost), None)
        if newest is None:
            break
        known = await kept(git)
        number = next(n for n in range(1, len(known) + 2) if f"{name}.{n}" not in known)
        await git.ask(*PLUMBING, "update-ref", "--no-deref", f"{KEPT}{name}.{number}", newest, "")
    return tip


async def kept(git: Git) -> dict[str, str]:
    """Name -> commit of all that is kept. Raises GitError."""
    out = await git.ask("for-each-ref", "--format=%(refname) %(objectname)", KEPT)
    pairs = (line.split(" ") for line in os.fsdecode(out).splitlines())
    return {name.removeprefix(KEPT): commit for name, commit in pairs}


async def forget(git: Git, name: str, landed: str) -> None:
    """What is kept by this name, or by NAME.1, .2 …, and is held by the commit `landed`, is kept no
    more; nor by what comes after its "/", as lanes were once called. Raises GitError."""
    names = (name, name.rpartition("/")[2])
    for one, commit in (await kept(git)).items():
        if one.partition(".")[0] in names and await _holds(git, landed, commit):
            await _forget(git, one, commit)


async def forget_all(git: Git, names: Collection[str]) -> None:
    """What is kept by these names, or by NAME.1, .2 …, is kept no more. Raises GitError."""
    for one, commit in (await kept(git)).items():
        if one.partition(".")[0] in names:
            await _forget(git, one, commit)


async def _forget(git: Git, name: str, commit: str) -> None:
    """Unless it was moved meanwhile."""
    await git.run(*PLUMBING, "update-ref", "--no-deref", "-d", f"{KEPT}{name}", commit)


def _numbered(known: dict[str, str], name: str, commit: str) -> bool:
    return any(one == commit and key.startswith(f"{name}.") for key, one in known.items())


async def _holds(git: Git, new: str, old: str) -> bool:
    out = await git.run("merge-base", "--is-ancestor", old, new)
    if out.exit_code not in (0, 1):
        raise failed(out, "merge-base", git)
    return out.exit_code == 0


async def _registered(git: Git, path: str) -> Listed | None:
    """What git knows of the linked work tree at `path`. Raises GitError for a path that a link
    leads elsewhere."""
    if os.path.islink(path):
        raise LastingError(f"{path} is a symbolic link; remove it")
    real = os.path.realpath(path)
    for one in (await worktrees(git))[1:]:
        if os.path.realpath(one.path) == real:
            return one
    return None


async def _half_made(git: Git, known: Listed) -> bool:
    """True for a work tree whose making was cut off; waits for a git that still makes it."""
    if known.locked != _MAKING and known.head:
        return False
    give_up = anyio.current_time() + min(git.timeout_sec, PATIENCE_SEC)
    while await git.beside(_being_made, known.path):
        if anyio.current_time() > give_up:
            raise GitError(f"another git is at work on {known.path}; wait for it or end it")
        await anyio.sleep(0.1)
    return True


def _being_made(path: str) -> bool:
    """True while a git of somebody works in it or was called with its name. Blocking."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            git = process.name().startswith("git") and process.status() != psutil.STATUS_ZOMBIE
            if git and (path in process.cmdline() or _is_within(process.cwd(), path)):
                return True
    return False


def _unlock(path: str) -> bool:
    """Remove the locks that a killed git has left in a work tree; whether there were any. Blocking."""
    git_dir = git_dir_of(path)
    if not git_dir:
        return False
    removed, _ = remove_left(Repository(git_dir, "", "", git_dir), "", {}, path)
    return bool(removed)


def _prepare(path: str, common: str) -> list[str]:
    """Make the directories above, for us alone. What git knows no more of a work tree of ours at
    `path` is moved aside, which is returned for people. Blocking. Raises GitError."""
    notes = []
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        if not _was_ours(path, common):
            what = f"{path} exists and is no work tree of this repository"
            raise LastingError(f"{what}; move it away")
        aside = next(
            name for number in range(1, 1000) if not os.path.lexists(name := f"{path}.{number}")
        )
        os.rename(path, aside)
        notes.append(f"git knows no more of what was at {path}: it is at {aside} now")
    above = os.path.dirname(path)
    if flaw := unfit(above):
        raise LastingError(f"no work tree at {path}: {flaw}")
    missing = []
    while not os.path.isdir(above):
        missing.append(above)
        above = os.path.dirname(above)
    try:
        for directory in reversed(missing):
            os.mkdir(directory, 0o700)
    except OSError as error:
        why = f"cannot make {error.filename}: {error.strerror}"
        raise GitError(f"no work tree at {path}: {why}") from error
    return notes


def _was_ours(path: str, common: str) -> bool:
    """True for a linked work tree of this repository whose registration is gone, as a killed git
    leaves it."""
    try:
        link = os.fsdecode(read_guarded(os.path.join(path, ".git"), 65536)).rstrip("\n")
    except OSError:
        return False
    own = link.removeprefix("gitdir: ")
    return not os.path.exists(own) and os.path.dirname(own) == os.path.join(common, "worktrees")


def unfit(directory: str) -> str:
    """Why no work tree can be made in a directory, which need not be there yet; "" if it can."""
    standing = _standing(directory)
    first = directory.removeprefix(standing).strip("/").partition("/")[0]
    if os.path.lexists(os.path.join(standing, first)) and first:
        return f"{os.path.join(standing, first)} is no directory"
    return "" if os.access(standing, os.W_OK | os.X_OK) else f"{standing} cannot be written"


def _standing(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


async def _fetch_submodules(lane: Git) -> list[str]:
    there = await lane.ask("ls-tree", "--full-tree", "-z", "HEAD", "--", ".gitmodules")
    if not there:
        return []
    update = ("submodule", "--quiet", "update", "--init", "--recursive")
    out = await lane.run(*update, timeout_sec=max(lane.timeout_sec, PATIENCE_SEC))
    if out.exit_code == 0:
        return []
    return [f"submodules could not be fetched: {explain(out, lane.timeout_sec, lane.cwd)}"]


async def _discard(git: Git, path: str) -> None:
    """The files first, then what git knows of them: killed in between, it is still known whose
    they are."""
    if os.path.lexists(path):
        why = await git.beside(_remove_files, path)
        if why:
            raise GitError(f"{path} is not removed: {why}")
    if await _registered(git, path) is not None:
        await git.ask("worktree", "remove", "--force", "--force", path)


def _remove_files(path: str) -> str:
    """Remove everything in a directory and the directory, following no link; `.git` goes last.
    Why that failed, or "". Blocking."""
    refused: list[OSError] = []

    def open_up(_: object, place: str, error: Any) -> None:
        """Make room for the next try: package caches are made read-only."""
        if not isinstance(error[1], PermissionError):
            raise error[1]
        refused.append(error[1])
        for one in (os.path.dirname(place), place):
            if stat.S_ISDIR(os.lstat(one).st_mode):
                os.chmod(one, 0o700)

    trouble = ""
    for _ in range(_TRIES):
        refused.clear()
        try:
            for name in sorted(os.listdir(path), key=lambda name: name == ".git"):
                full = os.path.join(path, name)
                if os.path.isdir(full) and not os.path.islink(full):
                    shutil.rmtree(full, onerror=open_up)
                else:
                    os.unlink(full)
            os.rmdir(path)
            return ""
        except FileNotFoundError:
            return ""
        except OSError as error:  # somebody makes files meanwhile
            last = refused[0] if refused else error
            trouble = f"{last.filename}: {last.strerror}"
    return trouble


async def left_in(tree: Git, submodules: str = "untracked") -> Status:
    """What is in a work tree and in no commit, and its commit. `submodules`: what of theirs does not
    count, as git calls it. Raises GitError."""
    flags = ("--porcelain=v2", "-z", "--branch", "--no-ahead-behind", "--no-renames")
    ask = ("status", *flags, "--untracked-files=normal", f"--ignore-submodules={submodules}")
    return parse_status(await tree.ask(*ask))


async def _changes(lane: Git) -> str:
    found = await left_in(lane, "none")
    if not found.records:
        return ""
    names = listed([printable(os.fsdecode(one.path)) for one in found.records], 3)
    many = counted(len(found.records), "file")
    return f"{lane.cwd} has {many} that no commit has ({names}); commit or remove them"


async def _unreachable(git: Git, lane: Git, keep_refs: bool) -> str:
    """What only this work tree holds: its commit, or commits in its submodules."""
    head = await lane.resolve(HEAD)
    hidden = [f"--exclude=refs/{name}/*" for name in _OWN_REFS]
    hidden += [] if keep_refs else [f"--exclude={labels.REFS}/*"]
    ask = ("rev-list", "--max-count=1", head, "--not", *hidden, "--glob=refs/*")
    if head and await git.line(*ask, env=_REFS_THAT_ARE):
        return f"{lane.cwd} is at {head[:12]}, which no branch and no tag holds; land it or keep it"
    loose = "git rev-list --max-count=1 HEAD --not --remotes --tags"
    out = await lane.run("submodule", "--quiet", "foreach", "--recursive", loose)
    if out.exit_code == 0 and out.stdout.strip():
        return f"{lane.cwd} has commits in a submodule that are nowhere else; push them"
    return ""


def _lived_in(path: str) -> str:
    """Which process works in the directory or has a file of it open. Blocking."""
    real = os.path.realpath(path)
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if _is_within(process.cwd(), real) or any(
                _is_within(place, real) for place in _open_files(process)
            ):
                name = printable(process.name())
                return f"process {process.pid} ({name}) is at work in {path}; end it"
    return ""


def _open_files(process: psutil.Process) -> list[str]:
    directory = f"/proc/{process.pid}/fd"
    if not os.path.isdir(directory):
        return [one.path for one in process.open_files()]
    found = []
    for name in os.listdir(directory):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"{directory}/{name}"))
    return found


def _is_within(place: str, top: str) -> bool:
    return place == top or place.startswith(top + os.sep)
