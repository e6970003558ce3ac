"""The process host: starts, finds and ends agent runs, so that nothing outlives its iteration.

    host = Host()                    one for each supervisor process
    run = await host.start(spec)     launcher forks a recorder, the recorder starts the agent
    outcome = await run.wait()       the agent has ended *and* everything that it left is gone
    await run.end()                  the stop ladder: TERM+CONT, grace, KILL, sweep
    await host.aclose()              ends everything

Three rings, each for what the one before loses: the recorder (a subreaper for one run,
world/process/launcher.py), this process (a subreaper for runs whose recorder was killed) and, where
the service manager delegated it, a cgroup for each run. Blocking work runs in worker threads and in
the keeper's thread (world/process/keeper.py), never on the loop."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import anyio

from codex_self_iter.core.runs import EndCause, RunIdentity, RunOutcome, RunSample, RunSpec
from codex_self_iter.world import threads
from codex_self_iter.world.guarded import open_guarded, stat_or_none
from codex_self_iter.world.pause import pause
from codex_self_iter.world.process import bare, cgroup, kill, proctable
from codex_self_iter.world.process.bare import clear_way
from codex_self_iter.world.process.keeper import Keeper
from codex_self_iter.world.process.output import Stream
from codex_self_iter.world.process.spawner import Spawned, Spawner, SpawnError, recorder_name
from codex_self_iter.world.process.traces import Strays, Trace, find_trace
from codex_self_iter.world.process.watched import (
    OUTPUT_FILES,
    Latch,
    Watched,
    aside,
    new_stream,
    open_streams,
)
from codex_self_iter.world.sdnotify import SERVICE_PREFIXES
from codex_self_iter.world.state.durable import storage_error
from codex_self_iter.world.state.holder import try_lock

MARKER = proctable.MARKER
LOCK_PATIENCE_SEC = 2.0
"""How long `start` waits for the run lock: the last run's recorder may just be exiting."""
_NO_SAMPLE = RunSample(0.0, 0.0, 0.0, 0, 0, None, 0.0, 0)


def run_environment(env: Mapping[str, str], run_id: str, workspace: str) -> dict[str, str]:
    """The run's environment: none of the service manager's variables; both markers. Our own are
    not in it but for what the adapter, or the person for this agent, has put there."""
    kept = {name: value for name, value in env.items() if not name.startswith(SERVICE_PREFIXES)}
    return kept | {MARKER: run_id, proctable.PLACE_MARKER: workspace}


class Run:
    """A run that was started or adopted (ports.RunHandle)."""

    def __init__(
        self, spec: RunSpec, identity: RunIdentity, keeper: Keeper, watched: Watched | None
    ) -> None:
        self.spec = spec
        self._identity = identity
        self._keeper = keeper
        self._watched = watched
        self._latch = watched.latch if watched else Latch()

    @classmethod
    def ended(
        cls, spec: RunSpec, identity: RunIdentity, keeper: Keeper, outcome: RunOutcome
    ) -> Run:
        """A run that is already over."""
        run = cls(spec, identity, keeper, None)
        run._latch.set(outcome)
        return run

    @property
    def identity(self) -> RunIdentity:
        """Who its processes are."""
        return self._identity

    @property
    def outcome(self) -> RunOutcome | None:
        """How it ended, None while it lives."""
        return self._latch.outcome

    def sample(self) -> RunSample:
        """The monitor's latest look."""
        return self._watched.tracker.latest if self._watched else _NO_SAMPLE

    async def wait(self) -> RunOutcome:
        """Wait until it has ended *and* nothing is left (bounded). Cancelling leaves the run."""
        return await self._latch.wait()

    async def end(
        self, cause: EndCause = EndCause.REQUEST, *, grace_sec: float | None = None
    ) -> RunOutcome:
        """Run the stop ladder, shielded and bounded. A second call may shorten the grace."""
        if self._watched is not None and self._latch.outcome is None:
            grace = self.spec.limits.kill_grace_sec if grace_sec is None else grace_sec
            self._keeper.stop(self._watched, cause, max(0.0, grace))
        with anyio.CancelScope(shield=True):
            await self._latch.wait()
        assert self._latch.outcome is not None
        return self._latch.outcome


