"""Short helper commands such as git: run, bounded in time and memory, nothing left behind.

The child's pipes are read only until the child itself has ended, so a grandchild that keeps them
open (a daemon, a hook's background job) delays nothing. Time-out and cancellation kill the whole
group."""

from __future__ import annotations

import dataclasses
import itertools
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO

import anyio
import anyio.lowlevel
import anyio.to_thread

from codex_self_iter.world.pause import pause
from codex_self_iter.world.process import launcher, proctable

MAX_OUTPUT = 4 * 1024 * 1024
"""Default bound of each output stream in bytes."""
_MARKER = "CODEX_SELF_ITER_TOOL_ID"
_TERM_SEC = 0.5
_counter = itertools.count(1)


@dataclasses.dataclass(frozen=True, slots=True)
class ToolResult:
    """How a helper command ended.

    Attributes:
        exit_code: None when it was killed or could not be started.
        signal: number of the signal that ended it, or None.
        stdout, stderr: the first `max_output` bytes of each.
        truncated: True when there was more output than that.
        timed_out: True when it was ended for taking too long.
        error: one line when it could not be started, else "".
    """

    exit_code: int | None
    signal: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False
    timed_out: bool = False
    duration_sec: float = 0.0
    error: str = ""

    @property
    def ok(self) -> bool:
        """True when it exited 0 in time."""
        return self.exit_code == 0 and not self.timed_out


async def run_tool(
    argv: Sequence[str],
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout_sec: float = 60.0,
    max_output: int = MAX_OUTPUT,
    stdin: bytes | None = None,
) -> ToolResult:
    """Run one command to its end; never raises for what the command does.

    `env` is the complete environment (default: ours). Cancelling kills the command and waits until
    it is gone."""
    ear, bell = os.pipe()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_ring_when_cancelled, bell)
            tool = _Tool(
                argv,
                cwd,
                dict(os.environ if env is None else env),
                timeout_sec,
                max_output,
                stdin or b"",
                ear,
            )
            result = await anyio.to_thread.run_sync(tool.run)
            group.cancel_scope.cancel()
    finally:
        os.close(ear)
        os.close(bell)
    await anyio.lowlevel.checkpoint_if_cancelled()
    return result


async def _ring_when_cancelled(bell: int) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        os.write(bell, b"!")


