"""One run as the keeper's thread sees it, and the latch by which the loop hears of its end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import stat
import threading
import time
import types
from collections.abc import Mapping
from typing import Any

import anyio.lowlevel

from codex_self_iter.core.runs import EndCause, RunIdentity, RunOutcome, RunSpec
from codex_self_iter.world.guarded import QUARANTINE, read_object
from codex_self_iter.world.process import kill, launcher, proctable
from codex_self_iter.world.process.bare import clear_way
from codex_self_iter.world.process.monitor import FileWatch, Tracker
from codex_self_iter.world.process.output import Stream
from codex_self_iter.world.state.durable import replace_private

OUTPUT_FILES = ("stdout.log", "stderr.log")
NEVER = float("inf")
"""A monotonic time that does not come."""


class Latch:
    """A run's outcome, set once by the keeper's thread, awaited by tasks of any event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self.outcome: RunOutcome | None = None

    def set(self, outcome: RunOutcome) -> None:
        """Tell everybody; the first outcome stays."""
        with self._lock:
            self.outcome = self.outcome or outcome
            for loop, heard in self._waiting:
                loop.call_soon_threadsafe(heard.set)

    async def wait(self) -> RunOutcome:
        """The outcome, as soon as there is one. Cancelling leaves nothing behind."""
        waiter = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            self._waiting.append(waiter)
            if self.outcome is not None:
                waiter[1].set()
        try:
            await waiter[1].wait()
        finally:
            with self._lock:
                self._waiting.remove(waiter)
        await anyio.lowlevel.checkpoint()
        assert self.outcome is not None
        return self.outcome


class Watched:
    """One living run. After `Keeper.add` only the keeper's thread touches it."""

    def __init__(
        self,
        spec: RunSpec,
        identity: RunIdentity,
        *,
        control: socket.socket | None = None,
        recorded: bool = True,
        recorder_fd: int = -1,
        agent_fd: int = -1,
        cgroup_directory: str = "",
        streams: list[Stream] | None = None,
    ) -> None:
        """`control`: of a run started here; else a descriptor of the recorder or the agent, where
        there are such. `recorded`: its recorder was alive."""
        self.spec, self.identity = spec, identity
        self.control, self.recorder_fd, self.agent_fd = control, recorder_fd, agent_fd
        self.cgroup_directory = cgroup_directory
        self.ours, self.recorded = control is not None, recorded
        self.latch = Latch()
        now = time.monotonic()
        skip = {spec.directory, os.path.dirname(spec.run_lock_path)}
        files = FileWatch(spec.watch_root, skip)
        self.tracker = Tracker(spec.limits, identity.started_monotonic, now, files.age)
        self.streams = open_streams(spec, identity) if streams is None else streams
        self.buffer = b""
        self.report: Report | None = None
        self.seen: dict[int, int] = {identity.agent_pid: identity.agent_start}
        self.agent_gone_at: float | None = None
        self.cause: EndCause | None = None
        self.stop_at = NEVER
        self.hurry_at = NEVER
        self.hard_at = NEVER
        self.next_output = now
        self.silent = False
        self.pipes = (
            {stream.source for stream in self.streams if stream.source >= 0} if recorded else set()
        )
        """What has something to read when it prints, while its recorder moves that."""
        self.next_look = now + 0.1
        self.sweeping = False

    @property
    def output(self) -> tuple[int, float | None]:
        """(apparent size of both streams, time of the last growth)."""
        grown = [stream.grown_at for stream in self.streams if stream.grown_at is not None]
        return sum(stream.size for stream in self.streams), max(grown, default=None)

    def tell(self, grace_sec: float, cause: EndCause) -> None:
        """Ask the recorder for the stop ladder."""
        if self.control is not None:
            line = json.dumps({"grace": grace_sec, "cause": cause.value}).encode() + b"\n"
            with contextlib.suppress(OSError):  # it has ended, or the hard sweep will come
                self.control.send(line)
        else:
            self.signal_recorder(signal.SIGTERM if self.stop_at == NEVER else signal.SIGUSR1)
        self.signal_recorder(signal.SIGCONT)

    def signal_recorder(self, number: int) -> None:
        """Signal the recorder if it is known and alive."""
        kill.kill(self.identity.recorder_pid, self.identity.recorder_start, number)

    def signal_agent(self, *numbers: int) -> None:
        """Signal the agent and its group: only for an agent without a recorder."""
        for number in numbers:
            if proctable.start_ticks(self.identity.agent_pid) == self.identity.agent_start:
                try:
                    os.killpg(self.identity.agent_pid, number)
                except OSError:
                    kill.kill(self.identity.agent_pid, self.identity.agent_start, number)

    def close(self) -> None:
        """Close every descriptor. Idempotent."""
        if self.control is not None:
            self.control.close()
        for fd in (self.recorder_fd, self.agent_fd):
            if fd >= 0:
                os.close(fd)
        self.control, self.recorder_fd, self.agent_fd = None, -1, -1
        for stream in self.streams:
            stream.close()


