"""The workspace's content around an iteration: what changed, which gate files, the commit, the
checkpoint.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from codex_self_iter.core import events as ev
from codex_self_iter.core.commands import Keep
from codex_self_iter.core.model import Snapshot
from codex_self_iter.core.progress import Change, compare
from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor.private import write_private
from codex_self_iter.world.git.checkpoints import Checkpoints
from codex_self_iter.world.git.commits import SupervisorCommits
from codex_self_iter.world.git.run import Git, GitError
from codex_self_iter.world.git.scan import ScanLimits
from codex_self_iter.world.process.tool import run_tool

if TYPE_CHECKING:
    from codex_self_iter.supervisor.loop import Loop

FRESH_SEC = 1.0
"""A snapshot this young is still the present: yesterday's "after" is today's "before"."""
BEFORE_FILE = "before.json"
PRUNE_EVERY = 20
MAX_GATE_FILES = 2_000


class Tree:
    """What one loop knows of its workspace's content."""

    def __init__(self, loop: Loop) -> None:
        """Nothing is read yet."""
        settings, paths = loop.settings, loop.paths
        self.loop = loop
        self.workspace, self.state_dir = str(paths.workspace), str(paths.state_dir)
        timeout = float(settings.git.timeout_sec)
        limits = ScanLimits(own=(settings.global_stop_file_name,))
        self._work_tree = loop.shared.open_work_tree(
            self.workspace, self.state_dir, timeout, limits
        )
        self._git = Git(run_tool, self.workspace, timeout)
        self._points = Checkpoints(self._git, self.state_dir)
        self._points.own = limits.own
        self._committer = SupervisorCommits(self._git, self.state_dir)
        self._before: Snapshot | None = None
        self._after: Snapshot | None = None
        self._after_at = float("-inf")

    @property
    def head(self) -> str:
        """HEAD at the last look."""
        return self._after.head if self._after else ""

    async def before(self) -> Snapshot:
        """The content before the next run: the last look, if it is fresh."""
        now = self.loop.shared.clock.monotonic()
        if self._after is None or now - self._after_at > FRESH_SEC:
            looked = await self._work_tree.snapshot(self._after)
            if self._note_foreign(looked):
                await self._keep_found(looked)
            self._after, self._after_at = looked, now
        self._before = self._after
        return self._before

    def look_again(self) -> None:
        """Somebody else has just edited: the last look is no longer the present, however young it
        is.
        """
        self._after_at = float("-inf")

    def _note_foreign(self, looked: Snapshot) -> bool:
        """Say that somebody else edited between two runs. True also when nothing is known of the
        time before.
        """
        if self._after is None:
            return True
        foreign = compare(self._after, looked).changed is True
        if foreign:
            self.loop.log.info("workspace.changed_between_iterations")
        return foreign

    async def _keep_found(self, looked: Snapshot) -> None:
        """Keep what the coming iteration finds, so that its own work can be told apart and taken
        back.
        """
        state, usable = self.loop.state, self._work_tree.repository is not None and looked.complete
        if self.loop.settings.git.checkpoints and usable and state.open is None:
            saved = await self._checkpoints().save_before(state.iteration + 1, looked)
            if saved.error:
                self.loop.log.warning("checkpoint.failed", error=saved.error)

    async def after(self) -> Change:
        """Look again after a run and compare."""
        before = self._before
        after = await self._work_tree.snapshot(before)
        if before is None:
            # Adopted, and its first look was lost: nothing can be said.
            self._after, self._after_at = after, self.loop.shared.clock.monotonic()
            return Change(None, note="the content before the run is not known")
        committed = (
            await self._work_tree.committed(before.head, after.head)
            if before.head != after.head
            else None
        )
        change = compare(before, after, committed)
        self._first = self._first_of_iteration(before)
        self._before = self._after = after
        self._after_at = self.loop.shared.clock.monotonic()
        return change

    # -- an adopted run needs what its first supervisor saw ----------------------------------------

    _first: Snapshot | None = None
    _first_number = 0

    def _first_of_iteration(self, before: Snapshot) -> Snapshot:
        """The look before the iteration's first run: what the supervisor's commit is measured
        from.
        """
        number = self.loop.state.iteration
        if self._first is None or self._first_number != number:
            self._first, self._first_number = before, number
        return self._first

    def save_before(self, directory: str) -> None:
        """Leave the look before the run beside its output, for a supervisor that adopts it."""
        if self._before is None:
            return
        path = os.path.join(directory, BEFORE_FILE)
        try:
            write_private(path, json.dumps(self._before.to_json()))
        except StorageError as error:
            self.loop.log.debug("before.not_saved", error=str(error))

    def load_before(self, directory: str) -> None:
        """Read what `save_before` left."""
        try:
            with open(os.path.join(directory, BEFORE_FILE), encoding="utf-8") as file:
                self._before = Snapshot.from_json(json.load(file))
        except (OSError, ValueError, KeyError, TypeError):
            self._before = None

    # -- gate files --------------------------------------------------------------------------------

    async def gate_files(self) -> dict[str, str]:
        """Fingerprints of the files that `[verify] gate_files` names."""
        patterns = self.loop.settings.verify.gate_files
        if not patterns:
            return {}
        return await self.loop.shared.in_thread(_fingerprints, self.workspace, tuple(patterns))

    # -- commit and checkpoint ---------------------------------------------------------------------

    async def keep(self, command: Keep) -> None:
        """Commit what the iteration changed, keep a checkpoint; post Kept."""
        loop, opened = self.loop, self.loop.state.open
        assert opened is not None
        summary = opened.block.summary if opened.block else ""
        commit = checkpoint = ""
        errors: list[str] = []
        before = self._first or self._before
        if command.commit and before is not None and self._after is not None:
            self._committer.no_verify = loop.settings.git.no_verify
            made = await self._committer.commit_iteration(
                iteration=command.iteration,
                goal=opened.goal,
                summary=summary,
                before=before,
                after=self._after,
            )
            commit = made.commit
            errors += [made.error] if made.error else []
            if commit:
                loop.log.info("commit.made", commit=commit[:12], files=len(made.files))
                self._after = await self._work_tree.snapshot(self._after)
                self._before, self._after_at = self._after, loop.shared.clock.monotonic()
        if command.checkpoint and self._work_tree.repository is not None:
            saved = await self._checkpoints().save(
                command.iteration, title=summary or opened.goal, snapshot=self._after
            )
            checkpoint = saved.commit
            errors += [f"checkpoint: {saved.error}"] if saved.error else []
            if saved.skipped:
                loop.log.info("checkpoint.skipped", files=list(saved.skipped[:20]))
            await self._prune(command.iteration)
        loop.post(ev.Kept(commit, checkpoint, self.head, "; ".join(errors)))

    def _checkpoints(self) -> Checkpoints:
        self._points.max_file_mb = float(self.loop.settings.git.checkpoint_max_file_mb)
        return self._points

    async def _prune(self, iteration: int) -> None:
        if iteration % PRUNE_EVERY:
            return
        settings = self.loop.settings.git
        try:
            await self._checkpoints().prune(
                settings.checkpoint_keep,
                float(settings.checkpoint_keep_days),
                self.loop.shared.clock.wall(),
            )
        except GitError as error:
            self.loop.log.warning("checkpoints.not_pruned", error=str(error))


