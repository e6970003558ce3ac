"""One agent run: read its inputs, start it, await its end, report what it said and changed."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import anyio

from codex_self_iter.agents.base import AgentMissingError, Request
from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core import events as ev
from codex_self_iter.core import prompt as prompts
from codex_self_iter.core.agent_report import AgentReport
from codex_self_iter.core.control_block import SCHEMA
from codex_self_iter.core.runs import EndCause, RunOutcome, RunSpec
from codex_self_iter.core.state import Iteration, Message, OpenRun
from codex_self_iter.core.terms import Role
from codex_self_iter.errors import StorageError, UsageError
from codex_self_iter.supervisor import scratch
from codex_self_iter.supervisor.conditions import Conditions
from codex_self_iter.supervisor.configured import run_limits
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.gates import gate_files
from codex_self_iter.supervisor.lingering import Lingering
from codex_self_iter.supervisor.senses import Senses
from codex_self_iter.supervisor.work import Work
from codex_self_iter.supervisor.workspace import Workspace
from codex_self_iter.world.ports import RunHandle
from codex_self_iter.world.state.durable import replace_private, storing

SETTLE_PATIENCE_SEC = 3.0
"""A file that is written to all the time holds up an iteration for so long at most."""
SCHEMAS = {
    Role.PLANNER: prompts.PLANNER_SCHEMA,
    Role.EXECUTOR: SCHEMA,
    Role.REVIEWER: prompts.REVIEWER_SCHEMA,
}


@dataclasses.dataclass(frozen=True, slots=True)
class AgentRuns:
    """The runs of one loop."""

    ctx: Context
    work: Work
    workspace: Workspace
    senses: Senses
    conditions: Conditions

    async def prepare(self) -> None:
        """Read plan, task, inbox and work tree; post Prepared, or Block if they cannot be used."""
        ctx = self.ctx
        await self._settle(in_run=False)
        self.conditions.look_disk()
        self.senses.look_problem()
        before = await self.workspace.before()
        files = await gate_files(ctx)
        self.senses.look_requests()
        messages: tuple[Message, ...] = ()
        try:
            messages = tuple(Message(found.name, found.text) for found in ctx.inbox.messages())
        except StorageError as error:
            ctx.log.warning("inbox.not_read", error=str(error))
        ctx.post(ev.Prepared(messages, before.head, files))

    async def _settle(self, *, in_run: bool) -> None:
        """Read plan and task; wait a little for what is being saved or dropped in just now."""
        ctx, clock = self.ctx, self.ctx.shared.clock
        give_up = clock.monotonic() + SETTLE_PATIENCE_SEC
        while True:
            for document in ctx.documents:
                self.senses.look_document(document, clock.monotonic(), in_run=in_run)
            arriving = not in_run and ctx.inbox.arriving(clock.wall())
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
        try:
            async with slot:
                request = self._request(run, adopted is not None)
                outcome = await self._outcome(run, request, adopted)
        except UsageError as error:
            missing = isinstance(error, AgentMissingError)
            self._not_run(run, EndCause.SPAWN_FAILED, error=str(error), argv0_missing=missing)
        except StorageError as error:
            # its iteration stays open until its files can be written
            self.conditions.hold_start(str(error))
            self._not_run(run, EndCause.REQUEST, not_started=True)
        else:
            await self._report(run, request, outcome)

    async def _outcome(
        self, run: OpenRun, request: Request, adopted: RunHandle | None
    ) -> RunOutcome:
        """Start the run, or take over the adopted one, and wait until nothing of it is left."""
        ctx = self.ctx
        try:
            spec = self._spec(run, request)
        except (UsageError, StorageError):
            scratch.remove(request.directory)
            raise
        if adopted is None:
            ctx.log.info(
                "run.started",
                iteration=ctx.state.iteration,
                role=str(run.role),
                agent=run.agent,
                goal=(ctx.state.open.goal if ctx.state.open else "")[:120],
                output=os.path.join(spec.directory, "stdout.log"),
            )
            if ctx.shared.debug:
                ctx.log.debug(
                    "run.spawn", argv=list(spec.argv), environment=sorted(spec.env), cwd=spec.cwd
                )
        lingering = Lingering(ctx, self.work, run.agent, spec.directory)
        lingering.begin()
        try:
            return lingering.done(await self.work.run_process(spec, adopted))
        finally:
            lingering.stop()

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
        reports: list[AgentReport] = []

        async def read() -> None:
            reports.append(await ctx.shared.in_thread(self._read, run, request, outcome))

        async with anyio.create_task_group() as tasks:  # git looks while we read
            tasks.start_soon(read, name=f"{ctx.name}: read an answer")
            change = await self.workspace.after()
        if reports[0].note:
            ctx.log.warning("run.answered", agent=run.agent, note=reports[0].note)
        files = await gate_files(ctx)
        await self._settle(in_run=True)
        done, total, _ = ctx.plan.progress()
        ctx.post(
            ev.RunEnded(
                run_id=run.run_id,
                outcome=outcome,
                report=reports[0],
                prompt=request.prompt,
                changed=change.changed,
                changed_files=change.files,
                head=self.workspace.head,
                change_note=change.note,
                gate_files=files,
                plan_open=total - done,
                plan_total=total,
            )
        )

    def _read(self, run: OpenRun, request: Request, outcome: RunOutcome) -> AgentReport:
        """Read what it said, then take secrets out of what is kept."""
        ctx, files = self.ctx, RunFiles(request.directory)
        now = ctx.shared.clock.wall()
        scratch.remove(request.directory)
        report = ctx.agents[run.agent].read(request, outcome, files, now=now)
        try:
            ctx.store.redact_run(request.directory)
            ctx.store.redact_prompt(request.prompt_path)
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
        directory = ctx.store.run_directory(opened.number, run.role.value, run.attempt)
        if adopted:
            path = os.path.join(ctx.store.path, "prompts", f"{run.label}.md")
            try:
                with open(path, encoding="utf-8") as file:
                    text = file.read()
            except (OSError, UnicodeDecodeError):
                text = ""
        else:
            text = prompts.build(self._inputs(run))
            # Verbatim while the agent reads it; redacted when the run has ended.
            path = ctx.store.save_prompt(
                opened.number, run.role.value, text, run.attempt, redact=False
            )
            outputs = (f"{directory}/{name}" for name in ("stdout.log", "stderr.log"))
            ctx.store.clear_way("run.lock", *outputs)
            self.workspace.save_before(directory)
        session = ctx.state.sessions.get(run.agent)
        hints = {
            Role.PLANNER: ctx.settings.planner_model_hint,
            Role.REVIEWER: ctx.settings.reviewer_model_hint,
        }
        return Request(
            prompt=text,
            prompt_path=path,
            workspace=str(ctx.paths.workspace),
            plan_path=str(ctx.paths.plan),
            directory=directory,
            role=run.role,
            session_id=run.session_id,
            schema=SCHEMAS[run.role],
            commit_by_agent=ctx.settings.git.commit == "agent",
            environment=ctx.shared.environ,
            model_hint=hints.get(run.role, ""),
            previous_thread_usage=session.thread_usage if session and run.session_id else None,
            temporary=scratch.make(directory),
        )

    @property
    def _opened(self) -> Iteration:
        opened = self.ctx.state.open
        assert opened is not None
        return opened

    def _inputs(self, run: OpenRun) -> prompts.PromptInputs:
        ctx, opened = self.ctx, self._opened
        return prompts.PromptInputs(
            role=run.role,
            iteration=opened.number,
            plan=ctx.plan.text,
            task=ctx.task.text,
            goal=opened.goal,
            history=ctx.store.journal_tail(ctx.settings.history_tail),
            feedback=ctx.state.feedback,
            messages=[message.text for message in opened.messages],
            warnings=ctx.warnings.for_agent(),
            circling=prompts.circling_text(opened.goal) if opened.warned else "",
            promise=ctx.settings.completion_promise,
            gates=ctx.settings.verify.commands,
            commit=ctx.settings.git.commit,
            planner=opened.planner,
            block=opened.block.to_json() if opened.block else None,
            gate_results=[gate.to_json() for gate in opened.gates],
            changed_files=opened.changed_files,
        )

    def _spec(self, run: OpenRun, request: Request) -> RunSpec:
        """How the process host is to run it. Raises AgentMissingError, StorageError."""
        invocation = self.ctx.agents[run.agent].prepare(request)
        for path, text in invocation.files.items():
            with storing("write", path):
                replace_private(path, text.encode())
        return RunSpec(
            run_id=run.run_id,
            argv=invocation.argv,
            cwd=request.workspace,
            env=invocation.env,
            directory=request.directory,
            run_lock_path=self.ctx.run_lock_path,
            stdin_path=invocation.stdin_path,
            watch_root=request.workspace,
            limits=run_limits(self.ctx.settings),
        )
