"""One agent run from inputs to report: read, prompt, spawn, wait, read the answer, look what
changed.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio

from codex_self_iter.agents.base import Agent, AgentMissingError, Request
from codex_self_iter.agents.files import RunFiles
from codex_self_iter.core import events as ev
from codex_self_iter.core import prompt as prompts
from codex_self_iter.core.control_block import SCHEMA
from codex_self_iter.core.model import (
    AgentReport,
    EndCause,
    Role,
    RunIdentity,
    RunLimits,
    RunOutcome,
    RunSpec,
)
from codex_self_iter.core.state import Message, OpenRun, Step
from codex_self_iter.errors import StorageError, UsageError
from codex_self_iter.supervisor.private import write_private

if TYPE_CHECKING:
    from codex_self_iter.settings import Settings
    from codex_self_iter.settings.paths import ResolvedPaths
    from codex_self_iter.supervisor.work import Work
    from codex_self_iter.world.ports import RunHandle

SETTLE_PATIENCE_SEC = 3.0
"""A file that is written to all the time holds up an iteration for so long at most."""
SCHEMAS = {
    Role.PLANNER: prompts.PLANNER_SCHEMA,
    Role.EXECUTOR: SCHEMA,
    Role.REVIEWER: prompts.REVIEWER_SCHEMA,
}


async def prepare(work: Work, role: Role) -> None:  # noqa: ARG001 - the inputs are the same for every role
    """Read plan, task, inbox and work tree; post Prepared, or Block when they cannot be used."""
    loop = work.loop
    await _settle(work, in_run=False)
    loop.control.look_disk()
    loop.control.look_problem(loop.plan, loop.task)
    before = await work.tree.before()
    gate_files = await work.tree.gate_files()
    loop.control.look_requests()
    messages: tuple[Message, ...] = ()
    try:
        messages = tuple(Message(message.name, message.text) for message in loop.inbox.messages())
    except StorageError as error:
        loop.log.warning("inbox.not_read", error=str(error))
    loop.post(ev.Prepared(messages, before.head, gate_files))


async def _settle(work: Work, *, in_run: bool) -> None:
    """Read plan and task; wait a little for what somebody is saving or dropping into the inbox just
    now.
    """
    loop = work.loop
    clock = loop.shared.clock
    give_up = clock.monotonic() + SETTLE_PATIENCE_SEC
    while True:
        for document in (loop.plan, loop.task):
            loop.control.look_document(document, clock.monotonic(), in_run=in_run)
        arriving = not in_run and loop.inbox.arriving(clock.wall())
        if (
            not (loop.plan.settling or loop.task.settling or arriving)
            or clock.monotonic() >= give_up
        ):
            return
        await clock.sleep(0.05)


async def agent_run(work: Work, run: OpenRun) -> None:
    """Wait for a place in the pool, run the agent, read what it said; post RunEnded."""
    loop = work.loop
    adopted, work.adopted = work.adopted, None
    agent = loop.agents[run.agent]
    slot = loop.shared.pool.slot(
        key=run.agent, priority=loop.settings.priority, owner=loop.name, at_once=adopted is not None
    )
    async with slot:
        try:
            request = await _request(work, run, adopted is not None)
            spec = _spec(work, run, request)
        except UsageError as error:
            outcome = RunOutcome(
                run.run_id,
                EndCause.SPAWN_FAILED,
                None,
                None,
                run.started_at,
                0.0,
                error=str(error),
                argv0_missing=isinstance(error, AgentMissingError),
            )
            loop.post(ev.RunEnded(run.run_id, outcome, AgentReport("", False), changed=False))
            return
        except StorageError as error:
            work.cannot_start(run, str(error))
            return
        if adopted is None:
            loop.log.info(
                "run.started",
                iteration=loop.state.iteration,
                role=str(run.role),
                agent=run.agent,
                goal=(loop.state.open.goal if loop.state.open else "")[:120],
                output=os.path.join(spec.directory, "stdout.log"),
            )
            if loop.shared.debug:
                loop.log.debug(
                    "run.spawn", argv=list(spec.argv), environment=sorted(spec.env), cwd=spec.cwd
                )
        try:
            outcome = await work.run_process(spec, adopted)
        except StorageError as error:
            work.cannot_start(run, str(error))
            return
    loop.log.info(
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
        reports.append(await loop.shared.in_thread(_read, work, agent, request, outcome))

    async with anyio.create_task_group() as tasks:  # git looks while we read
        tasks.start_soon(read)
        change = await work.tree.after()
    gate_files = await work.tree.gate_files()
    await _settle(work, in_run=True)
    done, total, _ = loop.plan.progress()
    loop.post(
        ev.RunEnded(
            run_id=run.run_id,
            outcome=outcome,
            report=reports[0],
            prompt=request.prompt,
            changed=change.changed,
            changed_files=change.files,
            head=work.tree.head,
            change_note=change.note,
            gate_files=gate_files,
            plan_open=total - done,
            plan_total=total,
        )
    )


async def _request(work: Work, run: OpenRun, adopted: bool) -> Request:
    """Build prompt and request. For an adopted run the prompt is the one that was sent."""
    loop = work.loop
    directory = loop.store.run_directory(_iteration(work), run.role.value, run.attempt)
    if adopted:
        path = os.path.join(loop.store.path, "prompts", f"{run.label}.md")
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError):
            text = ""
    else:
        text = prompts.build(_inputs(work, run))
        # Verbatim while the agent reads it; redacted when the run has ended.
        path = loop.store.save_prompt(
            _iteration(work), run.role.value, text, run.attempt, redact=False
        )
        loop.store.clear_way(
            "run.lock", *(f"{directory}/{name}" for name in ("stdout.log", "stderr.log"))
        )
        work.tree.save_before(directory)
    session = loop.state.sessions.get(run.agent)
    hints = {
        Role.PLANNER: loop.settings.planner_model_hint,
        Role.REVIEWER: loop.settings.reviewer_model_hint,
    }
    return Request(
        prompt=text,
        prompt_path=path,
        workspace=str(loop.paths.workspace),
        plan_path=str(loop.paths.plan),
        directory=directory,
        role=run.role,
        session_id=run.session_id,
        schema=SCHEMAS[run.role],
        commit_by_agent=loop.settings.git.commit == "agent",
        environment=loop.shared.environ,
        model_hint=hints.get(run.role, ""),
        previous_thread_usage=session.thread_usage if session and run.session_id else None,
    )


def probe_request(paths: ResolvedPaths, environ: Mapping[str, str], role: Role) -> Request:
    """A request for looking whether an agent can be started; nothing is."""
    nowhere = os.path.join(str(paths.state_dir), "probe")
    return Request(
        prompt="",
        prompt_path=nowhere,
        workspace=str(paths.workspace),
        plan_path=str(paths.plan),
        directory=nowhere,
        role=role,
        environment=environ,
    )


def _iteration(work: Work) -> int:
    opened = work.loop.state.open
    assert opened is not None
    return opened.number


def _inputs(work: Work, run: OpenRun) -> prompts.PromptInputs:
    loop, opened = work.loop, work.loop.state.open
    assert opened is not None
    return prompts.PromptInputs(
        role=run.role,
        iteration=opened.number,
        plan=loop.plan.text,
        task=loop.task.text,
        goal=opened.goal,
        history=loop.store.journal_tail(loop.settings.history_tail),
        feedback=loop.state.feedback,
        messages=[message.text for message in opened.messages],
        circling=prompts.circling_text(opened.goal) if opened.warned else "",
        promise=loop.settings.completion_promise,
        gates=loop.settings.verify.commands,
        commit=loop.settings.git.commit,
        planner=opened.planner,
        block=opened.block.to_json() if opened.block else None,
        gate_results=[gate.to_json() for gate in opened.gates],
        changed_files=opened.changed_files,
    )


def _spec(work: Work, run: OpenRun, request: Request) -> RunSpec:
    """How the process host is to run it. Raises AgentMissingError, StorageError."""
    loop = work.loop
    invocation = loop.agents[run.agent].prepare(request)
    for path, text in invocation.files.items():
        write_private(path, text)
    return RunSpec(
        run_id=run.run_id,
        argv=invocation.argv,
        cwd=request.workspace,
        env=invocation.env,
        directory=request.directory,
        run_lock_path=work.run_lock_path(),
        stdin_path=invocation.stdin_path,
        watch_root=request.workspace,
        limits=_limits(loop.settings),
    )


def _limits(settings: Settings) -> RunLimits:
    return RunLimits(
        wall_sec=float(settings.command_timeout_sec),
        idle_sec=float(settings.idle_timeout_sec),
        memory_bytes=settings.memory_limit_mb * 2**20,
        kill_grace_sec=float(settings.kill_grace_sec),
        output_bytes=int(settings.output.max_run_mb * 2**20),
    )


def _read(work: Work, agent: Agent, request: Request, outcome: RunOutcome) -> AgentReport:
    """After a run: read what it said, then take secrets out of what is kept."""
    report = agent.read(
        request, outcome, RunFiles(request.directory), now=work.loop.shared.clock.wall()
    )
    _tidy(work, request)
    return report


def _tidy(work: Work, request: Request) -> None:
    """Take secrets out. What cannot be written now stays as it is."""
    try:
        work.loop.store.redact_run(request.directory)
        work.loop.store.redact_prompt(request.prompt_path)
    except StorageError as error:
        work.loop.log.warning("redaction.failed", error=str(error))


async def find_orphan(work: Work, *, kill: bool) -> ev.Trace:
    """Find what the last supervisor left of the open run."""
    loop = work.loop
    opened = loop.state.open
    run = opened.run if opened else None
    if opened is not None and opened.step is Step.VERIFY:
        await _end_gates(work, opened.number)
    if opened is None or run is None:
        return ev.Trace.NONE
    directory = loop.store.run_directory(opened.number, run.role.value, run.attempt)
    spec = _orphan_spec(work, run.run_id, directory)
    identity = _identity(directory)
    host = loop.shared.host
    # A run that ended meanwhile has done its work: there is nothing to kill, and its result counts.
    finished = os.path.exists(os.path.join(directory, "exit.json"))
    if (kill and not finished) or run.agent not in loop.agents:
        swept = await host.sweep(spec, identity)
        loop.log.warning("orphan.ended", run_id=run.run_id, processes=swept)
        return ev.Trace.GONE if swept or identity is not None else ev.Trace.NONE
    handle: RunHandle | None = await host.adopt(spec, identity)
    if handle is None:
        return ev.Trace.NONE if identity is None else ev.Trace.GONE
    loop.log.warning("orphan.adopted", run_id=run.run_id, pid=handle.identity.agent_pid)
    work.tree.load_before(directory)
    # From now on a STOP ends it, although nobody waits for it yet.
    work.adopted = work.handle = handle
    work.directory = directory
    loop.tasks.start_soon(_continue, work, run)
    return ev.Trace.ADOPTED


async def _end_gates(work: Work, iteration: int) -> None:
    """End the gates of a supervisor that is gone: they run again, and never beside their old
    selves.
    """
    loop = work.loop
    for directory in sorted(
        glob.glob(f"{glob.escape(loop.store.path)}/logs/runs/{iteration:06d}-gate-*")
    ):
        run_id = f"{loop.state.loop_id}-{os.path.basename(directory)}"
        spec = _orphan_spec(work, run_id, directory)
        if swept := await loop.shared.host.sweep(spec, _identity(directory)):
            loop.log.warning("orphan.ended", run_id=run_id, processes=swept)


async def _continue(work: Work, run: OpenRun) -> None:
    await work.loop.ready.wait()
    work.start_run(run)


def _orphan_spec(work: Work, run_id: str, directory: str) -> RunSpec:
    loop = work.loop
    return RunSpec(
        run_id=run_id,
        argv=("",),
        cwd=str(loop.paths.workspace),
        env={},
        directory=directory,
        run_lock_path=work.run_lock_path(),
        watch_root=str(loop.paths.workspace),
        limits=_limits(loop.settings),
    )


def _identity(directory: str) -> RunIdentity | None:
    """What the recorder wrote at its start; None when it never did."""
    try:
        with open(os.path.join(directory, "identity.json"), encoding="utf-8") as file:
            data: Any = json.load(file)
        return RunIdentity.from_json(data)
    except (OSError, ValueError, KeyError, TypeError):
        return None
