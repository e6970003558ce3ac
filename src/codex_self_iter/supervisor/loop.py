"""One loop from its start to its end: lock, recovery, rounds, and what a crash leaves."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
from anyio.abc import ObjectReceiveStream

from codex_self_iter.core import events as ev
from codex_self_iter.core.foreign import as_list, as_words
from codex_self_iter.core.recovery import RecoveryError
from codex_self_iter.core.state import LoopState
from codex_self_iter.core.terms import Verdict
from codex_self_iter.errors import UsageError, WorkspaceBusyError, first_cause
from codex_self_iter.settings import Settings
from codex_self_iter.settings.paths import ResolvedPaths, resolve_paths, validate_workspace
from codex_self_iter.setup import sentence as sentences
from codex_self_iter.supervisor import ending, exporting, failed_start, fencing, shortfalls
from codex_self_iter.supervisor.announce import tell_terms
from codex_self_iter.supervisor.configured import Configured, configure
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.documents import Document, put_back_lost, quarantine
from codex_self_iter.supervisor.logger import FILES
from codex_self_iter.supervisor.rounds import Ended, Rounds
from codex_self_iter.supervisor.senses import stop_files
from codex_self_iter.supervisor.shared import Shared
from codex_self_iter.supervisor.warnings import Warnings
from codex_self_iter.views.status import RECENT
from codex_self_iter.world.state.codec import recover
from codex_self_iter.world.state.inbox import Inbox, remove_stop, write_goal
from codex_self_iter.world.state.logfile import LogFile
from codex_self_iter.world.state.store import RUNTIME, StateDirectory


class Loop:
    """Runs one loop from start to end. One instance for each start."""

    def __init__(
        self,
        shared: Shared,
        settings: Settings,
        *,
        clear_stop: bool = False,
        sentence: str = "",
        again_sec: float | None = None,
    ) -> None:
        """`sentence`: the task in words, or ""; `again_sec`: so long after a defect it is started again; None: it is not."""
        self.shared = shared
        self.settings = settings
        self.clear_stop = clear_stop
        self.sentence = sentence
        self.again_sec = again_sec
        self.ready = anyio.Event()
        """Set once the loop has dealt with its past."""
        self.taken: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint
        """Called once it has the workspace; not for one that is refused."""
        self.rounds: Rounds | None = None
        """What it does once it holds its lock and has read its state."""
        self._send, self._receive = anyio.create_memory_object_stream[ev.Event](math.inf)

    @property
    def state(self) -> LoopState:
        """What is decided by now."""
        return self.rounds.ctx.state if self.rounds is not None else LoopState("")

    async def run(self) -> Ended:
        """Run the loop to its end. Raises UsageError, WorkspaceBusyError, or what a defect does."""
        with self._send, self._receive:
            rounds: Rounds | None = None
            store: StateDirectory | None = None
            try:
                paths, mended = self._validated()
                config = configure(self.settings, paths, self.shared.environ)
                await self.shared.in_thread(fencing.check, config.settings, config.policy, paths)
                store = self.shared.open_store(str(paths.state_dir), str(paths.workspace))
                store.in_place = not self.shared.alone
                store.acquire_lock(self.settings.lock_file_name)
                if self.sentence:
                    paths = self.take_sentence(store)
                self.shared.places[self.settings.name] = str(paths.workspace), store.path
                ctx = self.context(paths, config, store)
                rounds = self.begun(ctx, self._receive)
                ctx.warn(mended)
                self.recover(ctx)
                self.rounds = rounds
                await self.taken()
                return await rounds.run(self.ready)
            except Exception as raised:
                error = first_cause(raised)
                if rounds is not None and (self.rounds or not isinstance(error, UsageError)):
                    await self._end_badly(rounds, error)
                elif ending.is_defect(error, self.again_sec):
                    again = self.again_sec
                    await self.taken()
                    await failed_start.tell(self.shared, self.settings, error, again, store)
                raise error from None
            except anyio.get_cancelled_exc_class():  # by a defect of what the loops share
                if rounds is not None and self.shared.fault is not None:
                    await self._end_badly(rounds, self.shared.fault)
                raise
            finally:
                if rounds is not None:
                    with anyio.CancelScope(shield=True):
                        await exporting.leave(rounds.ctx)
                FILES.pop(self.settings.name, None)
                if store is not None:
                    store.close()

    async def _end_badly(self, rounds: Rounds, error: BaseException) -> None:
        if not isinstance(error, WorkspaceBusyError) and rounds.ended is None:
            again = None if self.shared.fault else self.again_sec
            await rounds.end_badly(error, again)

    def _validated(self) -> tuple[ResolvedPaths, list[str]]:
        """The workspace's paths, and what had to be put back first. Raises UsageError."""
        try:
            return validate_workspace(self.settings, documents=not self.sentence), []
        except UsageError:
            mended = put_back_lost(resolve_paths(self.settings))
            if not mended:
                raise
            return validate_workspace(self.settings), mended

    def take_sentence(self, store: StateDirectory) -> ResolvedPaths:
        """Make it the task; a new one is what the next iteration begins with."""
        settings = self.settings
        there = os.path.lexists(settings.workspace_path / settings.plan_file)
        own_plan = settings.origin("plan_file") == "default" and not there
        if not own_plan:  # what is wrong with the plan is said before the task is taken
            validate_workspace(settings)
        finished = any(one.get("verdict") == Verdict.COMPLETED for one in store.journal_tail(1))
        new = sentences.take(store.root, self.sentence, own_plan=own_plan, finished=finished)
        if new and store.root.look(RUNTIME):
            write_goal(store.path, sentences.NEW_GOAL)
        return validate_workspace(settings)

    def begun(self, ctx: Context, events: ObjectReceiveStream[ev.Event]) -> Rounds:
        """What the loop does from here on."""
        return Rounds(ctx, events)

    def living(self) -> list[Rounds]:
        """What hears signals and is looked after, once it knows its state."""
        return [self.rounds] if self.rounds is not None else []

    def post(self, event: ev.Event) -> None:
        """Queue an event; a loop that has ended hears nothing."""
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._send.send_nowait(event)

    def context(self, paths: ResolvedPaths, config: Configured, store: StateDirectory) -> Context:
        """What the parts of this loop share."""
        shared, settings = self.shared, self.settings
        file = LogFile(
            store.root,
            "logs/supervisor.log",
            max_mb=float(settings.output.log_max_mb),
            keep=settings.output.log_files,
            stay_open=shared.alone,
        )
        FILES[settings.name] = file
        log = shared.log if shared.alone else shared.log.bind(loop=settings.name)
        return Context(
            shared=shared,
            name=settings.name,
            log=log,
            paths=paths,
            store=store,
            inbox=Inbox(store.root),
            plan=Document("plan", str(paths.plan), required=True, aside=quarantine(paths)),
            task=Document("task", str(paths.task), required=False, aside=quarantine(paths)),
            tasks=anyio.create_task_group(),
            post=self.post,
            config=config,
            state=LoopState(""),
            warnings=Warnings(log, store.redactor.text),
        )

    def recover(self, ctx: Context) -> None:
        """Read what was kept. Raises UsageError for what cannot be understood."""
        for document in ctx.documents:
            document.poll(self.shared.clock.monotonic(), at_once=True)
        if self.clear_stop:
            for directory, name in stop_files(self.settings, ctx.paths):
                remove_stop(directory, name)
        loaded = ctx.store.load()
        ctx.warn([*loaded.warnings, *ctx.store.take_warnings()])
        try:
            ctx.state = recover(loaded.runtime, loaded.last_line, os.urandom(4).hex())
        except RecoveryError as error:
            raise UsageError(
                f"{ctx.paths.state_dir}: {error}. Move the directory away to start from the "
                "beginning, or put a good runtime.json back"
            ) from error
        ctx.recent.extend(ctx.store.journal_tail(RECENT))
        last = ctx.recent[-1] if ctx.recent else {}
        refused = [as_words(one) for one in as_list(last.get("refused"))]
        shortfalls.tell_refused(ctx, as_words(last.get("agent")), refused)
        shortfalls.tell_start(ctx)
        self.introduce(ctx)

    def introduce(self, ctx: Context) -> None:
        """Say who works on what, and when it is done."""
        tell_terms(ctx)
