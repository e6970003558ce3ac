"""One loop: its event queue, its durable writes, its control files.

The rule of this file: every event goes through `decide`; its commands are carried out in order. A
`Persist` or `Journal` that cannot be written blocks the commands behind it until it can (nothing
that is not on disk is acted upon), while events go on being decided, so that a STOP still works
with a full disk."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import anyio
import anyio.abc

from codex_self_iter.agents.base import Agent, AgentMissingError
from codex_self_iter.core import events as ev
from codex_self_iter.core.commands import (
    Abort,
    Command,
    Exit,
    Journal,
    Keep,
    Log,
    Notify,
    Persist,
    Prepare,
    RunGates,
    ShareLimit,
    StartRun,
    TakeMessages,
)
from codex_self_iter.core.iteration import iso
from codex_self_iter.core.machine import decide
from codex_self_iter.core.model import State
from codex_self_iter.core.policy import Policy
from codex_self_iter.core.recovery import RecoveryError, reconcile
from codex_self_iter.core.state import LoopState, to_json
from codex_self_iter.errors import CodexSelfIterError, ExitCode, StorageError, UsageError
from codex_self_iter.settings import Settings
from codex_self_iter.settings.paths import ResolvedPaths, validate_workspace
from codex_self_iter.supervisor import control, ending, housekeeping, runs, view
from codex_self_iter.supervisor.documents import Document
from codex_self_iter.supervisor.logs import FILE_KEY
from codex_self_iter.supervisor.policy import make_agents, make_policy
from codex_self_iter.supervisor.shared import Shared
from codex_self_iter.supervisor.work import Work
from codex_self_iter.world.state.inbox import Inbox
from codex_self_iter.world.state.logfile import LogFile

STATUS_SEC = 0.2
"""Shortest time between two writes of `status.json`: a fast loop does not pay for states nobody can
see.
"""
BEATS = 6
"""At every so many heartbeats the status of a loop without a run is made anew."""
GIVE_UP_SAVING_SEC = 5.0
"""A loop that is told to end while its state cannot be written tries for so long, then ends
without.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """How a loop ended."""

    code: int
    state: State
    reason: str


class Configured(NamedTuple):
    """Settings and what was made of them."""

    settings: Settings
    agents: dict[str, Agent]
    policy: Policy


