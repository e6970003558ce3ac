"""What was decided and is still to be done: commands, carried out in order.

A `Persist` or `Journal` that cannot be written holds back the commands behind it until it can
(nothing that is not on disk is acted upon), while events go on being decided, so that a STOP still
works with a full disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

from codex_self_iter.core import asked
from codex_self_iter.core import commands as do
from codex_self_iter.core import events as ev
from codex_self_iter.core.commands import Command, Exit
from codex_self_iter.core.state import LoopState, OpenRun, to_json
from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor import courier, exporting, gates, notify
from codex_self_iter.supervisor.agent_run import AgentRuns
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.midturn import MidTurn
from codex_self_iter.supervisor.senses import Senses
from codex_self_iter.supervisor.work import Work
from codex_self_iter.supervisor.workspace import Workspace

GIVE_UP_SAVING_SEC = 5.0
"""A loop that is to end while its state cannot be written tries for so long, then ends without."""


class Outbox:
    """The commands of one loop, each with the state that was decided with it."""

    def __init__(
        self, ctx: Context, work: Work, workspace: Workspace, senses: Senses, runs: AgentRuns
    ) -> None:
        self._ctx, self._work, self._workspace = ctx, work, workspace
        self._senses, self._runs = senses, runs
        self._midturn = MidTurn(ctx, work)
        self._pending: deque[tuple[Command, LoopState]] = deque()
        self._give_up_at: float | None = None
        self._lost = False
        self._held: str | None = None
        """Why something is held back; said and posted once, or saying so would be held back too."""

    @property
    def held(self) -> bool:
        """True while something waits to be carried out."""
        return bool(self._pending)

    def add(self, commands: Iterable[Command], state: LoopState) -> None:
        """Queue what was decided with this state."""
        for command in commands:
            # depends on nothing that is written: it must not wait for the disk
            if isinstance(command, do.Abort):
                self._call_off()
                self._work.abort()
            else:
                self._pending.append((command, state))

    def _call_off(self) -> None:
        """A start that waits behind a failed write must not happen after an abort."""
        kept: deque[tuple[Command, LoopState]] = deque()
        for command, state in self._pending:
            match command:
                case do.StartRun(run):
                    self._runs.never_started(run)
                case do.RunGates():
                    self._no_gates()
                case _:
                    kept.append((command, state))
        self._pending = kept

    def _no_gates(self) -> None:
        self._ctx.post(ev.GatesEnded((), aborted=True))

    async def flush(self) -> Exit | None:
        """Carry out commands in order up to the first that cannot be, or up to an Exit.

        What a person is to be told is kept before anything else: killed in between, it is told once
        more at most."""
        words, record = [], None
        for command, state in self._pending:
            if isinstance(command, do.Journal):
                record = command.record
            elif isinstance(command, do.Notify):
                word = notify.notice(self._ctx, command.event, command.text, state, record)
                words.append((word, command.cause))
        if words:
            await courier.keep(self._ctx, words)
        while self._pending:
            command, state = self._pending[0]
            if isinstance(command, Exit):
                self._pending.clear()
                self._release()
                return asked.admitted(command, lost=self._lost)
            try:
                await self._carry_out(command, state)
            except StorageError as error:
                if not self._must_give_up():
                    self._hold(str(error))
                    return None
                self._lost = True
                self._ctx.log.error("state.lost", error=str(error), command=type(command).__name__)
                self._ctx.warnings.tell("not saved", f"not saved: {error}")
            self._pending.popleft()
        self._release()
        return None

    def _hold(self, reason: str) -> None:
        """The state directory cannot be written: start nothing, say so, try again later."""
        if self._held is None:
            self._ctx.log.error("state.cannot_write", error=reason)
        if self._held != reason and not self._ctx.state.finished:
            self._ctx.post(ev.Block(ev.Hold.STORAGE, f"cannot write the state directory: {reason}"))
        self._held = reason

    def _release(self) -> None:
        self._give_up_at = None
        if self._held is not None:
            self._held = None
            self._ctx.log.info("state.writable_again")
            self._ctx.post(ev.Unblock(ev.Hold.STORAGE))

    def _must_give_up(self) -> bool:
        """True when the loop is to end and has tried long enough to save its state.

        Nothing is lost for good: the next start goes on from the last snapshot, and the run's files
        say how it ended."""
        if not asked.leaving(self._ctx.state, (command for command, _ in self._pending)):
            return False
        now = self._ctx.shared.clock.monotonic()
        if self._give_up_at is None:
            self._give_up_at = now + GIVE_UP_SAVING_SEC
        return now >= self._give_up_at

    async def _carry_out(self, command: Command, state: LoopState) -> None:
        ctx, begin = self._ctx, self._work.begin
        match command:
            case do.Persist():
                await ctx.shared.in_thread(ctx.store.save_runtime, to_json(state))
            case do.Journal(record):
                await ctx.shared.in_thread(self._append, record)
                self._journalled(record)
            case do.KeepNotes(notes):
                await self._runs.notes.keep(notes)
            case do.TakeMessages(iteration, messages):
                self._senses.take(messages, iteration)
            case do.Prepare():
                begin("prepare", self._runs.prepare, reads_only=True)
            case do.StartRun(run):
                self.start_run(run)
            case do.SteerRun(run_id, names):
                self._midturn.give(run_id, names)
            case do.RunGates(iteration):
                begin("gates", partial(self._gates, iteration), self._no_gates)
            case do.Keep():
                begin("keep", partial(self._keep, command))
            case do.ShareLimit(account, wait):
                ctx.shared.limits.share(ctx, account, wait, ctx.shared.rng.random)
            case do.Log(event, fields):
                ctx.log.info(event, **fields)
            case do.Notify(event, text, cause):
                notify.tell(ctx, event, text, state, cause)
            case do.Abort() | do.Exit():
                raise AssertionError("handled before")

    async def _gates(self, iteration: int) -> None:
        await self._runs.hooks.turn()
        await gates.run_all(self._ctx, self._work, self._workspace, iteration)
        await self._senses.mend_documents()

    async def _keep(self, command: do.Keep) -> None:
        with self._work.cut_short() as scope:
            await self._workspace.keep(command)
        if scope.cancelled_caught:
            self._ctx.post(ev.Kept(error="cut short: the loop was told to end at once"))

    def start_run(self, run: OpenRun) -> None:
        """Start an agent run, or wait for the adopted one; RunEnded is posted."""
        runs = self._runs
        self._work.begin("agent run", partial(runs.run, run), partial(runs.never_started, run))

    def _append(self, record: dict[str, Any]) -> None:
        """Write a journal line; what the runs it tells of may have lost is put back by now."""
        ctx = self._ctx
        ctx.store.append_journal(record)
        for run in record["runs"]:
            for document in ctx.documents:
                document.forget(f"{ctx.store.path}/logs/runs/{run['label']}")

    def _journalled(self, record: dict[str, Any]) -> None:
        ctx, shown = self._ctx, self._ctx.shown
        kept = ctx.store.redactor.value(record)
        ctx.recent.append(kept)
        exporting.trace(ctx, kept)
        ctx.tell()
        line = {key: value for key, value in record.items() if key != "after"}
        self._runs.hooks.fire("after_iteration", verdict=record["verdict"], record=line)
        ctx.log.info(
            "iteration.ended",
            iteration=record["iteration"],
            verdict=record["verdict"],
            failure_class=record["failure_class"] or "",
            unproven=shown(record["unproven"] or "", 200),
            seconds=round(record["duration_sec"], 1),
            changed_files=record["changed_count"],
            summary=shown(record["summary"] or record["error"], 200),
            next_goal=shown(record["next_goal"], 120) if record["verdict"] != "completed" else "",
        )
