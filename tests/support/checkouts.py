"""A person's checkout: all of it as bytes, and a copy in which something careless is done."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.lanes import LaneWorkspace

_GIT = ("HEAD", "index", "refs/stash", "logs/refs/stash")


def whole(top: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a checkout with mode and bytes, also HEAD, index and stash; not what is ours."""
    found = {}
    for place, directories, files in os.walk(top):
        directories[:] = [one for one in directories if one not in (".git", ".codex-self-iter")]
        for name in files:
            path = Path(place, name)
            text = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
            found[str(path.relative_to(top))] = (path.lstat().st_mode, text)
    for name in _GIT:
        path = top / ".git" / name
        if path.exists():
            found[f".git/{name}"] = (path.stat().st_mode, path.read_bytes())
    return found


def edited(ws: LaneWorkspace) -> None:
    """Everything that a person may have lying about: a stash, something staged, an edit, a file that
    git does not know, one that it ignores."""
    for name in ("tracked.txt", "staged.txt", "stashed.txt"):
        (ws.path / name).write_text("as it was\n")
    (ws.path / ".gitignore").write_text("*.ignored\n.codex-self-iter\n")
    ws.git("add", "-A")
    ws.git("commit", "-q", "-m", "files of mine")
    (ws.path / "stashed.txt").write_text("in the stash\n")
    ws.git("stash", "-q")
    (ws.path / "staged.txt").write_text("staged\n")
    ws.git("add", "staged.txt")
    (ws.path / "staged.txt").write_text("and gone on\n")
    (ws.path / "tracked.txt").write_bytes(b"edited\r\n\0")
    (ws.path / "untracked.txt").write_text("not in git\n")
    (ws.path / "mine.ignored").write_text("ignored\n")


def careless(ws: LaneWorkspace, *commands: str) -> Path:
    """A copy of the checkout in which a shell has run these commands; what they exit with is theirs."""
    twin = ws.root / "twin"
    shutil.copytree(ws.path, twin, symlinks=True)
    shutil.rmtree(twin / ".git" / "worktrees", ignore_errors=True)
    for command in commands:
        subprocess.run(
            ["sh", "-c", command], cwd=twin, env=ws.environment, capture_output=True, check=False,
            timeout=60,
        )  # fmt: skip
    return twin
