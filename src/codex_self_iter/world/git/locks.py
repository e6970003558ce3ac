"""Lock files that a killed git left, which keep every later one from its work.

One that was not there before a piece of the loop's work, and that no living process can hold, was
left by that work: it is removed. An older one, or one that somebody may hold, is only named."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping

import psutil

from codex_self_iter.world.git.repository import Repository
from codex_self_iter.world.guarded import stat_or_none
from codex_self_iter.world.pause import pause

AGE_SEC = 2.0
"""A younger lock may be just a moment's: a status bar asks git now and then."""
_UPKEEP = {"gc", "maintenance", "repack", "pack-objects", "prune", "fetch"}
"""Touches no index and no branch."""
LONG_SEC = 30.0
"""A git that is older waits for a person, not for the disk."""
_STEP_SEC = 0.2
_DAEMONS = {"fsmonitor--daemon", "credential-cache--daemon"}
"""Live for ever and hold no lock."""


def present(repository: Repository, branch: str) -> dict[str, str]:
    """The lock files that are there: path -> what tells this one from a later one. A few looks at
    inodes: not worth a thread."""
    found: dict[str, str] = {}
    for path in _places(repository, branch):
        seen = stat_or_none(path, follow=False)
        if seen is not None:
            found[path] = f"{seen.st_dev} {seen.st_ino} {seen.st_mtime_ns}"
    return found


def remove_left(
    repository: Repository, branch: str, before: Mapping[str, str] | None, top: str
) -> tuple[list[str], list[str]]:
    """Remove what the work left; returns (removed, still there). Blocking, for some seconds where
    there is a young lock. Raises OSError."""
    removed: list[str] = []
    kept: list[str] = []
    for path, mark in present(repository, branch).items():
        made = before is not None and before.get(path) != mark
        if made:
            _wait_for_age(path)
        if present(repository, branch).get(path) != mark:
            continue  # it was held for a moment by somebody who is at work
        if made and not _held(path, (top, repository.git_dir)):
            os.unlink(path)
            removed.append(path)
        else:
            kept.append(path)
    return removed, kept


def _places(repository: Repository, branch: str) -> list[str]:
    names = ["packed-refs.lock", "config.lock"]
    names += [f"refs/heads/{branch}.lock"] if branch else []
    own = [os.path.join(repository.git_dir, name) for name in ("index.lock", "HEAD.lock")]
    return own + [os.path.join(repository.common_dir, name) for name in names]


def hindered(repository: Repository, path: str) -> str:
    """What does not happen while this lock is there."""
    if path == os.path.join(repository.common_dir, "config.lock"):
        return "git changes no setting"
    if path == os.path.join(repository.common_dir, "packed-refs.lock"):
        return "git deletes no reference, so old checkpoints stay"
    return "nothing is committed"


def _wait_for_age(path: str) -> None:
    """Until it is as old as that, by what the clocks say now, or gone."""
    for _ in range(round(AGE_SEC / _STEP_SEC)):
        found = stat_or_none(path, follow=False)
        if found is None or not 0 <= time.time() - found.st_mtime < AGE_SEC:
            return
        pause(_STEP_SEC)


def _held(path: str, places: tuple[str, ...]) -> bool:
    """True when a living process may hold it: it has the file open, or is a git at work here.

    git closes a lock's file before it renames it, so an open descriptor is not all there is."""
    return any(_holds(process, path, places) for process in psutil.process_iter())


def _holds(process: psutil.Process, path: str, places: tuple[str, ...]) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if _is_git(process):
            return _within(process.cwd(), places)
    except psutil.AccessDenied:  # a git of another user is not known to be elsewhere
        return process.name().startswith("git")
    except (psutil.Error, OSError):
        return False
    return _has_open(process.pid, path)


def git_at_work(places: tuple[str, ...]) -> bool:
    """True while a git is at work in one of these directories, but for what shows a log or has an
    editor open for long, and what another user's is. Blocking, for some milliseconds."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if not _is_git(process) or not _within(process.cwd(), places):
                continue
            if _UPKEEP & set(process.cmdline()[1:2]):
                continue
            young = time.time() - process.create_time() < LONG_SEC
            if young and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _is_git(process: psutil.Process) -> bool:
    """Raises psutil.Error."""
    return process.name().startswith("git") and not _DAEMONS & set(process.cmdline())


def _has_open(pid: int, path: str) -> bool:
    """Linux only; elsewhere the name of the process must do."""
    directory = f"/proc/{pid}/fd"
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # gone, or another user's that is no git
    return any(_link(f"{directory}/{name}") == path for name in names)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _within(cwd: str, places: tuple[str, ...]) -> bool:
    return any(cwd == place or cwd.startswith(place + os.sep) for place in places)
