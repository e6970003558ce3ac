"""The files that the globs of `[verify] gate_files` name, and their fingerprints."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
from collections.abc import Iterable, Iterator

from codex_self_iter.core.opening import RULES
from codex_self_iter.world.git.ignored import NAME, rules
from codex_self_iter.world.guarded import open_guarded

MAX_GATE_FILES = 10_000
WHOLE_BYTES = 8 * 1024 * 1024
"""A gate file up to this size is read as a whole."""
_END_BYTES = 64 * 1024
_SKIPPED = {  # but for those that a pattern names
    ".git", "node_modules", ".venv", "__pycache__", ".codex-self-iter",
    ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache",
}  # fmt: skip


def fingerprints(workspace: str, patterns: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """path -> fingerprint of every file that a pattern matches, "" when it cannot be read; and what
    is not guarded. RULES stands for those by which git ignores files."""
    found: dict[str, str] = {}
    unused, ignoring = set(patterns), list[str]()
    for path in _walk(workspace, _skipped(patterns)):
        if os.path.basename(path) == NAME:
            ignoring.append(path)
        matching = _matching(path, patterns)
        if not matching:
            continue
        unused -= matching
        if len(found) >= MAX_GATE_FILES:
            return found, f"they match more than {MAX_GATE_FILES} files; the others are not guarded"
        found[path] = print_of(os.path.join(workspace, path))
    found[RULES] = rules(workspace, ignoring)
    return found, _no_file(patterns, unused)


def _skipped(patterns: tuple[str, ...]) -> set[str]:
    """Directories that are not looked into: no pattern names them."""
    return _SKIPPED - {part for pattern in patterns for part in pattern.split("/")}


def _matching(path: str, patterns: Iterable[str]) -> set[str]:
    return {pattern for pattern in patterns if _matches(path, pattern)}


def _no_file(patterns: tuple[str, ...], unused: set[str]) -> str:
    named = ", ".join(pattern for pattern in patterns if pattern in unused)
    return f"no file matches {named}" if named else ""


def without_file(workspace: str, patterns: tuple[str, ...]) -> str:
    """What to say of the patterns that match no file here, or "". Blocks."""
    unused = set(patterns)
    for path in _walk(workspace, _skipped(patterns)) if patterns else ():
        unused -= _matching(path, unused)
    return _no_file(patterns, unused)


def print_of(path: str) -> str:
    """A fingerprint of a file, "" when it cannot be read."""
    try:
        return _fingerprint(path)
    except OSError:
        return ""


def _fingerprint(path: str) -> str:
    """sha256 of a file; of a large one, of its ends, its size and when it was changed. OSError.

    A link may lead to it, as it may for a test runner; what is no regular file is not opened."""
    with open(open_guarded(path, follow=True), "rb") as file:
        about = os.fstat(file.fileno())
        if about.st_size <= WHOLE_BYTES:
            return hashlib.sha256(file.read(WHOLE_BYTES)).hexdigest()
        ends = hashlib.sha256(f"{about.st_size} {about.st_mtime_ns}".encode())
        ends.update(file.read(_END_BYTES))
        file.seek(-_END_BYTES, os.SEEK_END)
        ends.update(file.read(_END_BYTES))
        return ends.hexdigest()


def _walk(
    workspace: str, skipped: set[str], below: str = "", above: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Every file of the workspace, also behind links to its directories. `above`: the directories
    that this one is in, so that no circle of links is followed."""
    real = os.path.realpath(os.path.join(workspace, below))
    if real in above or not f"{real}/".startswith(f"{os.path.realpath(workspace)}/"):
        return
    with contextlib.suppress(OSError), os.scandir(real) as entries:
        for entry in sorted(entries, key=lambda found: found.name):
            path = os.path.join(below, entry.name)
            if not entry.is_dir():
                yield path
            elif entry.name not in skipped:
                yield from _walk(workspace, skipped, path, above | {real})


def _matches(path: str, pattern: str) -> bool:
    """Glob over the relative path; without a slash over the name; `dir/` is all below."""
    pattern = pattern.removeprefix("./")
    if pattern.endswith("/"):
        return path.startswith(pattern)
    if "/" not in pattern:
        return fnmatch.fnmatchcase(os.path.basename(path), pattern)
    # fnmatch's * crosses slashes, so ** needs nothing of its own but "zero directories".
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(
        path, pattern.replace("**/", "")
    )
