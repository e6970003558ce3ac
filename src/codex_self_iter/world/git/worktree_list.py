"""The work trees that share one repository, and which branches they are at work on."""

from __future__ import annotations

import dataclasses
import os

from codex_self_iter.world.git.run import Git
from codex_self_iter.world.guarded import read_guarded

_LIMIT = 1024 * 1024
_HEADS = "refs/heads/"


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """One work tree.

    Attributes:
        path: its top; for a bare repository the repository itself.
        git_dir: its own git directory, "" where that cannot be read (the directory is gone).
        head: id of the commit that is checked out, "" on an unborn branch.
        branch: full name of the branch that is checked out, "" when detached.
        bare: there is no work tree.
        locked: the reason of `git worktree lock` (may be ""), None when it is not locked."""

    path: str
    git_dir: str
    head: str
    branch: str
    bare: bool
    locked: str | None


async def worktrees(git: Git) -> list[Listed]:
    """All of them, the main one first. Raises GitError."""
    out = os.fsdecode(await git.ask("worktree", "list", "--porcelain", "-z"))
    found: list[Listed] = []
    for block in out.split("\0\0"):
        if not block:
            continue
        parts = (line.partition(" ") for line in block.strip("\0").split("\0"))
        fields = {name: value for name, _, value in parts}
        path, bare = fields["worktree"], "bare" in fields
        git_dir = path if bare else await git.beside(git_dir_of, path)
        if not (found or bare or git_dir) and os.path.isdir(path):
            # the main one of a submodule: git names its git directory
            git_dir = path
            path = await git.line(f"--git-dir={path}", "rev-parse", "--show-toplevel")
        head = fields.get("HEAD", "").strip("0") and fields["HEAD"]
        branch, locked = fields.get("branch", ""), fields.get("locked")
        found.append(Listed(path, git_dir, head, branch, bare, locked))
    return found


def git_dir_of(top: str) -> str:
    """The git directory of a work tree, "" where there is none. Blocking."""
    link = os.path.join(top, ".git")
    if os.path.isdir(link):
        return link
    try:
        text = os.fsdecode(read_guarded(link, 65536)).rstrip("\r\n")
    except OSError:
        return ""
    named = os.path.normpath(os.path.join(top, text.removeprefix("gitdir: ")))
    return named if text.startswith("gitdir: ") and os.path.isdir(named) else ""


def busy_with(git_dir: str) -> set[str]:
    """Full names of the branches that a rebase or a bisect is at work on, although HEAD is detached
    meanwhile. Blocking."""
    found: set[str] = set()
    for name in ("rebase-merge/head-name", "rebase-apply/head-name"):
        found |= {line for line in _lines(git_dir, name) if line.startswith(_HEADS)}
    found |= set(_lines(git_dir, "rebase-merge/update-refs")[::3])
    found |= {_HEADS + line.removeprefix(_HEADS) for line in _lines(git_dir, "BISECT_START")}
    return found


def _lines(git_dir: str, name: str) -> list[str]:
    try:
        return os.fsdecode(read_guarded(os.path.join(git_dir, name), _LIMIT)).splitlines()
    except OSError:
        return []