class Loop:
    """Runs one loop from start to end. One instance for each start."""

    def __init__(self, shared: Shared, settings: Settings, *, clear_stop: bool = False) -> None:
        """Checks nothing yet; `run` does."""
        self.shared = shared
        self.settings = settings
        self.clear_stop = clear_stop
        self.name = settings.name
        self.log: Any = shared.log.bind(loop=self.name) if not shared.alone else shared.log
        self.state = LoopState("")
        self.started_at = shared.clock.wall()
        self.times: dict[str, float] = {}
        self.warnings: list[str] = []
        self.recent: deque[dict[str, Any]] = deque(maxlen=view.RECENT)
        self.free_mb = 0.0
        self.state_mb = 0.0
        self.ended: Ended | None = None
        self.ready = anyio.Event()
        self._pending: deque[tuple[Command, LoopState]] = deque()
        self._saving = anyio.Lock()
        self._send, self._receive = anyio.create_memory_object_stream[ev.Event](math.inf)
        self._give_up_at: float | None = None
        self._lost = False
        self._status_at = 0.0
        self._beats = BEATS
        self._status_offset = 0.0
        self._status_due = anyio.Event()
        self._status_lock = anyio.Lock()
        self._state_at = shared.clock.monotonic()
        self._next: Configured | None = None
        self._fault: Exception | None = None

    # -- life --------------------------------------------------------------------------------------

    async def run(self) -> Ended:
        """Run the loop to its end. Raises UsageError, WorkspaceBusyError, or whatever a defect
        raises.
        """
        with self._send, self._receive:
            return await self._run()

    async def _run(self) -> Ended:
        self.paths: ResolvedPaths = validate_workspace(self.settings)
        configured = self._configure(self.settings)
        self.agents, self.policy = configured.agents, configured.policy
        workspace, state_dir = str(self.paths.workspace), str(self.paths.state_dir)
        self.store = self.shared.open_store(state_dir, workspace)
        try:
            self.store.acquire_lock(self.settings.lock_file_name)
            return await self._run_locked()
        except Exception as error:
            if self.started and not isinstance(error, CodexSelfIterError):
                self._say_crashed(error)
            raise
        finally:
            self.store.close()

    def _configure(self, settings: Settings) -> Configured:
        """Agents and rules of these settings. Raises UsageError, also when no agent of a role can
        be started.
        """
        agents = make_agents(settings, self.shared.environ)
        policy = make_policy(settings, agents, self.shared.environ)
        for role in policy.roles:
            missing: list[AgentMissingError] = []
            for agent in policy.agents[role]:
                try:
                    agents[agent.name].prepare(
                        runs.probe_request(self.paths, self.shared.environ, role)
                    )
                    break
                except AgentMissingError as error:
                    missing.append(error)
            else:
                raise missing[0]
        return Configured(settings, agents, policy)

    async def _run_locked(self) -> Ended:
        self.log = self.log.bind(
            **{
                FILE_KEY: LogFile(
                    self.store.root,
                    "logs/supervisor.log",
                    max_mb=float(self.settings.output.log_max_mb),
                    keep=self.settings.output.log_files,
                    stay_open=self.shared.alone,
                )
            }
        )
        self.inbox = Inbox(self.store.root)
        self.plan = Document("plan", str(self.paths.plan), required=True)
        self.task = Document("task", str(self.paths.task), required=False)
        for document in (self.plan, self.task):
            document.poll(self.shared.clock.monotonic(), at_once=True)
        self.work = Work(self)
        self.control = control.Control(self)
        if self.clear_stop:
            self.control.clear_stop()
        self._recover()
        for line in self.store.journal_tail(view.RECENT):
            self.recent.append(dict(line))
        try:
            async with anyio.create_task_group() as tasks:
                self.tasks = tasks
                await self._boot()
                tasks.start_soon(self._keep_status)
                tasks.start_soon(housekeeping.run, self)
                with self.control.listening(), self._looked_at(tasks):
                    await self._consume()
                tasks.cancel_scope.cancel()
        finally:
            self.shared.limits.leave(self)
            with anyio.CancelScope(shield=True):
                await self.work.end_everything()
        assert self.ended is not None
        return self.ended

    def _looked_at(self, tasks: anyio.abc.TaskGroup) -> contextlib.AbstractContextManager[None]:
        """Have the control files looked at: by the poller of many loops, or by a task of our
        own.
        """
        if self.shared.poller is not None:
            return self.shared.poller.watching(self.control)
        tasks.start_soon(self.control.run)
        return contextlib.nullcontext()

    def _recover(self) -> None:
        """Read what was kept. Raises UsageError for what cannot be understood."""
        loaded = self.store.load()
        self.say_warnings([*loaded.warnings, *self.store.take_warnings()])
        try:
            self.state = reconcile(loaded.runtime, loaded.last_line, os.urandom(4).hex())
        except RecoveryError as error:
            raise UsageError(
                f"{self.paths.state_dir}: {error}. Move the directory away to start from the beginning, or put a "
                "good runtime.json back"
            ) from error

    def say_warnings(self, warnings: Iterable[str]) -> None:
        """Log what the state directory has to say, and show it in the status."""
        for warning in warnings:
            self.log.warning("state.warning", text=warning)
            self.warnings.append(warning)

    @property
    def started(self) -> bool:
        """True once the loop holds its lock and has read its state."""
        return hasattr(self, "tasks")

    def _say_crashed(self, error: Exception) -> None:
        """Leave a last status; among other loops the supervisor starts this one again."""
        at = self.shared.moment()
        reason = f"{type(error).__name__}: {error}"
        self.state = dataclasses.replace(
            self.state, state=State.CRASHED, since=at.wall, reason=reason
        )
        self.write_status()

    def retry(self) -> None:
        """Try again to carry out what waits for the disk."""
        if self._pending and not self._saving.locked():
            self.tasks.start_soon(self.flush)

    def fail(self, error: Exception) -> None:
        """End the loop with this error, as if it had been raised in it."""
        self._fault = error
        self.post(ev.Tick())

    async def _boot(self) -> None:
        """Find what the last supervisor left, then let the core decide how to go on."""
        stop = self.control.stop_request()
        trace = await self.work.find_orphan(
            kill=stop is not None or self.policy.on_orphan == "kill"
        )
        await self.work.end_strays()
        self.shared.limits.join(self, self.post)
        paused = self.control.paused_now()
        if self.plan.problem:
            self.state = dataclasses.replace(self.state, blocked_by={})
        await self.handle(ev.Boot(trace, paused=paused))
        self.ready.set()
        if stop is not None:
            # A STOP that was there before us is obeyed before any run, also one that would let an
            # iteration end.
            await self.handle(dataclasses.replace(stop, after_iteration=False))

    async def _consume(self) -> None:
        while self.ended is None:
            event = await self._receive.receive()
            if self._fault is not None:
                raise self._fault
            await self.handle(event)

    def post(self, event: ev.Event) -> None:
        """Queue an event; callable from any task of this event loop. A loop that has ended hears
        nothing.
        """
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._send.send_nowait(event)

    # -- event -> decide -> persist -> act ---------------------------------------------------------

    async def handle(self, event: ev.Event) -> None:
        """Decide one event and carry out what can be carried out."""
        at = self.shared.moment()
        before = self.state
        state, commands = decide(before, event, self.policy, at)
        if self.shared.debug:
            self.log.debug(
                "loop.decided",
                event_type=type(event).__name__,
                inputs=_short(event),
                state=f"{before.state} -> {state.state}",
                commands=[type(command).__name__ for command in commands],
            )
        self._count_time(before.state)
        self.state = state
        for command in commands:
            # depends on nothing that is written: it must not wait for the disk
            if isinstance(command, Abort):
                self._call_off()
                self.work.abort(command.reason)
            else:
                self._pending.append((command, state))
        await self.flush()
        if self.ended is None and (
            before.state is not state.state or before.reason != state.reason
        ):
            self._say_state(state)
        self._apply_when_due()
        if self.ended is None:
            self.save_status()
            if self.state.wait is not before.wait:
                self.control.hint()  # it sleeps until the next look; the new wait may end sooner
        self.shared.on_round()

    def _say_state(self, state: LoopState) -> None:
        level = "warning" if state.state is State.BLOCKED else "info"
        wait = state.wait
        fields: dict[str, Any] = {"reason": state.reason}
        if wait is not None and state.state in (
            State.BACKOFF,
            State.COOLDOWN,
            State.LIMITED,
            State.BLOCKED,
        ):
            fields |= {"seconds": round(wait.length, 1), "until": _clock(wait.until)}
        getattr(self.log, level)(f"loop.{state.state}", **fields)

    def _count_time(self, state: State) -> None:
        now = self.shared.clock.monotonic()
        self.times[state.value] = self.times.get(state.value, 0.0) + now - self._state_at
        self._state_at = now

    async def flush(self) -> None:
        """Carry out the pending commands in order; stop at the first that cannot be."""
        async with self._saving:
            while self._pending and self.ended is None:
                command, state = self._pending[0]
                try:
                    await self._carry_out(command, state)
                except StorageError as error:
                    if not self._must_give_up():
                        self._hold(str(error))
                        return
                    self._lost = True
                    self.log.error("state.lost", error=str(error), command=type(command).__name__)
                    self.warnings.append(f"not saved: {error}")
                self._pending.popleft()
            self._give_up_at = None
            self._release()

    def _hold(self, reason: str) -> None:
        """The state directory cannot be written: start nothing, say so, try again at the next
        look.
        """
        if "storage" not in self.state.blocked_by:
            self.log.error("state.cannot_write", error=reason)
            self.post(ev.Block("storage", f"cannot write the state directory: {reason}"))

    def _release(self) -> None:
        if "storage" in self.state.blocked_by:
            self.log.info("state.writable_again")
            self.post(ev.Unblock("storage"))

    def _must_give_up(self) -> bool:
        """True when the loop is to end and has tried long enough to save its state.

        Nothing is lost for good: the next start goes on from the last snapshot, and the run's files
        say how it ended."""
        ending = self.state.ending
        stopping = ending is not None and ending.kind == "stop"
        if not stopping and not any(isinstance(command, Exit) for command, _ in self._pending):
            return False
        now = self.shared.clock.monotonic()
        if self._give_up_at is None:
            self._give_up_at = now + GIVE_UP_SAVING_SEC
        return now >= self._give_up_at

    async def _carry_out(self, command: Command, state: LoopState) -> None:
        if isinstance(command, Persist):
            await self.shared.in_thread(self.store.save_runtime, to_json(state))
        elif isinstance(command, Journal):
            await self.shared.in_thread(self.store.append_journal, command.record)
            self._journalled(command.record)
        elif isinstance(command, TakeMessages):
            self.control.take(command.names, command.iteration)
        elif isinstance(command, Exit):
            await self._exit(command)
        else:
            self._start(command, state)

    def _start(self, command: Command, state: LoopState) -> None:
        """Commands that start something, or only tell."""
        if isinstance(command, Prepare):
            self.work.prepare(command.role)
        elif isinstance(command, StartRun):
            self.work.start_run(command.run)
        elif isinstance(command, RunGates):
            self.work.run_gates(command.iteration)
        elif isinstance(command, Keep):
            self.work.keep(command)
        elif isinstance(command, ShareLimit):
            self.shared.limits.share(self, command.account, command.wait, self.shared.rng.random)
        elif isinstance(command, Log):
            self.log.info(command.event, **command.fields)
        elif isinstance(command, Notify):
            if command.event in ("blocked", "budget"):
                self.log.warning("loop.notify", about=command.event, text=command.text)
            self.work.notify(command.event, command.text, state)

    def _call_off(self) -> None:
        """A start that waits behind a failed write must not happen after an abort."""
        waiting = [
            command for command, _ in self._pending if isinstance(command, StartRun | RunGates)
        ]
        self._pending = deque(item for item in self._pending if item[0] not in waiting)
        for command in waiting:
            if isinstance(command, StartRun):
                self.work.never_started(command.run)
            else:
                self.post(ev.GatesEnded((), aborted=True))

    def _journalled(self, record: dict[str, Any]) -> None:
        self.recent.append(record)
        self.log.info(
            "iteration.ended",
            iteration=record["iteration"],
            verdict=record["verdict"],
            seconds=round(record["duration_sec"], 1),
            changed_files=record["changed_count"],
            summary=(record["summary"] or record["error"])[:200],
            next_goal=record["next_goal"][:120],
        )

    async def _exit(self, command: Exit) -> None:
        with anyio.CancelScope(shield=True):
            await self.work.end_everything()
            await ending.write_report(self)
        code = ExitCode.NEEDS_HUMAN if self._lost else command.code
        with anyio.CancelScope(shield=True):
            async with self._status_lock:
                self.ended = Ended(int(code), command.state, command.reason)
                await self.shared.in_thread(self._save_status, self.status())
        # An end that needs a person is said even when only errors are.
        say = self.log.info if code in (ExitCode.OK, ExitCode.SIGINT) else self.log.error
        say("loop.ended", state=str(command.state), reason=command.reason, exit_code=int(code))

    # -- configuration -----------------------------------------------------------------------------

    def reload(self, settings: Settings, tell: Callable[[], None]) -> None:
        """Use new settings from the next iteration on; `tell` logs them. Raises UsageError: nothing
        changed.

        What bounds the loop as a whole holds at once, so that a raised limit comes in time for the
        iteration that would have been the last."""
        self._next = self._configure(settings)
        tell()
        new = self._next.policy
        self.policy = dataclasses.replace(
            self.policy,
            max_iterations=new.max_iterations,
            budget=new.budget,
            finish_on_term=new.finish_on_term,
        )
        self._apply_when_due()

    def _apply_when_due(self) -> None:
        if self._next is None or self.state.open is not None:
            return
        configured, self._next = self._next, None
        self.settings, self.agents, self.policy = configured
        self.log.info("config.applied")
        self.post(ev.PolicyChanged())

    # -- what people see ---------------------------------------------------------------------------

    def save_status(self) -> None:
        """Have `status.json` written soon; changes that follow each other at once are written
        together.
        """
        self._status_due.set()

    async def _keep_status(self) -> None:
        while True:
            await self._status_due.wait()
            self._status_due = anyio.Event()
            async with self._status_lock:  # the last status must not be overtaken by an earlier one
                if self.ended is None:
                    self._status_at, self._beats, self._status_offset = (
                        self.shared.clock.monotonic(),
                        0,
                        self._wall_offset(),
                    )
                    await self.shared.in_thread(self._save_status, self.status())
            await self.shared.clock.sleep(STATUS_SEC)

    def write_status(self) -> None:
        """Write `status.json` now; a status that cannot be written is no reason for anything."""
        self._status_at, self._beats, self._status_offset = (
            self.shared.clock.monotonic(),
            0,
            self._wall_offset(),
        )
        self._save_status(self.status())

    def _wall_offset(self) -> float:
        """Changes when somebody sets the wall clock, and only then."""
        return self.shared.clock.wall() - self.shared.clock.boottime()

    def _save_status(self, status: dict[str, Any]) -> None:
        try:
            self.store.save_status(status)
        except StorageError as error:
            # what was not told must be told at the next heartbeat, not only the time
            self._beats = BEATS
            self.log.debug("status.not_written", error=str(error))

    def heartbeat(self) -> None:
        """Write the status again when it is due; without a run mostly with another time only."""
        if self.shared.clock.monotonic() - self._status_at < self.shared.heartbeat_sec:
            return
        self._beats += 1
        # its ends of waits are told by the wall clock
        set_by = abs(self._wall_offset() - self._status_offset)
        # Only among many idle loops is the time alone overwritten in place: a whole write for each
        # would add up.
        if self.shared.alone or self.work.under_way or self._beats >= BEATS or set_by > 0.5:
            self.save_status()
            return
        self._status_at = self.shared.clock.monotonic()
        try:
            self.store.beat(iso(self.shared.clock.wall()))
        except StorageError as error:
            # what was not told must be told at the next heartbeat, not only the time
            self._beats = BEATS
            self.log.debug("status.not_written", error=str(error))

    def status(self) -> dict[str, Any]:
        """The present content of `status.json`."""
        facts = view.Facts(
            pid=os.getpid(),
            workspace=str(self.paths.workspace),
            state_dir=str(self.paths.state_dir),
            name=self.name,
            mode=self.settings.mode,
            agent=self.policy.agents[self.policy.roles[0]][0].name,
            started_at=self.started_at,
            log=os.path.join(str(self.paths.state_dir), "logs", "supervisor.log"),
            plan=self.plan.progress(),
            identity=self.work.identity,
            sample=self.work.sample(),
            run_directory=self.work.directory,
            wall_limit_sec=float(self.settings.command_timeout_sec),
            waiting_for=self.work.waiting_for(),
            held_by=self._held_by(),
            recent=list(self.recent),
            state_mb=self.state_mb,
            free_mb=self.free_mb,
            warnings=self.warnings[-20:],
            stop_file=self.control.stop_path,
            global_stop_file=self.control.global_stop_path,
            pause_file=self.control.pause_path,
        )
        return view.status(self.state, facts, self.shared.moment())

    def _held_by(self) -> str:
        """Why what was decided cannot begin: its state could not be written. "" when something is
        on.
        """
        held = bool(self._pending) and not self.work.under_way
        return self.state.blocked_by.get("storage", "") if held else ""


def _short(event: ev.Event) -> str:
    return repr(event)[:300]


def _clock(wall: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))
    except (OverflowError, ValueError, OSError):
        return "?"
