"""What a commit of the supervisor leaves out although the loop made it: new files that are plainly
a secret, very large, or what an installer or a build has put there by the thousand.

Nobody reads such a commit before it is pushed. What HEAD has already was somebody's decision, and
is committed as ever."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from codex_self_iter.core.owed import LEFT_OUT
from codex_self_iter.core.progress import printable
from codex_self_iter.core.secrets import secret_file
from codex_self_iter.world.git.porcelain import to_text
from codex_self_iter.world.git.run import HEAD, Git
from codex_self_iter.world.guarded import read_guarded, stat_or_none

MAX_MIB = 50
"""A new file above this size is left out, unless a filter such as git-lfs makes it small."""
MAX_HEAP = 1000
"""So many new files may be in a directory of this kind; it is left out whole with one more."""
HEAPS = frozenset(
    [
        "node_modules",
        "bower_components",
        ".venv",
        "venv",
        ".env",
        "__pycache__",
        ".tox",
        ".nox",
        "target",
        ".gradle",
    ]
)
_HEAD = 64 * 1024
"""Bytes in which a key is looked for."""
_AT_ONCE = 200
"""Paths in one command line."""


async def left_out(git: Git, ours: Mapping[str, str]) -> dict[str, str]:
    """path -> reason, of those of these paths that are to be left out. Of a heap only the first has
    a reason, which is told for all. Raises GitError."""
    heaps = _heaps(ours)
    found = await git.beside(_suspects, git.cwd, ours, tuple(f"{heap}/" for heap in heaps))
    known = await in_head(git, [*heaps, *found])
    known |= await _filtered(git, [path for path, what in found.items() if what.endswith("MiB")])
    left = {path: f"{what}, {LEFT_OUT}" for path, what in found.items() if path not in known}
    for heap in heaps.keys() - known.keys():
        first, *others = sorted(path for path in ours if path.startswith(f"{heap}/"))
        what = f"and {len(others)} more new files below {printable(heap)}"
        left |= {first: f"{what}, {LEFT_OUT}", **dict.fromkeys(others, "")}
    return left


async def in_head(git: Git, paths: Sequence[str]) -> dict[str, str]:
    """path -> entry ("<mode> <object id>"), of those that HEAD has. Raises GitError."""
    entries: dict[str, str] = {}
    if not paths or not await git.resolve(HEAD):
        return entries
    for place in range(0, len(paths), _AT_ONCE):
        answer = await git.ask("ls-tree", "-z", "HEAD", "--", *paths[place : place + _AT_ONCE])
        for line in answer.split(b"\0")[:-1]:
            entry, _, path = line.partition(b"\t")
            mode, _, name = entry.decode().split(" ")
            entries[to_text(path)] = f"{mode} {name}"
    return entries


async def _filtered(git: Git, paths: Sequence[str]) -> dict[str, str]:
    """path -> filter, of those of which git stores what a filter makes of them. Raises GitError."""
    if not paths:
        return {}
    asked = b"".join(os.fsencode(path) + b"\0" for path in paths)
    answer = await git.ask("check-attr", "-z", "--stdin", "filter", stdin=asked)
    fields = [to_text(field) for field in answer.split(b"\0")]
    rows = zip(fields[0::3], fields[2::3], strict=False)
    return {path: value for path, value in rows if value not in ("unspecified", "unset", "")}


def _heaps(paths: Iterable[str]) -> dict[str, int]:
    """Directory -> number of these paths below it, of those with too many."""
    count: Counter[str] = Counter()
    for path in paths:
        parts = path.split("/")[:-1]
        place = next((n for n, part in enumerate(parts, 1) if part in HEAPS), 0)
        if place:
            count["/".join(parts[:place])] += 1
    return {heap: number for heap, number in count.items() if number > MAX_HEAP}


def _suspects(top: str, ours: Mapping[str, str], heaps: tuple[str, ...]) -> dict[str, str]:
    """path -> what is wrong with it, be it new or not. Blocking."""
    found = {}
    for path, value in ours.items():
        if value and not path.startswith(heaps) and (what := _suspect(os.path.join(top, path))):
            found[path] = what
    return found


def _suspect(path: str) -> str:
    looked = stat_or_none(path, follow=False)
    if looked is None or not stat.S_ISREG(looked.st_mode):
        return ""
    try:
        head = read_guarded(path, _HEAD).decode("utf-8", "replace")
    except OSError:
        return ""
    if what := secret_file(path, head):
        return what
    size = looked.st_size / 2**20
    return f"is {size:.0f} MiB" if size > MAX_MIB else ""
