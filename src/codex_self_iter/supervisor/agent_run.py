"""One agent run: read its inputs, start it, await its end, report what it said and changed."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from typing import Any

import anyio

from codex_self_iter.agents.base import Agent, AgentMissingError, Request
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core import events as ev
from codex_self_iter.core import prompt as prompts
from codex_self_iter.core import stagnation, waits
from codex_self_iter.core.agent_report import AgentReport
from codex_self_iter.core.marks import mark
from codex_self_iter.core.opening import gates_found
from codex_self_iter.core.plan import (
    content_hash,
    dropped,
    items_differ,
    newly_ticked,
    overwritten,
    ticks,
)
from codex_self_iter.core.runs import EndCause, RunOutcome, RunSpec
from codex_self_iter.core.state import Dropped, Iteration, Message, OpenRun
from codex_self_iter.core.text import moment
from codex_self_iter.core.verdict import NAMED
from codex_self_iter.errors import StorageError, UsageError
from codex_self_iter.settings import Settings
from codex_self_iter.settings.templates import PLAN_TO_MAKE
from codex_self_iter.supervisor import asking, gates, item_checks, scratch, shortfalls
from codex_self_iter.supervisor.conditions import Conditions
from codex_self_iter.supervisor.configured import run_limits
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.fencing import Fence
from codex_self_iter.supervisor.gates import gate_files, tell_configuration
from codex_self_iter.supervisor.hooks import Hooks
from codex_self_iter.supervisor.lingering import Lingering
from codex_self_iter.supervisor.note_file import Notes
from codex_self_iter.supervisor.own_texts import OwnTexts
from codex_self_iter.supervisor.senses import Senses
from codex_self_iter.supervisor.work import Work
from codex_self_iter.supervisor.workspace import Workspace
from codex_self_iter.world.guarded import read_guarded
from codex_self_iter.world.ports import RunHandle
from codex_self_iter.world.state.durable import replace_private, storing
from codex_self_iter.world.state.inbox import MAX_MESSAGES

_MAX_PROMPT = 64 * 1024 * 1024
SETTLE_PATIENCE_SEC = 3.0
"""A file that is written to all the time holds up an iteration for so long at most."""
AT_ONCE_SEC = 0.05
"""A place in the pool that came sooner was not waited for."""
UNMADE = "plan unmade"
BOXES = "plan boxes"
AIMLESS = "aimless"
PROGRAM = "agent program"
BEING_WRITTEN = os.strerror(errno.ETXTBSY)


@dataclasses.dataclass(frozen=True, slots=True)
class AgentRuns:
    """The runs of one loop."""

    ctx: Context
    work: Work
    workspace: Workspace
    senses: Senses
    conditions: Conditions
    hooks: Hooks
    texts: OwnTexts
    notes: Notes
    fence: Fence

    async def prepare(self) -> None:
        """Read plan, task, inbox and work tree; post Prepared, or Block if they cannot be used, or a
        hook forbids it."""
        ctx = self.ctx
        stopping = self.senses.stop_request() is not None  # then nobody is asked
        if not (stopping or await self.hooks.may_begin()):
            ctx.post(ev.Prepared())  # held by now
            return
        try:
            await self.fence.ended()  # where an end was cut short
        except StorageError as error:
            self.conditions.hold_start(str(error))
            ctx.post(ev.Prepared())
            return
        await self._settle(in_run=False)
        self._tell_boxes()
        self._tell_aimless()
        self.conditions.look_disk()
        self.senses.look_problem()
        await gates.at_start(ctx, self.work, self.workspace)
        before = await self.workspace.before()
        files = await gate_files(ctx, self.workspace)
        tell_configuration(ctx, gates_found(ctx.state, files))
        self.senses.look_requests()
        red = {gate.command: gate.ok for gate in ctx.at_start or ()}
        ctx.post(ev.Prepared(self._messages(), before.head, files, self.workspace.owed, red))

    def _messages(self) -> tuple[Message, ...]:
        """What waits in the inbox, as much as fits beside what the iteration has."""
        ctx, opened = self.ctx, self.ctx.state.open
        had = opened.messages if opened else ctx.state.carried
        room = MAX_MESSAGES - sum(len(message.text) for message in had)
        try:
            found = ctx.inbox.messages(room, ctx.shared.clock.wall())
        except StorageError as error:
            ctx.warnings.tell("inbox", f"messages are not read: {error}")
            return ()
        ctx.warnings.clear("inbox")
        ctx.warn(ctx.store.take_warnings())
        return tuple(Message(one.name, one.text, one.mark) for one in found)

    async def _settle(self, *, in_run: bool) -> None:
        """Read plan and task; wait a little for what is being saved or dropped in just now."""
        ctx, clock = self.ctx, self.ctx.shared.clock
        give_up = clock.monotonic() + SETTLE_PATIENCE_SEC
        while True:
            for document in ctx.documents:
                self.senses.look_document(document, clock.monotonic(), in_run=in_run)
            arriving = not in_run and (
                self.texts.look() or self.notes.look() or ctx.inbox.arriving(clock.wall())
            )
            settling = arriving or any(document.settling for document in ctx.documents)
            if not settling or clock.monotonic() >= give_up:
                return
            await clock.sleep(0.05)

    async def run(self, run: OpenRun) -> None:
        """Wait for a place in the pool, run the agent, read what it said; post RunEnded."""
        ctx = self.ctx
        adopted, self.work.adopted = self.work.adopted, None
        slot = ctx.shared.pool.slot(
            key=run.agent,
            priority=ctx.settings.priority,
            owner=ctx.name,
            at_once=adopted is not None,
        )
        asked = ctx.shared.clock.monotonic()
        try:
            async with slot:
                waited = ctx.shared.clock.monotonic() - asked > AT_ONCE_SEC
                if waited and adopted is None and await self._overtaken(run):
                    self._not_run(run, EndCause.REQUEST, not_started=True)
                    return
                request = self._request(run, adopted is not None)
                outcome = await self._outcome(run, request, adopted)
        except UsageError as error:
            with contextlib.suppress(StorageError):  # its prompt may have been written
                ctx.store.redact_iteration(self._opened.number)
            missing = isinstance(error, AgentMissingError)
            self._not_run(
                run,
                EndCause.SPAWN_FAILED,
                error=str(error),
                argv0_missing=missing,
                was_there=missing and self._was_there(run, str(error), away=True),
            )
        except StorageError as error:
            # its iteration stays open until its files can be written
            self.conditions.hold_start(str(error))
            self._not_run(run, EndCause.REQUEST, not_started=True)
        else:
            await self._report(run, request, outcome)

    def _was_there(self, run: OpenRun, error: str, *, away: bool = False) -> bool:
        """Whether the run's program could be started before, and say so. A file that is there and
        cannot be started (half of one, no interpreter) may never have been a program."""
        there = run.agent in self.work.started
        if away or BEING_WRITTEN in error:
            there = there or run.agent in self.ctx.config.found
        if there:
            text = f"the program of {run.agent} was there before and cannot be started now: {error}"
            self.ctx.warnings.tell(PROGRAM, text)
        return there

    async def _overtaken(self, run: OpenRun) -> bool:
        """It has waited for its place: what it finds is looked at again.

        True when it must not start now; it is prepared again once nothing holds the loop."""
        ctx = self.ctx
        await self._settle(in_run=False)
        self.workspace.look_again()
        await self.workspace.before()
        ctx.post(ev.GateFiles(await gate_files(ctx, self.workspace)))
        self.conditions.look_disk()
        self.senses.look_problem()
        limit = ctx.state.limits.get(run.account)
        limited = limit is not None and waits.rest(limit, ctx.shared.moment()) > 0
        held = self.conditions.disk_low or self.senses.problem or ctx.state.blocked_by
        return bool(held) or limited

    async def _outcome(
        self, run: OpenRun, request: Request, adopted: RunHandle | None
    ) -> RunOutcome:
        """Start the run, or take over the adopted one, and wait until nothing of it is left."""
        ctx = self.ctx
        try:
            spec = self._spec(run, request)
            if adopted is None:
                spec = await self.fence.around(run.agent, request, spec)
        except (UsageError, StorageError):
            scratch.remove(request.directory)
            raise
        if adopted is None:
            self._tell_stand_in(run)
            ctx.log.info(
                "run.started",
                iteration=ctx.state.iteration,
                role=str(run.role),
                agent=run.agent,
                goal=ctx.shown(ctx.state.open.aim if ctx.state.open else "", 120),
                output=os.path.join(spec.directory, "stdout.log"),
            )
            if ctx.shared.debug:
                ctx.log.debug(
                    "run.spawn", argv=list(spec.argv), environment=sorted(spec.env), cwd=spec.cwd
                )
        self.work.retrying = ""
        lingering = Lingering(ctx, self.work, run.agent, spec.directory)
        lingering.begin()
        try:
            outcome = await self.work.run_agent(spec, adopted)
            outcome = await self.fence.container.ended(spec, outcome)
            if outcome.cause is not EndCause.SPAWN_FAILED:
                self.work.started.add(run.agent)
                ctx.warnings.clear(PROGRAM)
            elif outcome.argv0_missing and self._was_there(run, outcome.error):
                outcome = dataclasses.replace(outcome, was_there=True)
            return lingering.done(outcome)
        finally:
            lingering.stop()
            await self.fence.ended()

    def _tell_stand_in(self, run: OpenRun) -> None:
        """Say who stands in for whom, why and until when, for as long as it does."""
        ctx, first = self.ctx, self.ctx.policy.agents[run.role][0]
        wait = ctx.state.limits.get(first.account)
        if run.agent == first.name or wait is None:
            ctx.warnings.clear(f"stand-in {run.role}")
            return
        until = moment(wait.until)
        text = f"{run.agent} stands in for {first.name} as {run.role} until {until}: {wait.reason}"
        ctx.warnings.tell(f"stand-in {run.role}", text)

    async def _report(self, run: OpenRun, request: Request, outcome: RunOutcome) -> None:
        """Post what it said and what it changed."""
        ctx = self.ctx
        ctx.log.info(
            "run.ended",
            role=str(run.role),
            agent=run.agent,
            cause=str(outcome.cause),
            exit_code=outcome.exit_code,
            seconds=round(outcome.duration_sec, 1),
            swept=outcome.swept,
        )
        await self.senses.mend_documents()
        reports: list[AgentReport] = []

        async def read() -> None:
            reports.append(await ctx.shared.in_thread(self._read, run, request, outcome))

        async with anyio.create_task_group() as tasks:  # git looks while we read
            tasks.start_soon(read, name=f"{ctx.name}: read an answer")
            with self.work.cut_short() as hurry:
                change = await self.workspace.after()
            if hurry.cancelled_caught:
                change = await self.workspace.not_looked()
        ctx.warn(ctx.store.take_warnings())
        if reports[0].note:
            ctx.log.warning("run.answered", agent=run.agent, note=reports[0].note)
        shortfalls.tell_run(ctx, run.agent, reports[0])
        files = await gate_files(ctx, self.workspace)
        tell_configuration(ctx, dataclasses.replace(ctx.state, gate_seen=files))
        await self._settle(in_run=True)
        done, total, _ = ctx.plan.progress()
        before = ctx.plan.saved(request.directory)
        # a plan that lies in the state directory, or is ignored, is in no look
        planned = before is not None and items_differ(before, ctx.plan.text)
        lost = overwritten(ctx.plan.came, before or "", ctx.plan.text)
        self._tell_overwritten(lost)
        self._tell_unmade(worked=reports[0].failure is None or bool(change.changed))
        await self.work.settle()
        ctx.post(
            ev.RunEnded(
                run_id=run.run_id,
                outcome=outcome,
                report=reports[0],
                prompt=request.prompt,
                changed=planned or change.changed,
                changed_files=change.files,
                head=self.workspace.head,
                change_note=change.note,
                gate_files=files,
                plan_open=total - done,
                plan_total=total,
                ticked=0 if before is None else ticks(before, ctx.plan.text),
                ticked_marks=() if before is None else self._marks(before),
                dropped=dropped_items(ctx, before, lost),
                plan_checks=item_checks.there(ctx),
                owed=self.workspace.owed,
            )
        )

    def _tell_overwritten(self, lost: tuple[str, ...]) -> None:
        """Say which items came into the plan during a run and were gone at its end: the agent that
        ran may have written its own copy over a person's edit. The next agent is told once."""
        ctx, plan = self.ctx, self.ctx.plan
        still = overwritten(plan.missing, "", plan.text)
        plan.missing = tuple(dict.fromkeys((*still, *lost)))
        if not plan.missing:
            ctx.warnings.clear("plan items")
            return
        named = "; ".join(text[:200] for text in plan.missing[:NAMED])
        more = f"; and {len(plan.missing) - NAMED} more" if len(plan.missing) > NAMED else ""
        text = (
            f"{os.path.basename(plan.path)} had during a run what is gone now without a tick: "
            f"{named}{more}. Somebody may have added it meanwhile: put it back, or say why it is not "
            "needed"
        )
        ctx.warnings.tell("plan items", text, agent=bool(lost))

    def _tell_unmade(self, *, worked: bool) -> None:
        """Say that the plan of a task in words is still to be made, for as long as it is so, once a
        run `worked` that could have made it."""
        if self.ctx.plan.text != PLAN_TO_MAKE:
            self.ctx.warnings.clear(UNMADE)
            return
        if not worked:
            return
        path = asking.plan_file(self.ctx)
        text = f"no plan has been written yet: {path} is as it was; the loop goes on without steps"
        self.ctx.warnings.tell(UNMADE, text, agent=True)

    def _tell_boxes(self) -> None:
        """Say that a plan without items proves nothing, where its items are asked for."""
        ctx, plan = self.ctx, self.ctx.plan
        asked = ctx.policy.require_plan_done and plan.text != PLAN_TO_MAKE
        if asked and not plan.progress()[1]:
            name = os.path.basename(plan.path)
            text = f"require_plan_done has no effect: {name} has no checkboxes (`- [ ] …`)"
            ctx.warnings.tell(BOXES, text)
        else:
            ctx.warnings.clear(BOXES)

    def _tell_aimless(self) -> None:
        """Say that nothing has come of many iterations, to the next agent once."""
        count, bound = self.ctx.state.counters.aimless, self.ctx.policy.max_stagnation
        text, first = stagnation.aimless(count, bound)
        if text:
            self.ctx.warnings.tell(AIMLESS, text, agent=first)
        else:
            self.ctx.warnings.clear(AIMLESS)

    def _marks(self, before: str) -> tuple[str, ...]:
        """Marks of what was ticked since, the last ones that are remembered."""
        found = newly_ticked(before, self.ctx.plan.text)[-stagnation.DONE :]
        return tuple(mark(text) for text in found)

    def _read(self, run: OpenRun, request: Request, outcome: RunOutcome) -> AgentReport:
        """Read what it said, then take secrets out of what is kept."""
        ctx, files = self.ctx, RunFiles(request.directory)
        now = ctx.shared.clock.wall()
        scratch.remove(request.directory)
        report = ctx.agents[run.agent].read(request, outcome, files, now=now)
        report = self.fence.told(run.agent, report, files)
        report = report.shown(ctx.store.redactor.text)
        try:
            ctx.store.redact_run(request.directory, self.work.in_haste)
            ctx.store.redact_prompt(request.prompt_path, self.work.in_haste)
        except StorageError as error:  # what cannot be written now stays as it is
            ctx.log.warning("redaction.failed", error=str(error))
        return report

    def never_started(self, run: OpenRun) -> None:
        """Report a run that was called off before it started."""
        self._not_run(run, EndCause.REQUEST)

    def _not_run(
        self, run: OpenRun, cause: EndCause, *, not_started: bool = False, **why: Any
    ) -> None:
        outcome = RunOutcome(run.run_id, cause, None, None, run.started_at, 0.0, **why)
        report = AgentReport("")
        self.ctx.post(
            ev.RunEnded(run.run_id, outcome, report, changed=False, not_started=not_started)
        )

    def _request(self, run: OpenRun, adopted: bool) -> Request:
        """Build prompt and request. For an adopted run the prompt is the one that was sent."""
        ctx, opened = self.ctx, self._opened
        place = opened.number, run.role.value, run.attempt
        if adopted:
            directory = ctx.store.run_directory(*place)
            path = os.path.join(ctx.store.path, "prompts", f"{run.label}.md")
            try:
                text = read_guarded(path, _MAX_PROMPT).decode()
            except (OSError, UnicodeDecodeError):
                text = ""
        else:
            scratch.remove(ctx.store.run_directory(*place))  # of a try that could not start
            directory = ctx.store.fresh_run_directory(*place)
            text = prompts.build(asking.inputs(ctx, run, self.texts.of(run.role), self.notes))
            # Verbatim while the agent reads it; redacted when the run has ended.
            path = ctx.store.save_prompt(
                opened.number, run.role.value, text, run.attempt, redact=False
            )
            ctx.store.clear_way("run.lock")
            self.workspace.save_before(directory)
            for document in ctx.documents:
                document.save(directory)
        return asking.request(ctx, run, text, path, directory, scratch.make(directory))

    @property
    def _opened(self) -> Iteration:
        opened = self.ctx.state.open
        assert opened is not None
        return opened

    def _spec(self, run: OpenRun, request: Request) -> RunSpec:
        """How the process host is to run it. Raises AgentMissingError, StorageError."""
        ctx = self.ctx
        return spec_of(ctx.agents[run.agent], request, run.run_id, ctx.run_lock_path, ctx.settings)


def spec_of(
    agent: Agent, request: Request, run_id: str, run_lock_path: str, settings: Settings
) -> RunSpec:
    """How the process host is to run an agent; the files that it is handed are written.

    Raises AgentMissingError, StorageError."""
    invocation = agent.prepare(request)
    for path, text in invocation.files.items():
        with storing("write", path):
            replace_private(path, text.encode())
    return RunSpec(
        run_id=run_id,
        argv=invocation.argv,
        cwd=request.workspace,
        env=invocation.env,
        directory=request.directory,
        run_lock_path=run_lock_path,
        stdin_path=invocation.stdin_path,
        watch_root=request.workspace,
        limits=run_limits(settings, agent),
    )


def dropped_items(ctx: Context, before: str | None, lost: tuple[str, ...] = ()) -> Dropped | None:
    """What is missing in the plan since the text that a run has found, with what was `lost` that
    came in between; None: nobody asks for it, or the text is not known."""
    if before is None or not ctx.policy.require_plan_done:
        return None
    last, now = ctx.state.dropped, ctx.plan.text
    known = last.items if content_hash(before) == last.plan else ()
    return Dropped(dropped((*known, *lost), before, now), content_hash(now))
