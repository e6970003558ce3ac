"""The rounds of one loop: event -> decide -> persist -> act, until it has ended.

Every event goes through `decide`; its commands are carried out in order by the outbox."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
from anyio.abc import ObjectReceiveStream

from codex_self_iter.core import asked, budget
from codex_self_iter.core import events as ev
from codex_self_iter.core.commands import Exit
from codex_self_iter.core.machine import decide
from codex_self_iter.core.runs import EndCause
from codex_self_iter.core.state import LoopState
from codex_self_iter.core.terms import State
from codex_self_iter.core.text import epoch, iso
from codex_self_iter.errors import ExitCode, StorageError, UsageError, WorkspaceGoneError
from codex_self_iter.settings import Settings
from codex_self_iter.settings.paths import text_flaws
from codex_self_iter.supervisor import (
    awake,
    courier,
    daily,
    ending,
    exporting,
    gates,
    notify,
    orphans,
    shortfalls,
)
from codex_self_iter.supervisor.agent_run import UNMADE, AgentRuns, dropped_items
from codex_self_iter.supervisor.conditions import Conditions
from codex_self_iter.supervisor.configured import Configured, configure
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.ears import Listener
from codex_self_iter.supervisor.fencing import Fence
from codex_self_iter.supervisor.hooks import Hooks
from codex_self_iter.supervisor.housekeeping import Housekeeping
from codex_self_iter.supervisor.note_file import Notes
from codex_self_iter.supervisor.outbox import Outbox
from codex_self_iter.supervisor.own_texts import OwnTexts
from codex_self_iter.supervisor.senses import Senses
from codex_self_iter.supervisor.status_file import Status
from codex_self_iter.supervisor.work import Work
from codex_self_iter.supervisor.workspace import Workspace
from codex_self_iter.world.guarded import read_object
from codex_self_iter.world.state.store import STATUS

_MOST_STATUS = 4_000_000
AT_ONCE = ("max_iterations", "budget", "service", "pool")
"""Keys and tables that bound the loop as a whole: a reload does not wait for its iteration."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """How a loop ended."""

    code: int
    state: State
    reason: str
    card: str = ""
    """What is shown to a person who has waited for it."""


class Rounds:
    """A loop that holds its lock and knows its state. A poller.Looker."""

    def __init__(self, ctx: Context, events: ObjectReceiveStream[ev.Event]) -> None:
        self.ctx = ctx
        self.workspace = Workspace(ctx)
        self.work = Work(ctx)
        self.senses = Senses(ctx, self.workspace)
        self.conditions = Conditions(ctx, self.work)
        self.hooks = Hooks(ctx, self.work, self.workspace, self.senses.stops_seen)
        self.notes = Notes(ctx)
        self.fence = Fence(ctx)
        runs = AgentRuns(
            ctx,
            self.work,
            self.workspace,
            self.senses,
            self.conditions,
            self.hooks,
            OwnTexts(ctx),
            self.notes,
            self.fence,
        )
        self.outbox = Outbox(ctx, self.work, self.workspace, self.senses, runs)
        self.status = Status(ctx, self.work, self.outbox, self.senses)
        self.housekeeping = Housekeeping(ctx)
        self.ended: Ended | None = None
        self._events = events
        self._saving = anyio.Lock()
        self._times: dict[str, float] = {}
        self._warned: list[str] | None = None
        """What the last status of all warns of."""
        self._state_at = ctx.shared.clock.monotonic()
        self._next: Configured | None = None
        self._changed: list[str] = []
        """Keys that the next settings change."""
        self.begun = ctx.settings
        """The settings that the loop was started with."""
        self._fault: Exception | None = None
        self._wake = anyio.Event()
        self._look_soon: Callable[[], None] = lambda: self._wake.set()

    # -- life --------------------------------------------------------------------------------------

    async def run(self, ready: anyio.Event) -> Ended:
        """Go on until the end; `ready` is set once the past has been dealt with."""
        ctx = self.ctx
        try:
            async with ctx.tasks as tasks:
                await self._boot(ready)
                ctx.start("status", self.status.keep)
                ctx.start("courier", courier.run, ctx, daily.tell)
                ctx.start("housekeeping", self.housekeeping.run)
                with self._looking():
                    self.senses.listen(self.hint)
                    await self._consume()
                tasks.cancel_scope.cancel()
        finally:
            self.senses.stop_listening()
            ctx.shared.limits.leave(ctx)
            ctx.shared.ears.leave(ctx.paths)
            with anyio.CancelScope(shield=True):
                await self.work.end_everything(EndCause.CRASHED)
                await self.fence.container.leave()
                await awake.leave(ctx)
                await courier.last(ctx)
                await self._leave_again()
        assert self.ended is not None
        return self.ended

    async def _boot(self, ready: anyio.Event) -> None:
        """Find what the last supervisor left, then let the core decide how to go on."""
        ctx, stop = self.ctx, self.senses.stop_request()
        path = f"{ctx.store.path}/{STATUS}"
        last = await ctx.shared.in_thread(read_object, path, _MOST_STATUS)
        heard = epoch((last or {}).get("updated_at")) or 0.0
        run = ctx.state.open.run if ctx.state.open else None
        kill = stop is not None or ctx.policy.on_orphan == "kill"
        await self.fence.begin()
        await self.workspace.boot()
        self.notes.begin()
        gates.tell_configuration(ctx, ctx.state)
        gates.tell_gates(ctx)
        await shortfalls.tell_commands(ctx)
        await shortfalls.tell_neighbours(ctx)
        trace = await orphans.find(ctx, self.work, self.workspace, kill=kill)
        await self.fence.container.begin(adopted=self.work.adopted is not None)
        if self.work.adopted is None:
            await self.fence.settled()
            await self.senses.mend_documents()
        ctx.shared.limits.join(ctx, ctx.post)
        paused = self.senses.paused_now()
        if ctx.plan.problem:
            ctx.state = dataclasses.replace(ctx.state, blocked_by={})
        dropped = None
        if run is not None and trace is ev.Trace.GONE:
            before = ctx.plan.saved(f"{ctx.store.path}/logs/runs/{run.label}")
            dropped = dropped_items(ctx, before)
        if stop is None:
            self.hooks.fire("on_start")
        await self.handle(ev.Boot(trace, paused, dropped, heard))
        ready.set()
        if stop is not None:
            # A STOP that was there before us is obeyed before any run, also one that would let an
            # iteration end.
            await self.handle(dataclasses.replace(stop, after_iteration=False))
        if self.work.adopted is not None and run is not None:
            self.outbox.start_run(run)

    async def _consume(self) -> None:
        while self.ended is None:
            event = await self._events.receive()
            if self._fault is not None:
                raise self._fault
            await self.handle(event)

    async def handle(self, event: ev.Event) -> None:
        """Decide one event and carry out what can be carried out."""
        ctx, before = self.ctx, self.ctx.state
        if isinstance(event, ev.Stop) and not event.after_iteration:
            self.hooks.stopping.set()
        state, commands = decide(before, event, ctx.policy, ctx.shared.moment())
        if ctx.shared.debug:
            ctx.log.debug(
                "loop.decided",
                event_type=type(event).__name__,
                inputs=ctx.shown(repr(event), 300),
                state=f"{before.state} -> {state.state}",
                commands=[type(command).__name__ for command in commands],
            )
        self._count_time(before.state)
        ctx.state = state
        self._tell_budget()
        self.outbox.add(commands, state)
        await self._flush()
        if self.ended is None and (before.state, before.reason) != (state.state, state.reason):
            self._say_state(state)
        self._apply_when_due()
        if self.ended is None:
            ctx.tell()
            if ctx.state.wait is not before.wait:
                self.hint()  # it sleeps until the next look; the new wait may end sooner
        ctx.shared.on_round()

    def _tell_budget(self) -> None:
        """Say which bounds are nearly or wholly used, for as long as they are."""
        ctx, now = self.ctx, self.ctx.shared.clock.wall()
        near = budget.near(budget.today(ctx.state.spent, now), ctx.policy.budget)
        for name in budget.BOUNDS:
            key = f"budget {name}"
            if name not in near:
                ctx.warnings.clear(key)
            elif not ctx.warnings.begun(key):  # the figure moves with every run
                ctx.warnings.tell(key, near[name])

    def _count_time(self, state: State) -> None:
        now = self.ctx.shared.clock.monotonic()
        self._times[state.value] = self._times.get(state.value, 0.0) + now - self._state_at
        self._state_at = now

    def _say_state(self, state: LoopState) -> None:
        fields: dict[str, Any] = {"reason": state.reason}
        if wait := asked.told_wait(state):
            fields |= {"seconds": round(wait.length, 1), "until": iso(wait.until)}
        say = self.ctx.log.warning if state.state is State.BLOCKED else self.ctx.log.info
        say(f"loop.{state.state}", **fields)

    async def _flush(self) -> None:
        async with self._saving:
            if self.ended is None and (end := await self.outbox.flush()):
                await self._end(end)

    async def _end(self, end: Exit) -> None:
        ctx = self.ctx
        ctx.state = dataclasses.replace(ctx.state, exit_code=end.code, reason=end.reason)
        self.senses.stop_listening()
        with anyio.CancelScope(shield=True):
            await self.work.end_everything()
            await self.hooks.leave(end.code)
            self.senses.tell_unheard()
            self.notes.look()
            await self.housekeeping.finish()
            if end.state is State.COMPLETED:
                ctx.warnings.clear(UNMADE)  # it was done without
            self._warned = [*ctx.warnings]
            card = await self.leave_report()
            await self.status.write_last()
            if end.state is State.COMPLETED:
                with contextlib.suppress(StorageError):
                    await ctx.shared.in_thread(ctx.store.redact_runtime)
            self.ended = Ended(end.code, end.state, end.reason, card)
        # An end that needs a person is said even when only errors are.
        say = ctx.log.info if end.code in (ExitCode.OK, ExitCode.SIGINT) else ctx.log.error
        say("loop.ended", state=str(end.state), reason=end.reason, exit_code=end.code)

    async def _leave_again(self) -> None:
        """Write report and status once more, if it had to be said that nobody could be told."""
        if self._warned is not None and self._warned != [*self.ctx.warnings]:
            await self.leave_report()
            await self.status.write_last()

    async def leave_report(self) -> str:
        """Write the report; the card of this run, or ""."""
        return await ending.write_report(self.ctx, self._times)

    async def end_badly(self, error: BaseException, again_sec: float | None) -> None:
        """Leave what every end leaves: report, last status, a word to the person, all with one
        reason. `again_sec`: so soon it is started again; None: it is not."""
        ctx, code = self.ctx, getattr(error, "exit_code", ExitCode.INTERNAL)
        with anyio.CancelScope(shield=True):
            reason = str(error)
            if ending.is_defect(error, again_sec):
                reason = await ending.say_defect(ctx.log, ctx.name, error, again_sec)
            ctx.state = dataclasses.replace(
                ctx.state,
                state=State.BLOCKED if code == ExitCode.NEEDS_HUMAN else State.CRASHED,
                since=ctx.shared.clock.wall(),
                reason=reason,
                exit_code=int(code),
            )
            if again_sec is None:
                end = {"state": ctx.state.state.value, "reason": reason, "exit_code": int(code)}
                ctx.log.error("loop.ended", **end)
            self._warned = [*ctx.warnings]
            for leave in (
                self.leave_report,
                self.status.write_last,
                partial(notify.tell_end, ctx, gone=isinstance(error, WorkspaceGoneError)),
                partial(courier.last, ctx),
                partial(self.hooks.leave, None if again_sec is not None else int(code)),
                self._leave_again,
            ):
                with contextlib.suppress(Exception):  # what failed the loop may fail this, too
                    await leave()

    # -- looking -----------------------------------------------------------------------------------

    def look(self) -> float:
        """One look at everything; returns the seconds until the next."""
        self.senses.look()
        self.conditions.look()
        self.hooks.look()
        awake.look(self.ctx)
        self._listen()
        exporting.look(self.ctx)
        self.status.heartbeat()
        if self.outbox.held and not self._saving.locked():
            self.ctx.start("retry", self._flush)
        return self.conditions.patience(self.senses.pause())

    def _listen(self) -> None:
        """Hear what a person answers, if that is wanted."""
        ctx = self.ctx
        wanted = ctx.settings.notify.replies
        ctx.shared.ears.look(Listener(ctx.name, ctx.paths, wanted, ctx.warnings, ctx.log))

    def fail(self, error: Exception) -> None:
        """End the loop with this error, as if it had been raised in it."""
        self._fault = error
        self.ctx.post(ev.Tick())

    def hint(self) -> None:
        """Look soon."""
        self._look_soon()

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        """Look now and then: when the poller of many loops says so, or in a task of our own."""
        if self.ctx.shared.poller is None:
            self.ctx.start("look", self._keep_looking)
            yield
            return
        with self.ctx.shared.poller.watching(self) as self._look_soon:
            yield

    async def _keep_looking(self) -> None:
        while True:
            with anyio.move_on_after(self.look()):
                await self._wake.wait()
            self._wake = anyio.Event()

    # -- configuration -----------------------------------------------------------------------------

    def reload(self, settings: Settings, changed: list[str], tell: Callable[[], None]) -> None:
        """Use new settings from the next iteration on; `tell` logs them, `changed` are the keys that
        take effect. Raises UsageError: nothing changed.

        What bounds the loop as a whole holds at once, so that a raised limit comes in time for the
        iteration that would have been the last."""
        ctx = self.ctx
        if flaws := list(text_flaws(settings)):
            raise UsageError("\n".join(flaws))
        self._next = configure(settings, ctx.paths, ctx.shared.environ)
        tell()
        new = self._next.policy
        policy = dataclasses.replace(
            ctx.policy,
            max_iterations=new.max_iterations,
            budget=new.budget,
            finish_on_term=new.finish_on_term,
        )
        kept = ctx.settings.model_copy(update={key: getattr(settings, key) for key in AT_ONCE})
        ctx.config = ctx.config._replace(policy=policy, settings=kept)
        self._say_applied([key for key in changed if key.partition(".")[0] in AT_ONCE])
        later = [key for key in changed if key.partition(".")[0] not in AT_ONCE]
        self._changed = list(dict.fromkeys((*self._changed, *later)))
        self._apply_when_due()

    def _say_applied(self, keys: list[str]) -> None:
        if keys:
            self.ctx.log.info("config.applied", keys=keys)

    def _apply_when_due(self) -> None:
        if self._next is None or self.ctx.state.open is not None:
            return
        self.ctx.config, self._next = self._next, None
        self._say_applied(self._changed)
        self._changed = []
        shortfalls.tell_start(self.ctx)
        gates.tell_gates(self.ctx)
        self.ctx.start("commands", shortfalls.tell_commands, self.ctx)
        self.ctx.mail.woken.set()
        self.ctx.post(ev.PolicyChanged())
