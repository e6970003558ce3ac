"""A workspace's content without git: a bounded walk that reads a file again when it changed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time

from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.world import threads
from codex_self_iter.world.git.fingerprint import Budget, Hasher, StatCache
from codex_self_iter.world.git.porcelain import to_text

_TOOLS = b".git node_modules .venv venv __pycache__ .mypy_cache .pytest_cache .ruff_cache"
SKIPPED_DIRECTORIES = frozenset(_TOOLS.split())
"""Directories of tools, which an ignore file would name; they are not the work."""


STOP_FILE = ".codex-stop"
"""Default name of the file in the workspace that ends a loop."""


@dataclasses.dataclass(frozen=True, slots=True)
class ScanLimits:
    """What one look takes in. Beyond its bounds a snapshot is incomplete.

    Attributes:
        files: number of files (with git: of untracked ones).
        bytes: sum of the sizes of all files.
        own: files of ours, relative to the workspace, which are not the work.
        nested: number of repositories inside the repository (submodules included) that are looked
            into.
        unasked: git is not asked about these: their own configuration may name programs. Their files are
            read instead; a submodule counts once its commit has changed."""

    files: int = 20_000
    bytes: int = 8 * 1024**3
    nested: int = 100
    unasked: bool = False
    own: tuple[str, ...] = (STOP_FILE,)


def scan(
    root: str, state_dir: str, hasher: Hasher, limits: ScanLimits
) -> tuple[dict[str, str], str]:
    """Fingerprint every file below `root`: the entries, and why they are incomplete ("")."""
    top = os.fsencode(root)
    private = os.fsencode(os.path.abspath(state_dir))
    entries: dict[str, str] = {}
    size = 0
    pending = [top]
    while pending:
        files, directories, trouble = _list(pending.pop(), private)
        if trouble:
            return entries, trouble
        pending += directories
        for path, length in files:
            size += length
            if len(entries) >= limits.files:
                return entries, f"more than {limits.files} files"
            if size > limits.bytes:
                return entries, f"more than {limits.bytes // 1024**2} MiB of files"
            name = to_text(os.path.relpath(path, top))
            found = "" if name in limits.own else hasher.fingerprint(path)
            if found is None:
                return entries, "reading the files took too long"
            if found:
                entries[name] = found
    return entries, ""


def _list(directory: bytes, private: bytes) -> tuple[list[tuple[bytes, int]], list[bytes], str]:
    """Files with sizes, directories to visit, in a fixed order: a bound always cuts the same."""
    files: list[tuple[bytes, int]] = []
    directories: list[bytes] = []
    try:
        with os.scandir(directory) as found:
            listed = sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return files, directories, ""
    except OSError as error:
        return files, directories, f"cannot list {to_text(directory)}: {error.strerror}"
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in SKIPPED_DIRECTORIES and entry.path != private:
                directories.append(entry.path)
        else:
            with contextlib.suppress(FileNotFoundError):
                files.append((entry.path, entry.stat(follow_symlinks=False).st_size))
    return files, directories[::-1], ""


class ContentScan:
    """A WorkTree for workspaces without git.

    Everything below the workspace counts, except the state directory and `SKIPPED_DIRECTORIES`:
    there is no list of ignored files to go by. `timeout_sec`, for one look, may be changed."""

    def __init__(
        self,
        workspace: str,
        state_dir: str,
        timeout_sec: float = 60.0,
        limits: ScanLimits | None = None,
    ) -> None:
        self._workspace = os.path.realpath(workspace)
        self._state_dir = os.path.realpath(state_dir)
        self.timeout_sec = timeout_sec
        self._limits = limits or ScanLimits()
        self._cache: StatCache = {}

    async def snapshot(self, previous: Snapshot | None) -> Snapshot:  # noqa: ARG002
        """Take one snapshot, in a worker thread. The stat cache saves what `previous` would."""
        budget = Budget(time.monotonic() + self.timeout_sec)
        hasher = Hasher(self._cache, budget)
        try:
            entries, cut = await threads.run_sync(
                scan, self._workspace, self._state_dir, hasher, self._limits, abandon_on_cancel=True
            )
        finally:
            budget.stop = True
        self._cache = hasher.fresh
        if not os.path.isdir(self._workspace):
            cut = f"the workspace {self._workspace} is gone"
        return Snapshot("", "", entries, complete=not cut, note=cut)
