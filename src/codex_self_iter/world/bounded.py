"""One way to run a short command: bounded in time and output, nothing of its group left behind.

Output is taken from pipes and not from files, which a command that opens `/dev/stderr` anew would
empty. It ends with the command: a grandchild that keeps them open (a daemon, a hook's background
job) delays nothing. Only light imports: the fast commands use this module."""

from __future__ import annotations

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
_PIECE, _PIECES = 65536, 64
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
    """One command; `cancelled` may be set from another thread. One that takes too long gets the
    signal `ended_by`, and so many seconds for its end."""

    ended_by: int = signal.SIGTERM
    grace_sec = 0.5

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
        self._open: dict[int, bytearray] = {}
        self._taken: list[bytearray] = []

    def run(self) -> ToolResult:
        """See `run`."""
        begun = time.monotonic()
        try:
            process = self.start()
            try:
                in_time = self._wait(process.pid, begun + self.timeout_sec)
            finally:
                self._end(process)
            self._take()
            code: int = process.returncode
            out, err = self._taken
            return ToolResult(
                exit_code=code if code >= 0 else None,
                signal=-code if code < 0 else None,
                stdout=bytes(out),
                stderr=bytes(err),
                truncated=self.truncated,
                timed_out=not in_time,
                duration_sec=time.monotonic() - begun,
            )
        finally:
            for fd in self._open:
                os.close(fd)

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, in a session of its own."""
        theirs: list[int] = []
        try:
            for _ in range(2):
                ours, sink = os.pipe()
                theirs.append(sink)
                os.set_blocking(ours, False)
                self._taken.append(bytearray())
                self._open[ours] = self._taken[-1]
            if self.stdin:
                theirs.append(_in_memory(self.stdin))
            return subprocess.Popen(
                self.argv,
                cwd=self.cwd,
                env=self.env,
                stdin=theirs[2] if self.stdin else subprocess.DEVNULL,
                stdout=theirs[0],
                stderr=subprocess.STDOUT if self.merge else theirs[1],
                start_new_session=True,
            )
        finally:
            for fd in theirs:
                os.close(fd)

    def collect(self, process: subprocess.Popen[bytes]) -> None:
        """It has ended: take its exit status."""
        process.wait()

    def _wait(self, pid: int, give_up: float) -> bool:
        """Until it has ended; False when it must be ended, for its time or a cancellation."""
        fd = _pidfd(pid)
        try:
            while not self.cancelled and (patience := give_up - time.monotonic()) > 0:
                poller = select.poll()
                for one in (*self._open, *([fd] if fd >= 0 else [])):
                    poller.register(one, select.POLLIN)
                step = min(patience, _STEP_SEC if fd >= 0 else 0.01)
                found = [ready for ready, _ in poller.poll(step * 1000 + 1)]
                if fd in found or (fd < 0 and _has_ended(pid)):
                    return True
                self._take()
            return False
        finally:
            if fd >= 0:
                os.close(fd)

    def _take(self) -> None:
        """Take what was written; what is beyond the bound fills no memory."""
        for fd, taken in list(self._open.items()):
            for _ in range(_PIECES):
                try:
                    piece = os.read(fd, _PIECE)
                except BlockingIOError:
                    break
                if not piece:
                    os.close(fd)
                    del self._open[fd]
                    break
                room = self.max_output - len(taken)
                self.truncated = self.truncated or len(piece) > room
                taken += piece[:room]

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill what is left of its group, while its zombie still holds the group's id."""
        if not _has_ended(process.pid):
            _signal_group(process.pid, self.ended_by, signal.SIGCONT)
            give_up, delay = time.monotonic() + self.grace_sec, 0.001
            while not _has_ended(process.pid) and time.monotonic() < give_up:
                pause(delay)
                delay = min(delay * 2, 0.02)
        _signal_group(process.pid, signal.SIGKILL)
        self.collect(process)


def _in_memory(data: bytes) -> int:
    """A descriptor of an unnamed file with these bytes; on the disk where memory has none."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("input")
    else:
        import tempfile

        with tempfile.TemporaryFile() as made:
            fd = os.dup(made.fileno())
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _pidfd(pid: int) -> int:
    """A descriptor of our child; -1 where the system, or what guards it, has no such thing."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


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