class Host:
    """Starts, finds and ends runs (ports.ProcessHost). An async context manager, or `aclose` it."""

    def __init__(self, *, subreaper: bool = True) -> None:
        """`subreaper=False` switches the first two rings off, for tests of what they are for."""
        self._spawner = Spawner()
        self._keeper = Keeper(lambda: {self._spawner.pid})
        self._subreaper = subreaper
        self._was_subreaper = bare.child_subreaper(True) if subreaper else None
        self._limiter: anyio.CapacityLimiter | None = None
        self._strays = Strays()
        self._boot_id = proctable.boot_id()
        self._cgroup = cgroup.delegated()
        self._runs: set[Run] = set()
        self._runs_lock = threading.Lock()
        self._starting = 0
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def _threads(self) -> anyio.CapacityLimiter:
        """A limiter of our own: a start must never queue behind other people's slow files."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(8)
        return self._limiter

    async def start(self, spec: RunSpec) -> Run:
        """Start a run; shielded from cancellation.

        A program that cannot be started, and a run lock that somebody still holds, give a run whose
        `wait` returns at once with cause SPAWN_FAILED. Raises StorageError when the run's
        directory, output files or lock cannot be made."""
        if self._closed:
            raise RuntimeError("the process host is closed")
        self._starting += 1
        try:
            return await threads.run_sync(self._start, spec, limiter=self._threads)
        except RuntimeError as error:
            if "thread" not in str(error):
                raise
            nobody = _nobody(spec, self._boot_id)
            failed = _not_started(spec, SpawnError(f"{error}: the limit of processes is reached"))
            return Run.ended(spec, nobody, self._keeper, failed)
        finally:
            self._starting -= 1

    async def adopt(self, spec: RunSpec, identity: RunIdentity | None) -> Run | None:
        """Find what an earlier supervisor left of this run; see ports.ProcessHost."""
        _, run = await threads.run_sync(self._adopt, spec, identity, limiter=self._threads)
        return run

    async def sweep(self, spec: RunSpec, identity: RunIdentity | None) -> int:
        """End all that an earlier supervisor left of this run; returns how many processes."""
        with anyio.CancelScope(shield=True):
            trace, run = await threads.run_sync(self._adopt, spec, identity, limiter=self._threads)
            if run is not None:
                await run.end()
        return len(trace.leftovers)

    async def sweep_strays(self, workspace: str, keep: str) -> int:
        """End what runs in this workspace and is not of the run `keep`; returns how many."""
        place, asked = os.path.realpath(workspace), time.monotonic()
        with anyio.CancelScope(shield=True):
            ended = await threads.run_sync(
                self._strays.end, place, keep, asked, limiter=self._threads
            )
        return ended  # noqa: RET504 - a scope may swallow, so the type checker wants the return outside

    async def aclose(self) -> None:
        """End every living run, then launcher and keeper. Shielded, bounded, idempotent."""
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            while self._starting:  # noqa: ASYNC110 - a spawn takes milliseconds, and is bounded
                await anyio.sleep(0.005)
            async with anyio.create_task_group() as group:
                for run in self._living():
                    group.start_soon(run.end)
            await threads.run_sync(self._close, limiter=self._threads)

    def _close(self) -> None:
        self._spawner.close()
        self._keeper.close()
        if self._was_subreaper is False:
            bare.child_subreaper(False)

    def _living(self) -> list[Run]:
        with self._runs_lock:
            self._runs = {run for run in self._runs if run.outcome is None}
            return list(self._runs)

    def _start(self, spec: RunSpec) -> Run:
        self._keeper.ready()
        fds: list[int] = []
        streams: list[Stream] = []
        try:
            spawned, directory = self._spawn(spec, fds, streams)
        except (SpawnError, OSError) as error:
            for stream in streams:  # the agent may have begun before its recorder was killed
                with contextlib.suppress(OSError):
                    stream.finish()
            nobody = _nobody(spec, self._boot_id)
            return Run.ended(spec, nobody, self._keeper, _not_started(spec, error))
        except BaseException:
            for stream in streams:
                stream.close()
            raise
        finally:
            for fd in fds:
                os.close(fd)
        return self._watch(
            Watched(
                spec,
                spawned.identity,
                control=spawned.control,
                recorder_fd=spawned.recorder_fd,
                agent_fd=spawned.agent_fd,
                cgroup_directory=directory,
                streams=streams,
            )
        )

    def _spawn(self, spec: RunSpec, fds: list[int], streams: list[Stream]) -> tuple[Spawned, str]:
        """Open what the run needs (`fds` for its recorder: run lock, stdin, and of each stream the
        ends of its pipe and its file; `streams` for us) and have it started.

        Everything is opened before the agent can do anything to a name, and the reading ends of its
        pipes stay open here: should its recorder be killed, what it has printed is not lost."""
        try:
            os.makedirs(spec.directory, 0o700, exist_ok=True)
            fds.append(_lock(spec.run_lock_path, aside(spec)))
            fds.append(_stdin(spec.stdin_path))
            for name in OUTPUT_FILES:
                path = f"{spec.directory}/{name}"
                clear_way(path, aside(spec))
                fds += reversed(os.pipe())
                streams.append(new_stream(spec, path, os.dup(fds[-1])))
                fds.append(open_guarded(path, os.O_WRONLY | os.O_APPEND))
        except OSError as error:
            place = error.filename or spec.directory
            raise storage_error("prepare a run in", place, error) from error
        directory = cgroup.create(self._cgroup, recorder_name(spec.run_id)) if self._cgroup else ""
        request = {
            "run_id": spec.run_id,
            "boot_id": self._boot_id,
            "argv": list(spec.argv),
            "cwd": spec.cwd,
            "env": run_environment(spec.env, spec.run_id, os.path.realpath(spec.cwd)),
            "directory": spec.directory,
            "aside": aside(spec),
            "grace": spec.limits.kill_grace_sec,
            "cgroup": directory,
            "subreaper": self._subreaper,
            "walls": spec.walls,
        }
        try:
            return self._spawner.spawn(request, fds), directory
        except SpawnError:
            if directory:
                cgroup.end(directory)
            raise

    def _watch(self, watched: Watched) -> Run:
        run = Run(watched.spec, watched.identity, self._keeper, watched)
        self._keeper.add(watched)
        with self._runs_lock:
            self._runs = {other for other in self._runs if other.outcome is None} | {run}
        return run

    def _adopt(self, spec: RunSpec, known: RunIdentity | None) -> tuple[Trace, Run | None]:
        trace = find_trace(spec, known)
        identity = trace.identity or _nobody(spec, self._boot_id)
        if not trace.started:
            return trace, None
        if trace.recorder_alive or trace.agent_alive:
            recorder = identity.recorder_pid, identity.recorder_start
            agent = identity.agent_pid, identity.agent_start
            watched = Watched(
                spec,
                identity,
                recorded=trace.recorder_alive,
                recorder_fd=kill.pin(*recorder) if trace.recorder_alive else -1,
                agent_fd=kill.pin(*agent) if trace.agent_alive else -1,
                cgroup_directory=self._known_cgroup(spec),
            )
            return trace, self._watch(watched)
        past = _past(spec, identity, trace, *self._clear(spec, trace))
        return trace, Run.ended(spec, identity, self._keeper, past)

    def _known_cgroup(self, spec: RunSpec) -> str:
        directory = f"{self._cgroup}/{recorder_name(spec.run_id)}"
        return directory if self._cgroup and os.path.isdir(directory) else ""

    def _clear(self, spec: RunSpec, trace: Trace) -> tuple[int, tuple[str, ...]]:
        """Agent and recorder are gone: end what they left, bound the output files.

        Returns how many were ended, and who is left."""
        ended: set[tuple[int, int]] = set()
        left: tuple[str, ...] = ()
        if trace.leftovers:
            starts = {pid: proctable.start_ticks(pid) for pid in trace.leftovers}
            found, left = kill.exterminate(
                lambda table: (
                    {pid for pid, start in starts.items() if proctable.alive(table, pid, start)}
                    | proctable.marked(table, spec.run_id)
                    | proctable.lock_heirs(table, spec.run_lock_path)
                ),
                keep={self._spawner.pid},
            )
            ended = set(found)
        if directory := self._known_cgroup(spec):
            cgroup.end(directory)
        for stream in open_streams(spec):
            with contextlib.suppress(OSError):
                stream.finish()
        return len(ended), left


def _stdin(path: str | None) -> int:
    if path is None:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fd = open_guarded(path)
    os.set_blocking(fd, True)  # the agent inherits it
    return fd


def _lock(path: str, aside: str) -> int:
    """Open and take the run lock. Raises OSError, or SpawnError when somebody keeps holding it."""
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    clear_way(path, aside)
    fd = open_guarded(path, os.O_RDWR | os.O_CREAT)
    give_up = time.monotonic() + LOCK_PATIENCE_SEC
    try:
        while not try_lock(fd):
            if time.monotonic() >= give_up:
                holders = sorted(proctable.lock_heirs(proctable.scan(), path))
                raise SpawnError(f"an earlier run still holds {path} (processes {holders})")
            pause(0.002)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _nobody(spec: RunSpec, boot_id: str) -> RunIdentity:
    return RunIdentity(spec.run_id, boot_id, 0, 0, 0, 0, time.time(), time.monotonic())


def _not_started(spec: RunSpec, error: SpawnError | OSError) -> RunOutcome:
    return RunOutcome(
        spec.run_id,
        cause=EndCause.SPAWN_FAILED,
        exit_code=None,
        signal=None,
        started_at=time.time(),
        duration_sec=0.0,
        error=" ".join(str(error).split()),
        argv0_missing=isinstance(error, SpawnError) and error.argv0_missing,
    )


def _past(
    spec: RunSpec, identity: RunIdentity, trace: Trace, swept: int, left: tuple[str, ...]
) -> RunOutcome:
    """The outcome of a run that ended while no supervisor watched."""
    files = (f"{spec.directory}/{name}" for name in OUTPUT_FILES)
    found = (stat_or_none(path, follow=False) for path in files)
    size = sum(one.st_size for one in found if one is not None)
    if trace.report is not None:
        told = trace.report.outcome(spec.run_id, size, swept)
        return dataclasses.replace(told, left=left)
    begun = identity.started_at
    lost = RunOutcome(spec.run_id, EndCause.LOST, None, None, begun, 0.0)
    return dataclasses.replace(lost, output_bytes=size, swept=swept, left=left)
