"""Finding the repository that a workspace belongs to, and what state it was left in."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import stat

from codex_self_iter.world.git.run import OLDEST, Git, GitError, explain, failed
from codex_self_iter.world.guarded import read_guarded, stat_or_none

_MAX_REFLOG = 16 * 1024 * 1024
_OPERATIONS = (
    ("MERGE_HEAD", "merge in progress"),
    ("rebase-merge", "rebase in progress"),
    ("rebase-apply", "rebase in progress"),
    ("CHERRY_PICK_HEAD", "cherry-pick in progress"),
    ("REVERT_HEAD", "revert in progress"),
    ("BISECT_LOG", "bisect in progress"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Repository:
    """Where a workspace stands in its repository.

    Attributes:
        git_dir: absolute path of the (work tree's own) git directory.
        prefix: the workspace's path below the top of the work tree, "" or ending in "/".
        object_format: "sha1" or "sha256".
        common_dir: that of the main work tree: the same, unless this is a linked one's."""

    git_dir: str
    prefix: str
    object_format: str
    common_dir: str

    @property
    def empty_tree(self) -> str:
        """Object id of the tree without entries, which git knows without its being stored."""
        return hashlib.new(self.object_format, b"tree 0\0", usedforsecurity=False).hexdigest()

    def told(self) -> str:
        """Where it is, for people."""
        return self.git_dir + (f" with the workspace at {self.prefix}" if self.prefix else "")

    def operation(self) -> str:
        """The operation that is half done ("merge in progress"), or ""."""
        for name, note in _OPERATIONS:
            if os.path.lexists(os.path.join(self.git_dir, name)):
                return note
        return ""

    def index_locked(self) -> bool:
        """True while `index.lock` exists: a git command is writing the index, or died doing so."""
        return os.path.lexists(os.path.join(self.git_dir, "index.lock"))

    def has_stash(self) -> bool:
        """True when something may be in git's stash."""
        return stat_or_none(self._stash) is not None

    def stashes(self) -> tuple[str, ...]:
        """Commit ids of what is in git's stash, the newest first. Blocking."""
        try:
            lines = read_guarded(self._stash, _MAX_REFLOG).splitlines()
        except OSError:
            return ()
        return tuple(
            line.split(b" ")[1].decode("ascii", "replace")
            for line in reversed(lines)
            if b" " in line
        )

    @property
    def _stash(self) -> str:
        return os.path.join(self.common_dir, "logs", "refs", "stash")


def _common(git_dir: str) -> str:
    try:
        link = read_guarded(os.path.join(git_dir, "commondir"), 4096)
    except OSError:
        return git_dir
    return os.path.normpath(os.path.join(git_dir, os.fsdecode(link).strip()))


def state_notes(repository: Repository) -> list[str]:
    """What a person should know about the repository's state."""
    notes = [repository.operation()] if repository.operation() else []
    if repository.index_locked():
        path = os.path.join(repository.git_dir, "index.lock")
        notes.append(f"index.lock left behind or in use ({path})")
    return notes


def repository_key(workspace: str) -> tuple[str, tuple[int, ...]] | None:
    """Identity of the nearest `.git` at or above the workspace, without a process; None: none.

    A repository found earlier is asked about again only when this changes: made, removed, replaced
    or, where it is a file, written."""
    place = os.path.realpath(workspace)
    while True:
        candidate = os.path.join(place, ".git")
        if (found := stat_or_none(candidate, follow=False)) is not None:
            return candidate, _mark(found, whole=not stat.S_ISDIR(found.st_mode))
        place, below = os.path.dirname(place), place
        if place == below:
            return None


def _mark(found: os.stat_result | None, *, whole: bool = True) -> tuple[int, ...]:
    """What is another one when it was replaced; `whole`: when it was written, too."""
    if found is None:
        return ()
    written = (found.st_size, found.st_mtime_ns) if whole else ()
    return found.st_dev, found.st_ino, *written


async def discover(git: Git) -> tuple[Repository | None, str]:
    """Ask git about the workspace. Returns the repository, or None and the reason. Raises GitError.

    A workspace that its surrounding repository ignores (a project under a home directory kept in
    git) is not part of that repository: nothing would ever count as a change."""
    asked = ("--is-inside-work-tree", "--show-object-format", "--show-prefix")
    out = await git.run("rev-parse", *asked)
    if out.timed_out:
        raise failed(out, "rev-parse", git)
    if out.exit_code != 0:
        return None, explain(out, git.timeout_sec, git.cwd)
    inside, _, rest = os.fsdecode(out.stdout.removesuffix(b"\n")).partition("\n")
    object_format, _, prefix = rest.partition("\n")  # the last: a path may have line ends, too
    if inside != "true":
        why = "bare repository, inside a .git directory, or core.worktree names another one"
        mend = "git config --worktree core.bare false"  # who makes work trees may set it for all
        return None, f"{why}: there is no work tree here; if it was made bare by mistake: {mend}"
    if object_format.startswith("--"):
        raise GitError(f"this git is too old: install git {'.'.join(map(str, OLDEST))} or later")
    git_dir = await git.line("rev-parse", "--absolute-git-dir")
    if prefix and (await git.run("check-ignore", "-q", "--", ".")).exit_code == 0:
        return None, "the surrounding repository ignores this directory"
    common = await git.beside(_common, git_dir)
    return Repository(git_dir, prefix, object_format or "sha1", common), ""


class Finder:
    """Finds the repository once, and again when its `.git` or its configuration is another one, or
    was not usable. One that is elsewhere than the first was is none of ours.

    Attributes:
        repository: the last answer.
        key: the `.git` it was given for, None where there was none."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self.repository: Repository | None = None
        self.key: tuple[str, tuple[int, ...]] | None = None
        self._configured: tuple[tuple[int, ...], ...] = ()
        self._first: Repository | None = None

    async def find(self) -> str:
        """Look; returns "" or why there is no repository. Raises GitError."""
        key, known = repository_key(self._git.cwd), self.repository
        if known is not None and (key, _configured(known)) == (self.key, self._configured):
            return ""
        self.key, self.repository = key, None
        if key is None:
            return "not a git repository"
        found, why = await discover(self._git)
        first = self._first = self._first or found
        if found is None or first is None:
            return why
        if (found.git_dir, found.prefix) != (first.git_dir, first.prefix):
            where = f"git was led elsewhere: to {found.told()} instead of {first.told()}"
            return f"{where}; put .git or core.worktree right"
        self.repository, self._configured = found, _configured(found)
        return ""


def _configured(repository: Repository) -> tuple[tuple[int, ...], ...]:
    """What is another one after the repository's configuration (`core.worktree`) was written."""
    names = (f"{repository.common_dir}/config", f"{repository.git_dir}/config.worktree")
    return tuple(_mark(stat_or_none(name)) for name in names)


def loop_name(repository: Repository, state_dir: str) -> str:
    """The name under `refs/codex-self-iter/` of the loop with this state directory.

    It is derived, not stored, so that it survives the loss of the state directory and a move of the
    repository: "main" for the main work tree, the work tree's name for a linked one, then the
    workspace's path below the top, then the state directory's name unless it is the default one.
    All work trees share one set of refs."""
    parent, name = os.path.split(repository.git_dir)
    parts = [name if os.path.basename(parent) == "worktrees" else "main"]
    parts += repository.prefix.split("/")
    base = os.path.basename(os.path.normpath(state_dir))
    if base != ".codex-self-iter":
        parts.append(base)
    text = "-".join(part for part in parts if part)
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")
    if plain == text:
        return plain
    digest = hashlib.sha256("/".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{plain}-{digest}".lstrip("-")