class _Tool:
    """One command, run in a worker thread."""

    def __init__(
        self,
        argv: Sequence[str],
        cwd: str | None,
        env: dict[str, str],
        timeout_sec: float,
        max_output: int,
        stdin: bytes,
        ear: int,
    ) -> None:
        self.argv, self.cwd, self.timeout_sec, self.ear = list(argv), cwd, timeout_sec, ear
        self.tool_id = f"{os.getpid()}-{next(_counter)}"
        self.env = env | {_MARKER: self.tool_id}
        self.stdin = stdin
        self.room = {"stdout": max_output, "stderr": max_output}
        self.parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self.truncated = False

    def run(self) -> ToolResult:
        begun = time.monotonic()
        try:
            with proctable.children.spawning() as register:
                process = subprocess.Popen(
                    self.argv,
                    cwd=self.cwd,
                    env=self.env,
                    stdin=subprocess.PIPE if self.stdin else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
                register(process.pid)
        except (OSError, ValueError) as error:
            return ToolResult(None, error=f"cannot start {self.argv[0]!r}: {error}")
        try:
            timed_out = not self._follow(process, begun + self.timeout_sec)
        finally:
            self._end(process)
        return ToolResult(
            exit_code=process.returncode if process.returncode >= 0 else None,
            signal=-process.returncode if process.returncode < 0 else None,
            stdout=b"".join(self.parts["stdout"]),
            stderr=b"".join(self.parts["stderr"]),
            truncated=self.truncated,
            timed_out=timed_out,
            duration_sec=time.monotonic() - begun,
        )

    def _follow(self, process: subprocess.Popen[bytes], give_up: float) -> bool:
        """Move bytes until the command has ended; False when it must be killed for its time or a
        cancellation."""
        poller = select.poll()
        poller.register(self.ear, select.POLLIN)
        assert process.stdout is not None
        assert process.stderr is not None
        streams = {process.stdout.fileno(): "stdout", process.stderr.fileno(): "stderr"}
        for fd in streams:
            os.set_blocking(fd, False)
            poller.register(fd, select.POLLIN)
        if process.stdin:
            os.set_blocking(process.stdin.fileno(), False)
            poller.register(process.stdin, select.POLLOUT)
        exit_fd = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else -1
        try:
            if exit_fd >= 0:
                poller.register(exit_fd, select.POLLIN)
            return self._pump(process, poller, streams, exit_fd, give_up)
        finally:
            if exit_fd >= 0:
                os.close(exit_fd)

    def _pump(
        self,
        process: subprocess.Popen[bytes],
        poller: select.poll,
        streams: dict[int, str],
        exit_fd: int,
        give_up: float,
    ) -> bool:
        while True:
            patience = give_up - time.monotonic()
            if patience <= 0:
                return False
            step = patience if exit_fd >= 0 else min(patience, 0.01)
            ready = {fd for fd, _ in poller.poll(step * 1000 + 1)}
            ended = exit_fd in ready if exit_fd >= 0 else _has_ended(process.pid)
            for fd in streams if ended else ready & streams.keys():
                if not self._read(fd, streams[fd], drain=ended) and not ended:
                    poller.unregister(fd)
            if ended:
                return True
            if self.ear in ready:
                return False
            if process.stdin and not process.stdin.closed and process.stdin.fileno() in ready:
                self._write(process.stdin, poller)

    def _read(self, fd: int, name: str, *, drain: bool) -> bool:
        """Take what is there; False at the end of the stream. `drain`: all of it, for nobody will
        write more."""
        budget = 64 << 20 if drain else 1 << 16  # a living left-over could feed us for ever
        while budget > 0:
            try:
                data = os.read(fd, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            budget -= len(data)
            kept = data[: self.room[name]]
            self.truncated = self.truncated or len(kept) < len(data)
            self.room[name] -= len(kept)
            if kept:
                self.parts[name].append(kept)
        return True

    def _write(self, pipe: IO[bytes], poller: select.poll) -> None:
        try:
            self.stdin = self.stdin[os.write(pipe.fileno(), self.stdin[: 1 << 16]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.stdin = b""
        if not self.stdin:
            poller.unregister(pipe)
            pipe.close()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill what is left of its group (while its zombie still holds the group's id), then of its
        daemons."""
        if not _has_ended(process.pid):
            _signal_group(process.pid, signal.SIGTERM, signal.SIGCONT)
            _await_end(process.pid, _TERM_SEC)
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
        proctable.children.forget(process.pid)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                _close(pipe)
        self._sweep_adopted()

    def _sweep_adopted(self) -> None:
        """Daemons that the command left became our children, if we are a subreaper: end those with
        its marker."""
        if any(
            proctable.has_marker(pid, self.tool_id, variable=_MARKER)
            for pid in launcher.children_of(os.getpid())
        ):
            proctable.exterminate(
                lambda table: proctable.marked(table, self.tool_id, variable=_MARKER)
            )


def _has_ended(pid: int) -> bool:
    """True once our child is a zombie; it is not collected."""
    if not hasattr(os, "waitid"):
        return not proctable.alive(proctable.scan(), pid, proctable.start_ticks(pid))
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _await_end(pid: int, limit_sec: float) -> None:
    give_up, delay = time.monotonic() + limit_sec, 0.001
    while not _has_ended(pid) and time.monotonic() < give_up:
        pause(delay)
        delay = min(delay * 2, 0.02)


def _signal_group(group: int, *numbers: int) -> None:
    for number in numbers:
        try:
            os.killpg(group, number)
        except OSError:
            return


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except OSError:
        pass
