"""The workspace's content around an iteration: what changed, the commit, the checkpoint."""

from __future__ import annotations

import json
import os

from codex_self_iter.core import events as ev
from codex_self_iter.core.commands import Keep
from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.core.progress import Change, compare
from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor.context import Context
from codex_self_iter.world.git.checkpoints import Checkpoints
from codex_self_iter.world.git.commits import SupervisorCommits
from codex_self_iter.world.git.run import Git, GitError
from codex_self_iter.world.git.scan import ScanLimits
from codex_self_iter.world.guarded import read_object
from codex_self_iter.world.process.tool import run_tool
from codex_self_iter.world.state.durable import replace_private, storing

FRESH_SEC = 1.0
"""A snapshot this young is still the present: yesterday's "after" is today's "before"."""
BEFORE_FILE = "before.json"
_MAX_BEFORE = 256 * 1024 * 1024
PRUNE_EVERY = 20


class Workspace:
    """What one loop knows of its workspace's content."""

    def __init__(self, ctx: Context) -> None:
        path, state_dir = str(ctx.paths.workspace), str(ctx.paths.state_dir)
        timeout = float(ctx.settings.git.timeout_sec)
        limits = ScanLimits(own=(ctx.settings.global_stop_file_name,))
        self._ctx = ctx
        self._work_tree = ctx.shared.open_work_tree(path, state_dir, timeout, limits)
        git = Git(run_tool, path, timeout)
        self._points = Checkpoints(git, state_dir)
        self._points.own = limits.own
        self._committer = SupervisorCommits(git, state_dir)
        self._before: Snapshot | None = None
        self._after: Snapshot | None = None
        self._after_at = float("-inf")
        self._first: tuple[int, Snapshot] | None = None
        """The look before an iteration's first run: what its commit is measured from."""

    def _now(self) -> float:
        return self._ctx.shared.clock.monotonic()

    @property
    def head(self) -> str:
        """HEAD at the last look."""
        return self._after.head if self._after else ""

    async def before(self) -> Snapshot:
        """The content before the next run: the last look, if it is fresh."""
        now = self._now()
        if self._after is None or now - self._after_at > FRESH_SEC:
            looked = await self._work_tree.snapshot(self._after)
            if self._note_foreign(looked):
                await self._keep_found(looked)
            self._after, self._after_at = looked, now
        self._before = self._after
        return self._before

    def look_again(self) -> None:
        """Somebody else has just edited: the last look is not the present, however young."""
        self._after_at = float("-inf")

    def _note_foreign(self, looked: Snapshot) -> bool:
        """Say that somebody else edited between two runs; True also when that is not known."""
        if self._after is None:
            return True
        foreign = compare(self._after, looked).changed is True
        if foreign:
            self._ctx.log.info("workspace.changed_between_iterations")
        return foreign

    async def _keep_found(self, looked: Snapshot) -> None:
        """Keep what the coming iteration finds: its own work can be told apart and taken back."""
        state, usable = self._ctx.state, self._work_tree.repository is not None and looked.complete
        if self._ctx.settings.git.checkpoints and usable and state.open is None:
            saved = await self._checkpoints().save_before(state.iteration + 1, looked)
            if saved.error:
                self._ctx.log.warning("checkpoint.failed", error=saved.error)

    async def after(self) -> Change:
        """Look again after a run and compare."""
        before = self._before
        after = await self._work_tree.snapshot(before)
        if before is None:
            # Adopted, and its first look was lost: nothing can be said.
            self._after, self._after_at = after, self._now()
            return Change(None, note="the content before the run is not known")
        committed = None
        if before.head != after.head:
            committed = await self._work_tree.committed(before.head, after.head)
        change = compare(before, after, committed)
        number = self._ctx.state.iteration
        if self._first is None or self._first[0] != number:
            self._first = number, before
        self._before = self._after = after
        self._after_at = self._now()
        return change

    # -- an adopted run needs what its first supervisor saw ----------------------------------------

    def save_before(self, directory: str) -> None:
        """Leave the look before the run beside its output, for a supervisor that adopts it."""
        if self._before is None:
            return
        path = os.path.join(directory, BEFORE_FILE)
        try:
            with storing("write", path):
                replace_private(path, json.dumps(self._before.to_json()).encode())
        except StorageError as error:
            self._ctx.log.debug("before.not_saved", error=str(error))

    def load_before(self, directory: str) -> None:
        """Read what `save_before` left."""
        try:
            found = read_object(os.path.join(directory, BEFORE_FILE), _MAX_BEFORE)
            self._before = Snapshot.from_json(found or {})
        except (ValueError, KeyError, TypeError, AttributeError):
            self._before = None

    # -- commit and checkpoint ---------------------------------------------------------------------

    async def keep(self, command: Keep) -> None:
        """Commit what the iteration changed, keep a checkpoint; post Kept."""
        ctx, opened = self._ctx, self._ctx.state.open
        assert opened is not None
        summary = opened.block.summary if opened.block else ""
        commit = checkpoint = ""
        errors: list[str] = []
        before = self._first[1] if self._first else self._before
        if command.commit and before is not None and self._after is not None:
            self._committer.no_verify = ctx.settings.git.no_verify
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
                ctx.log.info("commit.made", commit=commit[:12], files=len(made.files))
                self._after = await self._work_tree.snapshot(self._after)
                self._before, self._after_at = self._after, self._now()
        if command.checkpoint and self._work_tree.repository is not None:
            saved = await self._checkpoints().save(
                command.iteration, title=summary or opened.goal, snapshot=self._after
            )
            checkpoint = saved.commit
            errors += [f"checkpoint: {saved.error}"] if saved.error else []
            if saved.skipped:
                ctx.log.info("checkpoint.skipped", files=list(saved.skipped[:20]))
            await self._prune(command.iteration)
        ctx.post(ev.Kept(commit, checkpoint, self.head, "; ".join(errors)))

    def _checkpoints(self) -> Checkpoints:
        self._points.max_file_mb = float(self._ctx.settings.git.checkpoint_max_file_mb)
        return self._points

    async def _prune(self, iteration: int) -> None:
        if iteration % PRUNE_EVERY:
            return
        settings = self._ctx.settings.git
        try:
            days, now = float(settings.checkpoint_keep_days), self._ctx.shared.clock.wall()
            await self._checkpoints().prune(settings.checkpoint_keep, days, now)
        except GitError as error:
            self._ctx.log.warning("checkpoints.not_pruned", error=str(error))
