"""The workspace's content around the loop's work: what changed, the commit, the checkpoint.

What changes while something of the loop works is the loop's, and owed until it is committed; what
changes in between is somebody else's (`core.owed`)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TypeVar, TypeVarTuple

import anyio

from codex_self_iter.core import events as ev
from codex_self_iter.core.commands import Keep
from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.core.owed import NOTHING, Mark, explained, seen, summary, taken, unkept
from codex_self_iter.core.progress import Change, compare, printable
from codex_self_iter.core.state import Iteration, Step
from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor import fencing
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.side_effects import SideEffects, some
from codex_self_iter.world.git import locks, objects
from codex_self_iter.world.git.checkpoints import Checkpoints
from codex_self_iter.world.git.commits import SupervisorCommits, message
from codex_self_iter.world.git.ignored import ignored
from codex_self_iter.world.git.ledger import Ledger
from codex_self_iter.world.git.repository import Repository, repository_key
from codex_self_iter.world.git.run import Git, GitError
from codex_self_iter.world.git.scan import ScanLimits
from codex_self_iter.world.guarded import parse_object, read_guarded
from codex_self_iter.world.process.proctable import PLACE_MARKER
from codex_self_iter.world.process.tool import run_tool
from codex_self_iter.world.state.durable import replace_private, storing

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

AT_ONCE = 2000
"""Paths that are gone through on the event loop: some 20 ms; more are in a thread."""
FRESH_SEC = 1.0
"""A snapshot this young is still the present: yesterday's "after" is today's "before"."""
LAST_LOOK_SEC = 10.0
"""So long the look after gates may hold up an end; without it the next start looks."""
NOT_LOOKED = "what the last run changed was not looked at, because the stop was in a hurry"
BY_AGENT = 'the agent is to commit its work (git.commit = "agent") and has not'
BEFORE_FILE = "before.json"
_MAX_BEFORE = 256 * 1024 * 1024
PRUNE_EVERY = 20
"""Iterations between two looks for old checkpoints; fewer where few are kept."""


class Workspace:
    """What one loop knows of its workspace's content."""

    def __init__(self, ctx: Context) -> None:
        path, state_dir = str(ctx.paths.workspace), str(ctx.paths.state_dir)
        written = (os.path.relpath(file, path) for file in ctx.shared.output_files)
        limits = ScanLimits(
            own=(ctx.settings.global_stop_file_name, *written),
            unasked=fencing.level(ctx.settings, ctx.policy) != "none",
        )
        self._ctx = ctx
        self._work_tree = ctx.shared.open_work_tree(path, state_dir, self._patience, limits)
        # one that outlives a killed supervisor is ended by the next
        place = {PLACE_MARKER: os.path.realpath(path)}
        self._git = Git(run_tool, path, self._patience, place)
        self._points = Checkpoints(self._git, state_dir)
        self._points.own, self._points.unasked = limits.own, limits.unasked
        self._committer = SupervisorCommits(self._git, state_dir)
        self._ledger = Ledger(ctx.store.root)
        self._side = SideEffects(ctx, self._git, self._work_tree, self._ledger)
        self._before: Snapshot | None = None
        self._after: Snapshot | None = None
        self._after_at = float("-inf")
        self._locks: Mapping[str, str] | None = None
        """git's lock files before the present work; None: nobody looked."""
        self._error = ""
        """Why the last commit could not be made."""
        self._upkeep = True
        """git's own upkeep has not failed yet."""
        self.owed = NOTHING
        """What is not committed, in short; nothing where the supervisor does not commit."""
        self._blind = ""
        """Why it is not known what the last work changed."""

    def _now(self) -> float:
        return self._ctx.shared.clock.monotonic()

    @property
    def _patience(self) -> float:
        """Seconds for one git command."""
        return float(self._ctx.settings.git.timeout_sec) or math.inf

    @property
    def head(self) -> str:
        """HEAD at the last look."""
        return self._after.head if self._after else ""

    async def _beside(self, size: int, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call it: what goes through many paths does not hold up the event loop."""
        if size < AT_ONCE:
            return function(*args)
        return await self._ctx.shared.in_thread(function, *args)

    async def boot(self) -> None:
        """Read what the last supervisor owed, before anything else is looked at."""
        ctx = self._ctx
        try:
            await ctx.shared.in_thread(self._ledger.load)
        except StorageError as error:
            ctx.warnings.tell("owed", f"what is not committed is not known: {error}")
        self._side.branch = self._ledger.home or ""
        if not self._keeps:
            return
        opened = ctx.state.open
        if not self._ledger.known and opened and opened.ended and opened.step is not Step.RUN:
            first = os.path.join(ctx.store.path, "logs", "runs", opened.ended[0].label)
            self._ledger.under_way = await ctx.shared.in_thread(_read_mark, first)
        if self._ledger.under_way is not None:
            self._locks = self._ledger.under_way.locks
        self._error = ctx.state.owed.why if ctx.state.owed.mendable else ""
        self.owed = ctx.state.owed
        self._tell()

    # -- looking -----------------------------------------------------------------------------------

    async def before(self) -> Snapshot:
        """The content before the next run: the last look, if it is fresh."""
        if self._after is None or self._now() - self._after_at > FRESH_SEC:
            previous = self._after
            looked = await self._look()
            if await self._note_foreign(previous, looked):
                await self._keep_found(looked)
            await self._save()
        self._before = self._after
        self._locks = self._present_locks()
        assert self._before is not None
        await self._side.before(self._before)
        return self._before

    async def _look(self, *, gates: bool = False) -> Snapshot:
        """Look at the present. Work whose end nobody saw has ended by now, and is the loop's.

        `gates`: that work was gates, which are to keep what they find."""
        self._git.timeout_sec = self._work_tree.timeout_sec = self._patience
        looked = await self._work_tree.snapshot(self._after)
        number, wall = self._ctx.state.iteration, self._ctx.shared.clock.wall()
        begun, self._after, self._after_at = self._ledger.under_way, looked, self._now()
        self._tell_look(looked)
        ledger, debts = self._ledger, self._ledger.debts
        await self._beside(len(looked.entries), ledger.seen, looked, number, wall)
        if begun is not None and begun.look.complete and looked.complete:
            whole = gates and begun.look.stashes == looked.stashes  # a stash is told as such
            theirs = self._keeps or whole  # else nobody knows whose a change is
            gone = taken(debts, begun.look, looked, whole=whole) if theirs else {}
            if whole:  # ticks whose check fails are taken back beside the gates
                gone.pop(os.path.relpath(self._ctx.paths.plan, self._ctx.paths.workspace), None)
            await self._side.look_for_taken(gone, begun.look, looked)
        if looked.complete and not self._ledger.debts and not self._blind:
            self._error = ""  # somebody else has committed it
        if begun is not None:
            await self._clear_locks()
            if begun.look.head != looked.head:
                await self._committer.catch_up(begun.look.head)
        return looked

    async def _present(self) -> Snapshot:
        """The last look, if it is fresh."""
        if self._after is None or self._now() - self._after_at > FRESH_SEC:
            return await self._look()
        return self._after

    def look_again(self) -> None:
        """Somebody else has just edited: the last look is not the present, however young."""
        self._after_at = float("-inf")

    async def _note_foreign(self, previous: Snapshot | None, looked: Snapshot) -> bool:
        """Say that somebody else edited between two runs; True also when that is not known."""
        if previous is None:
            return True
        size = len(previous.entries) + len(looked.entries)
        foreign = (await self._beside(size, compare, previous, looked)).changed is True
        if foreign:
            self._ctx.log.info("workspace.changed_between_iterations")
        return foreign

    async def _keep_found(self, looked: Snapshot) -> None:
        """Keep what the coming iteration finds: its own work can be told apart and taken back."""
        state, usable = self._ctx.state, self._work_tree.repository is not None and looked.complete
        if not (self._ctx.settings.git.checkpoints and usable):
            return
        if state.open is None:
            saved = await self._checkpoints().save_before(state.iteration + 1, looked)
        elif not state.open.ended:  # edited while it waited for a place in the pool
            saved = await self._checkpoints().save(f"{state.open.number}-before", snapshot=looked)
        else:
            return
        if saved.error:
            self._ctx.log.warning("checkpoint.failed", error=saved.error)

    async def after(self) -> Change:
        """Look again after a run and compare."""
        before = self._before
        await self._clear_locks()
        if self._ctx.shared.branchless:
            await self._leave_branch()
        self._git.timeout_sec = self._work_tree.timeout_sec = self._patience
        after = await self._work_tree.snapshot(before)
        if before is None:
            # Adopted, and its first look was lost: nothing can be said.
            self._blind = "the content before the run is not known"
            self._ledger.debts = seen(self._ledger.debts, after)
            self._after, self._after_at = after, self._now()
            await self._save()
            return Change(None, note=self._blind)
        # whoever is in a hurry may cut this short anywhere
        self._ledger.under_way = self._ledger.under_way or Mark(before, self._locks)
        committed = None
        if before.head != after.head:
            committed = await self._work_tree.committed(before.head, after.head)
        size = len(before.entries) + len(after.entries)
        change = await self._beside(size, compare, before, after, committed)
        self._tell_look(after)
        await self._side.after(before, after)
        self._before = self._after = after
        self._after_at = self._now()
        await self._work_ended(before, after)
        return change

    async def _leave_branch(self) -> None:
        """Detach HEAD from the branch that a run has checked out, at the commit that the files are
        of: the branch may have been moved by somebody since."""
        with contextlib.suppress(GitError):  # the look that follows says what is wrong with git
            on = await self._git.run("symbolic-ref", "--quiet", "HEAD")
            if on.exit_code != 0 or not (head := await self._git.resolve("HEAD^{commit}")):
                return
            log = await self._git.run(
                "log", "--walk-reflogs", "--max-count=1", "--format=%H", "HEAD"
            )
            head = os.fsdecode(log.stdout).strip() or head
            await self._git.ask("update-ref", "--no-deref", "HEAD", head)
            was = os.fsdecode(on.stdout).strip().removeprefix("refs/heads/")
            self._ctx.log.warning("git.branch_changed", was=was, now=f"detached {head[:12]}")

    async def left_on(self, path: str) -> str:
        """The branch that has this file, where a run has left it for one that has not; else ""."""
        home = self._ledger.home or (self._before.branch if self._before else "")
        inner = os.path.relpath(path, self._ctx.paths.workspace)
        if not home or inner.startswith(os.pardir):
            return ""
        with contextlib.suppress(GitError):
            now = await self._git.run("symbolic-ref", "--quiet", "HEAD")
            moved = now.stdout.decode("utf-8", "replace").strip() != f"refs/heads/{home}"
            there = moved and await self._git.resolve(f"refs/heads/{home}:./{inner}")
            if there and not await self._git.resolve(f"HEAD:./{inner}"):
                return home
        return ""

    async def ignored(self, paths: Sequence[str]) -> dict[str, str]:
        """path -> rule, of those that git ignores."""
        return await ignored(self._git, paths)

    async def not_looked(self) -> Change:
        """The look after a run was cut short: the next look tells what the run changed."""
        if self._ledger.under_way is None and self._before is not None:
            self._ledger.under_way = Mark(self._before, self._locks)
        await self._save()
        if self._keeps and not self.owed.why:
            self.owed = dataclasses.replace(self.owed, why=NOT_LOOKED)
        return Change(None, note=NOT_LOOKED)

    # -- what is owed ------------------------------------------------------------------------------

    async def _work_ended(self, before: Snapshot, after: Snapshot) -> None:
        """Write down what is the loop's now; where nobody could look, the next look tells."""
        ledger = self._ledger
        if ledger.under_way is not None:
            before = ledger.under_way.look
        if not after.complete:
            ledger.under_way = Mark(before, self._locks) if before.complete else None
            self._blind = "" if before.complete else before.note
        else:
            number, wall = self._ctx.state.iteration, self._ctx.shared.clock.wall()
            self._blind = "" if before.complete else before.note or "incomplete snapshot"
            if not self._blind:
                size = len(before.entries) + len(after.entries)
                await self._beside(size, ledger.worked, before, after, number, wall)
            ledger.under_way = None
        await self._save()

    @contextlib.asynccontextmanager
    async def working(self, *, gates: bool = False) -> AsyncIterator[None]:
        """What changes in this block is the loop's, however the block ends; what `gates` do to the
        work beside that is told."""
        if not (self._keeps or gates):
            yield
            return
        look = await self._present()
        self._locks = self._present_locks()
        self._ledger.under_way = Mark(look, self._locks)
        if self._keeps:
            await self._save()
        try:
            yield
        finally:
            with anyio.move_on_after(LAST_LOOK_SEC, shield=True):
                after = await self._look(gates=gates)
                if gates:
                    await self._side.after(look, after)
                await self._save()

    @property
    def _keeps(self) -> bool:
        """What the loop changes is to be committed, by whomever."""
        return self._ctx.settings.git.commit != "none"

    async def _save(self, *, tried: bool = False) -> None:
        ctx, ledger = self._ctx, self._ledger
        if not self._keeps:
            ledger.debts, ledger.staged, ledger.theirs, ledger.under_way = {}, {}, {}, None
        if not ctx.policy.commit:
            left = any(not debt.mixed for debt in ledger.debts.values())
            self._error = BY_AGENT if left else ""
        if self._after is not None:
            await self._side.look_for_stashes(self._after)
        debts = ledger.debts
        self.owed = await self._beside(len(debts), summary, debts, self._error, self._side.stash)
        if tried or not (self.owed and ctx.policy.commit):  # else a commit has yet to be tried
            self._tell()
        await self._write_down()

    async def _write_down(self) -> None:
        ctx = self._ctx
        try:
            await ctx.shared.in_thread(self._ledger.save)
            ctx.warnings.clear("owed")
        except StorageError as error:
            ctx.warnings.tell("owed", f"what is not committed could not be written down: {error}")

    def _tell(self) -> None:
        """Say what a commit failed for, or left, for as long as it is so."""
        owed, warnings = self.owed, self._ctx.warnings
        text = ""
        if owed.count and owed.why:
            more = ", …" if owed.count > len(owed.files) else ""
            files = f"{', '.join(owed.files)}{more}"
            since = f"since iteration {owed.iteration}" if owed.iteration else ""
            text = f"{owed.count} changed file(s) not committed {since} ({files}): {owed.why}"
        elif self._error:
            text = self._error
        for key, is_this in (("commit", bool(self._error)), ("commit.left", not self._error)):
            if text and is_this:
                warnings.tell(key, text, agent=bool(self._error) or owed.mendable)
            else:
                warnings.clear(key)

    # -- git's locks -------------------------------------------------------------------------------

    def _present_locks(self) -> Mapping[str, str] | None:
        repository, branch = self._work_tree.repository, self._after.branch if self._after else ""
        return locks.present(repository, branch) if isinstance(repository, Repository) else None

    async def _clear_locks(self) -> None:
        """Remove the locks that a killed git of the present work left; say what stays."""
        repository, branch = self._work_tree.repository, self._after.branch if self._after else ""
        ctx, top = self._ctx, str(self._ctx.paths.workspace)
        if not isinstance(repository, Repository):
            return
        if not locks.present(repository, branch):
            ctx.warnings.clear("git.lock")
            return
        try:
            removed, kept = await ctx.shared.in_thread(
                locks.remove_left, repository, branch, self._locks, top
            )
        except OSError as error:
            ctx.warnings.tell("git.lock", f"a lock of git was left behind: {error}", agent=True)
            return
        for path in removed:
            ctx.log.warning("git.lock_removed", path=path)
        if kept:
            held = "was there before the iteration, or is in use: until it is gone"
            said = (f"{path} {held} {locks.hindered(repository, path)}" for path in kept)
            mend = "if no git command is running, remove it"
            ctx.warnings.tell("git.lock", f"{'; '.join(said)}; {mend}", agent=True)
        else:
            ctx.warnings.clear("git.lock")

    # -- an adopted run needs what its first supervisor saw ----------------------------------------

    def save_before(self, directory: str) -> None:
        """Leave the look before the run beside its output, for a supervisor that adopts it."""
        if self._before is None:
            return
        path = os.path.join(directory, BEFORE_FILE)
        try:
            with storing("write", path):
                mark = Mark(self._before, self._locks).to_json()
                replace_private(path, json.dumps(mark).encode())
        except StorageError as error:
            self._ctx.log.debug("before.not_saved", error=str(error))

    async def load_before(self, directory: str) -> None:
        """Read what `save_before` left."""
        mark = await self._ctx.shared.in_thread(_read_mark, directory)
        self._before, self._locks = (mark.look, mark.locks) if mark else (None, None)

    async def load_gone(self, directory: str) -> None:
        """The run is gone: what it changed is told by the next look."""
        if self._keeps and self._ledger.under_way is None:
            mark = await self._ctx.shared.in_thread(_read_mark, directory)
            self._ledger.under_way = mark
            self._locks = mark.locks if mark else None
            if mark is not None:  # killed once more, the next one would take it for a person's
                await self._write_down()

    # -- commit and checkpoint ---------------------------------------------------------------------

    async def keep(self, command: Keep) -> None:
        """Commit what the loop changed, keep a checkpoint; post Kept."""
        ctx, opened = self._ctx, self._ctx.state.open
        assert opened is not None
        errors: list[str] = []
        commit = checkpoint = ""
        if ctx.policy.commit:
            await self._present()
        if command.commit:
            commit = await self._commit(opened)
            errors += [self._error] if self._error else []
            await self._side.tell_adrift(self._after, commit)
        if command.checkpoint and self._wants_checkpoint():
            title = ctx.store.redactor.text(_summary(opened) or opened.aim)
            saved = await self._checkpoints().save(
                command.iteration, title=title, snapshot=self._after
            )
            checkpoint = saved.commit
            errors += [f"checkpoint: {saved.error}"] if saved.error else []
            self._tell_checkpoint(saved.error)
            if saved.skipped:
                ctx.log.info("checkpoint.skipped", files=list(saved.skipped[:20]))
            big = (
                f"larger than checkpoint_max_file_mb = {ctx.settings.git.checkpoint_max_file_mb:g}"
            )
            self._tell_left("checkpoint.big", list(map(printable, saved.skipped)), big)
            why = f"git refuses them ({next(iter(saved.refused.values()), '')})"
            self._tell_left("checkpoint.refused", list(map(printable, saved.refused)), why)
            inside = unkept(self._after) if self._after else []
            self._tell_left("checkpoint.nested", inside, "inside a repository of its own")
            await self._prune(command.iteration)
        await self._save(tried=True)
        ctx.post(ev.Kept(commit, checkpoint, self.head, "; ".join(errors), self.owed))

    async def _commit(self, opened: Iteration) -> str:
        """Commit what is owed; the id, or ""."""
        ctx, ledger, look = self._ctx, self._ledger, self._after
        assert look is not None
        if not ledger.debts and not ledger.staged and look.complete:
            self._error = f"not committed: {self._blind}" if self._blind else ""
            return ""
        ledger.under_way = ledger.under_way or Mark(look, self._locks)
        await self._save()
        redact = ctx.store.redactor.text
        text = message(redact(opened.aim), opened.number, redact(_summary(opened)))
        self._committer.no_verify = ctx.settings.git.no_verify
        made = await self._committer.commit(ledger.debts, look, text, ledger.staged)
        if made.tried:  # hooks may have changed files
            tried, look = look, await self._look()
            if made.error and not made.commit and look.complete and look.entries != tried.entries:
                # A hook that mends what it refuses (a formatter) wants to be asked once more.
                ctx.log.info("commit.again", error=ctx.shown(made.error, 500))
                ledger.under_way = ledger.under_way or Mark(look, self._locks)
                await self._save()
                made = await self._committer.commit(ledger.debts, look, text, ledger.staged)
                look = await self._look()
            self._before = look
        if look.complete:
            ledger.under_way = None
        for path in made.untracked:  # its file is not to be tracked: no change of the loop's
            ledger.debts.pop(path, None)
        still = dict.fromkeys(ledger.debts, made.error or "is shown as changed after the commit")
        whys = still | dict(made.left)
        safe = {why: redact(why) for why in set(whys.values())}
        ledger.debts = explained(ledger.debts, {path: safe[why] for path, why in whys.items()})
        self._error = redact(made.error)
        if made.error:
            ctx.log.warning(
                "commit.failed", error=ctx.shown(made.error, 500), files=len(ledger.debts)
            )
        if made.left:
            named = [f"{path} ({why})" for path, why in sorted(made.left.items()) if why]
            ctx.log.warning("commit.left", files=named[:20])
        if made.commit:
            ctx.log.info("commit.made", commit=made.commit[:12], files=len(made.files))
            if made.note:
                ctx.warnings.tell("commit.note", made.note)
            else:
                ctx.warnings.clear("commit.note")
        return made.commit

    def _wants_checkpoint(self) -> bool:
        """True where there is a repository, be it one that git refuses: that is said."""
        there = self._work_tree.repository is not None
        return there or repository_key(str(self._ctx.paths.workspace)) is not None

    def _tell_left(self, key: str, files: list[str], why: str) -> None:
        if files:
            self._ctx.warnings.tell(key, f"not in the checkpoints, because {why}: {some(files)}")
        else:
            self._ctx.warnings.clear(key)

    def _tell_look(self, looked: Snapshot) -> None:
        """Say that what changes cannot be told, or only without git although there is one."""
        without = self._work_tree.repository is None and self._wants_checkpoint()
        if looked.complete and not without:
            self._ctx.warnings.clear("look")
            return
        text = f"what changes in the workspace is not surely known: {looked.note}"
        self._ctx.warnings.tell("look", text, agent=True)

    def _tell_checkpoint(self, error: str) -> None:
        if not error:
            self._ctx.warnings.clear("checkpoint")
            return
        self._ctx.log.warning("checkpoint.failed", error=error)
        self._ctx.warnings.tell("checkpoint", f"no checkpoint could be made: {error}")

    def _checkpoints(self) -> Checkpoints:
        self._points.max_file_mb = float(self._ctx.settings.git.checkpoint_max_file_mb)
        return self._points

    async def _prune(self, iteration: int) -> None:
        """Now and then: what is too old goes, git's own upkeep runs, and what is left is counted."""
        ctx, settings = self._ctx, self._ctx.settings.git
        keep = settings.checkpoint_keep
        every = max(1, min(PRUNE_EVERY, keep // 10)) if keep else PRUNE_EVERY
        due = iteration % every == 0
        if not due and ctx.stored is not None:
            return
        try:
            if due:
                days, now = float(settings.checkpoint_keep_days), ctx.shared.clock.wall()
                await self._checkpoints().prune(keep, days, now)
        except GitError as error:
            ctx.log.warning("checkpoints.not_pruned", error=str(error))
        try:
            if due and self._upkeep:
                await objects.keep_up(self._git)
            ctx.stored = await objects.count(self._git)
        except GitError as error:
            self._upkeep = False  # it would take as long, or fail, once more
            ctx.log.warning("git.gc_failed", error=str(error))
            ctx.warnings.tell("git.gc", f"the repository is not tidied up, run git gc: {error}")


def _summary(opened: Iteration) -> str:
    return opened.block.summary if opened.block else ""


def _read_mark(directory: str) -> Mark | None:
    """What `save_before` left there, or None."""
    try:
        data = parse_object(read_guarded(os.path.join(directory, BEFORE_FILE), _MAX_BEFORE))
        return None if data is None else Mark.from_json(data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
