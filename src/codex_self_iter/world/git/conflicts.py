"""Conflicts in the index without an operation that is half done: `git merge --squash`, `git stash
pop` and `git cherry-pick -n` leave them. Only `git add` ends them for git; an agent that cannot
write `.git` ends one by editing the file."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping

from codex_self_iter.core.owed import CONFLICT
from codex_self_iter.world.git.porcelain import to_text
from codex_self_iter.world.git.run import Git
from codex_self_iter.world.guarded import read_guarded

_MAX = 64 * 2**20
_OPENS, _CLOSES = (re.compile(rb"^%c{7,}(?:[ \r]|$)" % sign, re.MULTILINE) for sign in b"<>")
_OURS, _THEIRS = b"2", b"3"


async def conflicts(git: Git, ours: Mapping[str, str]) -> dict[str, str]:
    """path -> why its conflict is not resolved, "" when it is, of those of these paths (path ->
    fingerprint) that git's index has as unmerged. Raises GitError."""
    stages: dict[str, dict[bytes, bytes]] = defaultdict(dict)
    for line in (await git.ask("ls-files", "--unmerged", "-z")).split(b"\0")[:-1]:
        entry, _, path = line.partition(b"\t")
        _, name, stage = entry.split(b" ")
        stages[to_text(path)][stage] = name
    torn = {path: found for path, found in stages.items() if path in ours}
    return await git.beside(_judged, git.cwd, ours, torn) if torn else {}


def _judged(
    top: str, ours: Mapping[str, str], torn: Mapping[str, Mapping[bytes, bytes]]
) -> dict[str, str]:
    """Blocking."""
    return {
        path: "" if _resolved(os.path.join(top, path), ours[path], found) else CONFLICT
        for path, found in torn.items()
    }


def _resolved(path: str, value: str, stages: Mapping[bytes, bytes]) -> bool:
    """Whether somebody has decided: the file is gone, or has no markers any more. Where git puts no
    markers (one side deleted it, it is binary) it must be another one than git put there."""
    if not value:
        return True
    try:
        content = read_guarded(path, _MAX)
    except OSError:
        return False  # a link, a directory: git put no markers there
    if _OPENS.search(content) and _CLOSES.search(content):
        return False
    marked = _OURS in stages and _THEIRS in stages and b"\0" not in content
    return marked or value.rpartition(" ")[2].encode() not in stages.values()