def _fingerprints(workspace: str, patterns: tuple[str, ...]) -> dict[str, str]:
    """path -> sha256 of every file below the workspace that a pattern matches; "" when it cannot be
    read.
    """
    found: dict[str, str] = {}
    for path in _walk(workspace, patterns):
        try:
            with open(os.path.join(workspace, path), "rb") as file:
                found[path] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            found[path] = ""
        if len(found) >= MAX_GATE_FILES:
            break
    return found


def _walk(workspace: str, patterns: tuple[str, ...]) -> Iterator[str]:
    skip = {".git", "node_modules", ".venv", "__pycache__", ".codex-self-iter"}
    for directory, names, files in os.walk(workspace):
        names[:] = [name for name in names if name not in skip]
        for name in files:
            path = os.path.relpath(os.path.join(directory, name), workspace)
            if any(_matches(path, pattern) for pattern in patterns):
                yield path


def _matches(path: str, pattern: str) -> bool:
    """Glob over the relative path; a pattern without a slash matches the file's name, `dir/`
    everything below.
    """
    pattern = pattern.removeprefix("./")
    if pattern.endswith("/"):
        return path.startswith(pattern)
    if "/" not in pattern:
        return fnmatch.fnmatchcase(os.path.basename(path), pattern)
    # fnmatch's * crosses slashes, so ** needs nothing of its own but "zero directories".
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(
        path, pattern.replace("**/", "")
    )