def open_streams(spec: RunSpec, identity: RunIdentity | None = None) -> list[Stream]:
    """The output files of a run that was found, made anew where they are gone.

    With the agent's `identity` its pipes too: should it have no recorder any more, or lose it, what
    it prints is taken all the same, and does not end it."""
    found = []
    for number, name in enumerate(OUTPUT_FILES, 1):
        path = f"{spec.directory}/{name}"
        with contextlib.suppress(OSError):
            clear_way(path, aside(spec))
            source = -1 if identity is None else _pipe_of(identity, number)
            found.append(new_stream(spec, path, source))
    return found


def new_stream(spec: RunSpec, path: str, source: int) -> Stream:
    """One output file, made if need be; `source` (the run's pipe, or -1) is its own. OSError."""
    try:
        limit = spec.limits.output_bytes
        return Stream(path, limit, make=True, source=source, aside=aside(spec))
    except OSError:
        if source >= 0:
            os.close(source)
        raise


def aside(spec: RunSpec) -> str:
    """Where goes what lies in the way of a run's files."""
    return f"{os.path.dirname(spec.run_lock_path)}/{QUARANTINE}"


def _pipe_of(identity: RunIdentity, number: int) -> int:
    """The reading end of what the agent has as its descriptor `number`, -1 if that is no pipe."""
    path = f"/proc/{identity.agent_pid}/fd/{number}"
    ours = proctable.start_ticks(identity.agent_pid) == identity.agent_start
    with contextlib.suppress(OSError):
        if ours and stat.S_ISFIFO(os.stat(path).st_mode):
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return -1


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What a recorder says of its run's end, in `exit.json` and as its last line."""

    cause: EndCause
    exit_code: int | None
    signal: int | None
    started_at: float
    duration_sec: float
    cpu_sec: float
    swept: int
    left: int

    @classmethod
    def of(cls, value: Mapping[str, Any] | None, run_id: str) -> Report | None:
        """From JSON; None unless it is whole and about this run: an agent can write there, too."""
        if value is None or value.get("run_id") != run_id:
            return None
        given: dict[str, Any] = {name: value.get(name) for name in _REPORT}
        fit = all(_fits(given[name], kinds) for name, kinds in _REPORT.items())
        if not fit or value.get("cause") not in list(EndCause):
            return None
        return cls(EndCause(value["cause"]), **given)

    def outcome(self, run_id: str, output_bytes: int, swept: int) -> RunOutcome:
        """Of a run; `swept`: how many processes were ended after the report."""
        return RunOutcome(
            run_id,
            cause=self.cause,
            exit_code=self.exit_code,
            signal=self.signal,
            started_at=self.started_at,
            duration_sec=self.duration_sec,
            cpu_sec=self.cpu_sec,
            output_bytes=output_bytes,
            swept=self.swept + swept,
        )


_WHOLE, _REAL = (int,), (int, float)
_REPORT: dict[str, tuple[type, ...]] = {
    "exit_code": (int, types.NoneType),
    "signal": (int, types.NoneType),
    "started_at": _REAL,
    "duration_sec": _REAL,
    "cpu_sec": _REAL,
    "swept": _WHOLE,
    "left": _WHOLE,
}


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    """True for a value of these types that a number of ours may have; NaN is none."""
    return type(value) in kinds and (value is None or abs(value) < 1e18)


def read_report(spec: RunSpec) -> Report | None:
    """The recorder's `exit.json`, if it is whole and about this run."""
    return Report.of(read_object(f"{spec.directory}/exit.json"), spec.run_id)


def report_end(spec: RunSpec, identity: RunIdentity, cause: EndCause) -> None:
    """Put down why a run was ended that nobody supervises. Raises OSError."""
    began = identity.started_at
    report = read_report(spec) or Report(cause, None, None, began, time.time() - began, 0.0, 0, 0)
    told = dataclasses.asdict(report) | {"run_id": spec.run_id, "cause": cause}
    replace_private(f"{spec.directory}/exit.json", json.dumps(told).encode())


def run_outcome(
    run: Watched, swept: int, status: int | None, left: tuple[str, ...] = ()
) -> RunOutcome:
    """How it ended: by the report, else by what the kernel told if the agent became ours."""
    tracker, started_at = run.tracker, run.identity.started_at
    troubles = tuple(trouble for stream in run.streams for trouble in stream.troubles)
    if run.report is None:
        return RunOutcome(
            run.spec.run_id,
            cause=run.cause or EndCause.LOST,
            exit_code=launcher.exit_code(status),
            signal=launcher.end_signal(status),
            started_at=started_at,
            duration_sec=max(0.0, time.monotonic() - run.identity.started_monotonic),
            cpu_sec=tracker.cpu_sec,
            output_bytes=run.output[0],
            swept=swept,
            left=left,
            troubles=troubles,
        )
    told = run.report.outcome(run.spec.run_id, run.output[0], swept)
    return dataclasses.replace(
        told,
        cause=told.cause if told.cause is EndCause.EXIT else run.cause or told.cause,
        started_at=started_at,
        cpu_sec=max(told.cpu_sec, tracker.cpu_sec),
        left=left,
        troubles=troubles,
    )
