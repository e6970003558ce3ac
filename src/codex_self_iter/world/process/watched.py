"""One run as the keeper's thread sees it, and the latch through which the event loop hears of its
end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

import anyio.lowlevel

from codex_self_iter.core.model import EndCause, RunIdentity, RunOutcome, RunSpec
from codex_self_iter.world.process import kill, proctable
from codex_self_iter.world.process.monitor import FileWatch, Tracker
from codex_self_iter.world.process.output import Stream
from codex_self_iter.world.state.durable import read_object

NEVER = float("inf")
"""A monotonic time that does not come."""


class Latch:
    """A run's outcome, set once by the keeper's thread, awaited by any number of tasks on any event
    loop."""

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
    """One living run as the keeper sees it. After `Keeper.add` only the keeper's thread touches
    it."""

    def __init__(
        self,
        spec: RunSpec,
        identity: RunIdentity,
        *,
        control: socket.socket | None = None,
        recorder_fd: int = -1,
        agent_fd: int = -1,
        cgroup_directory: str = "",
    ) -> None:
        """`control` for a run started here; for an adopted one the descriptor of its recorder, or
        of its agent."""
        self.spec, self.identity = spec, identity
        self.control, self.recorder_fd, self.agent_fd = control, recorder_fd, agent_fd
        self.cgroup_directory = cgroup_directory
        self.ours = control is not None
        self.latch = Latch()
        now = time.monotonic()
        skip = {spec.directory, os.path.dirname(spec.run_lock_path)}
        files = FileWatch(spec.watch_root, skip)
        self.tracker = Tracker(spec.limits, identity.started_monotonic, now, files.age)
        self.streams = open_streams(spec)
        self.buffer = b""
        self.report: Mapping[str, Any] | None = None
        self.seen: dict[int, int] = {identity.agent_pid: identity.agent_start}
        self.agent_gone_at: float | None = None
        self.cause: EndCause | None = None
        self.stop_at = NEVER
        self.hurry_at = NEVER
        self.hard_at = NEVER
        self.next_output = now
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
            try:
                self.control.send(line)
            except OSError:
                pass  # it has ended, or the hard sweep will come
        else:
            self.signal_recorder(signal.SIGTERM if self.stop_at == NEVER else signal.SIGUSR1)
        self.signal_recorder(signal.SIGCONT)

    def signal_recorder(self, number: int) -> None:
        """Signal the recorder if it is known and alive."""
        if self.recorder_fd >= 0:
            try:
                signal.pidfd_send_signal(self.recorder_fd, number)
            except OSError:
                pass
        elif self.identity.recorder_pid:
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


def open_streams(spec: RunSpec) -> list[Stream]:
    """The run's output files, those that exist."""
    found = []
    for name in ("stdout.log", "stderr.log"):
        try:
            found.append(Stream(f"{spec.directory}/{name}", spec.limits.output_bytes))
        except OSError:
            continue
    return found


def read_report(spec: RunSpec) -> Mapping[str, Any] | None:
    """The recorder's `exit.json`, if it is whole and about this run."""
    report = read_object(f"{spec.directory}/exit.json")
    return report if report is not None and report.get("run_id") == spec.run_id else None


def run_outcome(run: Watched, swept: int, status: int | None) -> RunOutcome:
    """How it ended, by the recorder's report; without one, by what the kernel told us if the agent
    became ours."""
    report, tracker = run.report, run.tracker
    if report is not None:
        own_end = report["cause"] == EndCause.EXIT.value
        return RunOutcome(
            run.spec.run_id,
            cause=EndCause.EXIT if own_end else run.cause or EndCause(report["cause"]),
            exit_code=report["exit_code"],
            signal=report["signal"],
            started_at=run.identity.started_at,
            duration_sec=report["duration_sec"],
            cpu_sec=max(report["cpu_sec"], tracker.cpu_sec),
            max_memory_bytes=max(report["max_rss_bytes"], tracker.max_memory),
            output_bytes=run.output[0],
            swept=report["swept"] + swept,
        )
    return RunOutcome(
        run.spec.run_id,
        cause=run.cause or EndCause.LOST,
        exit_code=os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None,
        signal=os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None,
        started_at=run.identity.started_at,
        duration_sec=max(0.0, time.monotonic() - run.identity.started_monotonic),
        cpu_sec=tracker.cpu_sec,
        max_memory_bytes=tracker.max_memory,
        output_bytes=run.output[0],
        swept=swept,
    )
