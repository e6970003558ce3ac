"""What git ignores, and by which of its rules."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence

from codex_self_iter.world.git.porcelain import to_text
from codex_self_iter.world.git.run import Git, GitError
from codex_self_iter.world.guarded import read_guarded

NAME = ".gitignore"
_MAX_BYTES = 1024 * 1024
_FIELDS = 4
"""Of an answer: file, line, pattern, path."""


async def ignored(git: Git, paths: Sequence[str]) -> dict[str, str]:
    """path -> mark of the rule, of those that git ignores; nothing without git."""
    asked = b"".join(os.fsencode(path) + b"\0" for path in paths)
    try:
        out = await git.run("check-ignore", "--verbose", "-z", "--stdin", stdin=asked)
    except GitError:
        return {}
    fields = out.stdout.split(b"\0")[:-1] if out.exit_code == 0 else []
    rows = zip(fields[0::_FIELDS], fields[2::_FIELDS], fields[3::_FIELDS], strict=False)
    return {
        to_text(path): _mark(file, rule) for file, rule, path in rows if not rule.startswith(b"!")
    }


def rules(workspace: str, within: Iterable[str]) -> str:
    """Marks of all rules that are there: those of the workspace's files `within`, of the
    directories above it in the same repository, and of the repository's own file."""
    top, paths = workspace, [os.path.join(workspace, path) for path in within]
    while not os.path.lexists(os.path.join(top, ".git")):
        if top == (top := os.path.dirname(top)):
            return ""
        paths.append(os.path.join(top, NAME))
    marks: set[str] = set()
    for path in (*paths, os.path.join(top, ".git", "info", "exclude")):
        try:
            lines = read_guarded(path, _MAX_BYTES).split(b"\n")
        except OSError:
            continue
        file = os.fsencode(os.path.relpath(path, top))
        marks |= {_mark(file, line.rstrip()) for line in lines if line.strip()}
    return " ".join(sorted(marks))


def _mark(file: bytes, rule: bytes) -> str:
    return hashlib.sha256(file + b"\0" + rule).hexdigest()[:8]
