"""One way to run a short command: bounded in time and output, nothing of its group left behind.

Output goes to unnamed files in memory (on the disk where the system has none), not to pipes: nobody
has to pump, and a grandchild that keeps them open (a daemon, a hook's background job) delays
nothing. Only light imports: the fast commands use this module."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import time
from typing import NamedTuple

from codex_self_iter.world.pause import pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_OUTPUT = 4 * 1024 * 1024
"""Default bound of each output stream in bytes."""
_TERM_SEC = 0.5
_STEP_SEC = 0.05
"""How often a running command's output and a cancellation are looked at."""


class ToolResult(NamedTuple):
    """How a command ended.

    Attributes:
        exit_code: None when it was killed or could not be started.
        signal: number of the signal that ended it, or None.
        stdout, stderr: the first `max_output` bytes of each.
        truncated: True when there was more output than that.
        timed_out: True when it was ended for taking too long, or cancelled.
        error: one line when it could not be started, else ""."""

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


def run(
    argv: Sequence[str],
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout_sec: float = 60.0,
    max_output: int = MAX_OUTPUT,
    stdin: bytes | None = None,
    merge: bool = False,
) -> ToolResult:
    """Run one command to its end. Blocking. Raises OSError when it cannot be started.

    `env` is the complete environment (default: ours). With `merge` stderr goes into stdout."""
    command = ShortCommand(argv, cwd, env, timeout_sec, max_output, stdin, merge=merge)
    return command.run()


class ShortCommand:
    """One command; `cancelled` may be set from another thread."""

    def __init__(
        self,
        argv: Sequence[str],
        cwd: str | None,
        env: Mapping[str, str] | None,
        timeout_sec: float,
        max_output: int,
        stdin: bytes | None,
        *,
        merge: bool = False,
    ) -> None:
        self.argv, self.cwd, self.env = list(argv), cwd, env
        self.timeout_sec, self.stdin, self.merge = timeout_sec, stdin, merge
        self.max_output = max_output
        self.cancelled = self.truncated = False
        self._files: list[int] = []

    def run(self) -> ToolResult:
        """See `run`."""
        begun = time.monotonic()
        try:
            process = self.start()
            try:
                in_time = self._wait(process.pid, begun + self.timeout_sec)
            finally:
                self._end(process)
            code: int = process.returncode
            out, err = (self._output(fd) for fd in self._files[:2])
            return ToolResult(
                exit_code=code if code >= 0 else None,
                signal=-code if code < 0 else None,
                stdout=out,
                stderr=err,
                truncated=self.truncated,
                timed_out=not in_time,
                duration_sec=time.monotonic() - begun,
            )
        finally:
            for fd in self._files:
                os.close(fd)

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, in a session of its own."""
        out, err = self._file(os.O_APPEND), self._file(os.O_APPEND)
        if self.stdin:
            given = self._file(0)
            with open(given, "wb", closefd=False) as file:
                file.write(self.stdin)
            os.lseek(given, 0, os.SEEK_SET)
        return subprocess.Popen(
            self.argv,
            cwd=self.cwd,
            env=self.env,
            stdin=given if self.stdin else subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT if self.merge else err,
            start_new_session=True,
        )

    def collect(self, process: subprocess.Popen[bytes]) -> None:
        """It has ended: take its exit status."""
        process.wait()

    def _file(self, flags: int) -> int:
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("output")
        else:
            import tempfile

            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        self._files.append(fd)
        if flags:
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | flags)
        return fd

    def _wait(self, pid: int, give_up: float) -> bool:
        """Until it has ended; False when it must be ended, for its time or a cancellation."""
        fd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
        try:
            poller = select.poll()
            if fd >= 0:
                poller.register(fd, select.POLLIN)
            while not self.cancelled and (patience := give_up - time.monotonic()) > 0:
                step = min(patience, _STEP_SEC if fd >= 0 else 0.01)
                if poller.poll(step * 1000 + 1) or (fd < 0 and _has_ended(pid)):
                    return True
                self._trim()
            return False
        finally:
            if fd >= 0:
                os.close(fd)

    def _trim(self) -> None:
        """Drop what a talkative command wrote beyond its bound, so that it fills no memory."""
        for fd in self._files[:2]:
            found = os.fstat(fd)
            if found.st_size > self.max_output:
                self.truncated = True
                os.ftruncate(fd, self.max_output)

    def _output(self, fd: int) -> bytes:
        size = os.fstat(fd).st_size
        self.truncated = self.truncated or size > self.max_output
        return os.pread(fd, min(size, self.max_output), 0) if size else b""

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill what is left of its group, while its zombie still holds the group's id."""
        if not _has_ended(process.pid):
            _signal_group(process.pid, signal.SIGTERM, signal.SIGCONT)
            give_up, delay = time.monotonic() + _TERM_SEC, 0.001
            while not _has_ended(process.pid) and time.monotonic() < give_up:
                pause(delay)
                delay = min(delay * 2, 0.02)
        _signal_group(process.pid, signal.SIGKILL)
        self.collect(process)


def _has_ended(pid: int) -> bool:
    """True once our child is a zombie; it is not collected."""
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    from codex_self_iter.world.process import proctable

    return not proctable.alive(proctable.scan(), pid, proctable.start_ticks(pid))


def _signal_group(group: int, *numbers: int) -> None:
    for number in numbers:
        try:
            os.killpg(group, number)
        except OSError:
            return
