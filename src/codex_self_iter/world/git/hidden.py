"""Tracked files whose changes git was told not to see: `--skip-worktree`, `--assume-unchanged`."""

from __future__ import annotations

import os

from codex_self_iter.world.git.porcelain import to_text
from codex_self_iter.world.git.repository import Repository
from codex_self_iter.world.git.run import Git
from codex_self_iter.world.guarded import stat_or_none


def index_mark(repository: Repository) -> tuple[int, int, int]:
    """What is another one after the index was written."""
    about = stat_or_none(os.path.join(repository.git_dir, "index"), follow=True)
    return (about.st_ino, about.st_size, about.st_mtime_ns) if about else (0, 0, 0)


async def hidden(git: Git) -> frozenset[str]:
    """Those that are there, below the workspace; a sparse checkout's are not. Raises GitError."""
    listed = await git.ask("ls-files", "-v", "-z")
    return await git.beside(_there, listed, git.cwd)


def _there(listed: bytes, top: str) -> frozenset[str]:
    lines = (line for line in listed.split(b"\0") if line[:1] == b"S" or line[:1].islower())
    paths = (to_text(line[2:]) for line in lines)
    return frozenset(path for path in paths if os.path.lexists(os.path.join(top, path)))
