"""The launcher: forks one recorder for each run. A program of its own; standard library only.

Theory of operation. The supervisor starts `python -I -S -c COMMAND FD` (see COMMAND) and sends it
one request for each run over the Unix socket FD: a length-prefixed JSON object, and the run's
descriptors. The launcher forks; the child becomes the run's *recorder*:

    supervisor (subreaper: second ring) -> launcher -> recorder (subreaper: first ring) -> agent ->
    whatever

The recorder is the nearest subreaper above everything that the agent starts, so every escapee of
this run (setsid, double fork, emptied environment) becomes the recorder's child and nobody else's:
attribution is exact, also among many concurrent runs and after the supervisor was killed. It waits
for the agent, writes `exit.json`, ends whatever is left and is gone. Forking here instead of in the
supervisor costs about a millisecond whatever the supervisor's size and threads. The launcher ends
when the supervisor does; recorders stay with their runs.

It runs isolated, without site-packages: of the package it imports `bare` and `walls` alone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from codex_self_iter.world.process.bare import (
    DRAIN_BYTES,
    PIECE_BYTES,
    PUMP_BYTES,
    Pump,
    child_subreaper,
    children_of,
    name_process,
    pin,
    start_ticks,
    write_private,
)
from codex_self_iter.world.process.walls import Walls, WallsError

COMMAND = (
    "import sys; sys.path.append(sys.argv[3]); "
    "from codex_self_iter.world.process.launcher import main; main()"
)
"""What the interpreter is to do; its arguments: the socket, the agents' soft limit of open files,
and where the package is."""

NO_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ETXTBSY, errno.ENOEXEC)
"""How the start of a file fails that is no program, or just now none."""
MAX_FRAME = 64 * 1024 * 1024
"""Longest request in bytes; far above what exec can take, so only a broken peer exceeds it."""
NAME_PREFIX = "csi-"
"""Names of launcher and recorders begin with this; then comes a digest of the run_id."""
IDLE_NAME = NAME_PREFIX + "launcher"
"""The launcher's, and that of the recorder that waits for a run."""
POLITE_SEC = 0.5
"""How long left-overs of an ended agent have between TERM and KILL."""
GIVE_UP_SEC = 5.0
"""How long a process may take to die of KILL before the recorder gives up (a hung disk)."""

SCARCE_SEC = 0.1
"""How often a fork is tried again where the limit of processes is reached."""
BREATH_SEC = 0.01
"""How long a run that starts has the machine before the next recorder is forked."""

UNKNOWN = -1
"""`left` in `exit.json` until the sweep is done: whoever reads it must look for left-overs."""

GATHER_SEC = 0.01
"""What is printed bit by bit is moved in one go; a burst does not wait."""


def encode_frame(message: Mapping[str, Any]) -> bytes:
    """One request: four bytes of length, then JSON (surrogates keep undecodable bytes)."""
    body = json.dumps(message).encode("ascii")
    return struct.pack("!I", len(body)) + body


def _receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next request with its descriptors, or None when the supervisor is gone."""
    head, fds, _, _ = socket.recv_fds(sock, 4, 16)
    while head and len(head) < 4:
        head += sock.recv(4 - len(head)) or b"\0\0\0\0"
    if not head or (size := struct.unpack("!I", head)[0]) > MAX_FRAME:
        return None
    body = bytearray()
    while len(body) < size:
        chunk = sock.recv(min(size - len(body), 1 << 20))
        if not chunk:
            return None
        body += chunk
    return json.loads(body), fds


class Recorder:
    """One run, from spawn to nothing left. Single-threaded; everything happens in `record`."""

    def __init__(self) -> None:
        self.request: dict[str, Any] = {}
        self.control: socket.socket | None = None
        self.lock, self.stdio = -1, [-1, -1, -1]
        self.pumps: list[Pump] = []
        self.bursting = False
        self.buffer = b""
        self.agent = 0
        self.started = (0.0, 0.0)
        self.status: int | None = None
        self.ended = (0.0, 0.0)
        self.cause = "exit"
        self.kill_at: float | None = None
        self.hurry = False
        self.terms = 0
        self.cpu_sec = 0.0
        self.swept = 0
        self.wake_read, self.wake_write = os.pipe()
        self.prepare()

    def prepare(self) -> None:
        """Own session; handlers for signals, never SIG_IGN: exec resets handlers alone."""
        os.setsid()
        for fd in (self.wake_read, self.wake_write):
            os.set_blocking(fd, False)
        for name in ("SIGCHLD", "SIGINT", "SIGHUP", "SIGTERM", "SIGUSR1"):
            signal.signal(signal.Signals[name], self.on_signal)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)

    def rehearse(self) -> None:
        """Do what a start does, for nothing and without a fork.

        A page that is first written to after our own fork costs a copy: better now, while nobody
        waits, than in the run's start."""
        name_process(IDLE_NAME)
        child_subreaper(True)
        # a NUL in a name is found out as late as can be without a fork
        with contextlib.suppress(OSError, ValueError):
            json.loads(json.dumps({"argv": ["sh"], "env": dict(os.environ), "grace": 1.5}))
            start_ticks(os.getpid())
            write_private("", {})
            one, other = socket.socketpair()
            with one, other:
                socket.send_fds(one, [b"{}"], [self.wake_read])
                for fd in socket.recv_fds(other, 4, 16)[1]:
                    os.close(fd)
            subprocess.Popen(["\0"], cwd="/", env={}, pass_fds=[0], start_new_session=True)

    def take(self, request: dict[str, Any], fds: list[int]) -> None:
        """Become the recorder of this run: its name, its place, its cgroup."""
        self.request = request
        self.terms, self.hurry = 0, False  # what came before was not meant for this run
        self.control = socket.socket(fileno=fds[0])
        self.lock, self.stdio = fds[1], [fds[2], fds[3], fds[6]]
        self.pumps = [Pump(*fds[4:6]), Pump(*fds[7:9])]
        child_subreaper(bool(request.get("subreaper", True)))
        name_process(request["name"])
        with contextlib.suppress(OSError):  # where it works, by which a later supervisor finds it
            os.chdir(request["cwd"])
        if self.request.get("cgroup"):
            # the third ring only; the first two hold without it
            with (
                contextlib.suppress(OSError),
                open(self.request["cgroup"] + "/cgroup.procs", "w") as file,
            ):
                file.write("0")

    def on_signal(self, number: int, _frame: object) -> None:
        """TERM is the stop ladder, a second one or USR1 skips its grace; others only wake us."""
        if number == signal.SIGTERM:
            self.terms += 1
        self.hurry = self.hurry or number == signal.SIGUSR1 or self.terms > 1

    def record(self) -> None:
        """Run the agent to its end, write the record, sweep, report."""
        if not self.spawn():
            return
        self.watch()
        self.ended = time.time(), time.monotonic()
        self.pump(DRAIN_BYTES)
        # the status must not be lost with a recorder that is killed while it sweeps
        if self.reap():
            self.write("exit.json", self.report(0, UNKNOWN))
        swept, left = self.sweep()
        self.pump(DRAIN_BYTES)
        for pump in self.pumps:
            pump.settle()
        report = self.report(swept, left)
        self.write("exit.json", report)
        os.close(self.lock)  # before the report: whoever hears it may start the next run at once
        self.tell({"event": "end"} | report)
        if self.control is not None:
            self.control.close()  # now, not after the kernel has taken this process apart

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one of the run's files, but for where an agent has made its directory a link."""
        directory = self.request["directory"]
        if os.path.realpath(directory) == directory:
            write_private(f"{directory}/{name}", value, self.request["aside"])

    def spawn(self) -> bool:
        """Start the agent and tell who it is; or tell why it could not be started."""
        request = self.request
        pidfds = pin(os.getpid())
        # first: the agent may kill or stop this process at once
        self.tell({"event": "recorder", "pid": os.getpid()}, pidfds)
        self.started = time.time(), time.monotonic()
        walls: Walls | None = None
        flaw = ""
        try:
            walls = Walls(request["walls"]) if request.get("walls") else None
            process = self.start(walls)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            flaw = (walls.close() if walls else "") or str(error) * isinstance(error, WallsError)
            cwd = request["cwd"]
            named = getattr(error, "filename", None)
            missing = (
                not flaw
                and getattr(error, "errno", 0) in NO_PROGRAM
                and named != cwd
                and named != os.fsencode(cwd)
            )
            os.close(self.lock)
            said = f"the fence around it cannot be built: {flaw}" if flaw else str(error)
            if missing and isinstance(error, OSError):
                said = f"{error.strerror}: {request['argv'][0]}"
                if error.errno == errno.ENOEXEC:
                    said += " (begin it with #!/bin/sh, if it is a script)"
            self.tell({"event": "failed", "error": said, "argv0_missing": missing})
            return False
        if walls is not None:
            walls.close()
        process.returncode = 0  # this loop reaps it, not Popen
        self.agent = process.pid
        for fd in self.stdio:
            os.close(fd)
        if pidfds:
            pidfds += pin(self.agent)
        identity = self.identity(pidfds)
        self.write("identity.json", identity)
        self.tell({"event": "started", "identity": identity}, pidfds[1:])
        for fd in pidfds:
            os.close(fd)
        return True

    def start(self, walls: Walls | None) -> subprocess.Popen[bytes]:
        """Start the agent; raises OSError, ValueError or SubprocessError."""
        if walls is None or not walls.by_thread:
            return self.popen(walls, walls.enter_forked if walls else None)
        found: list[subprocess.Popen[bytes] | BaseException] = []

        def enter_and_start() -> None:
            try:
                walls.enter()
                found.append(self.popen(walls, None))
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=enter_and_start)
        thread.start()
        thread.join()
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    def popen(
        self, walls: Walls | None, before: Callable[[], None] | None
    ) -> subprocess.Popen[bytes]:
        """The agent's process; `before` is called in it."""
        argv = walls.command(self.request["argv"]) if walls else self.request["argv"]
        return subprocess.Popen(
            [os.fsencode(word) for word in argv],
            cwd=self.request["cwd"],
            env=self.request["env"],
            stdin=walls.stdin if walls and walls.stdin >= 0 else self.stdio[0],
            stdout=self.stdio[1],
            stderr=self.stdio[2],
            pass_fds=[self.lock],
            start_new_session=True,
            preexec_fn=before,
        )

    def identity(self, pidfds: list[int]) -> dict[str, Any]:
        """RunIdentity's fields. Inodes tell processes apart on pidfs, where two pidfds differ."""
        inodes = [os.fstat(fd).st_ino for fd in pidfds]
        return {
            "run_id": self.request["run_id"],
            "boot_id": self.request["boot_id"],
            "recorder_pid": os.getpid(),
            "recorder_start": start_ticks(os.getpid()),
            "agent_pid": self.agent,
            "agent_start": start_ticks(self.agent),
            "pidfd_inode": inodes[1] if len(set(inodes)) == 2 else 0,
            "started_at": self.started[0],
            "started_monotonic": self.started[1],
        }

    def watch(self) -> None:
        """Wait for the agent's end; run the stop ladder when asked to."""
        give_up: float | None = None
        while self.reap() and self.status is None:
            self.read_control()
            if self.terms and self.kill_at is None:
                self.stop(float(self.request["grace"]), "request")
            now = time.monotonic()
            if give_up is not None and now >= give_up:
                return
            if give_up is None and self.kill_at is not None and (self.hurry or now >= self.kill_at):
                self.signal_group(signal.SIGKILL)
                give_up = now + GIVE_UP_SEC
            until = give_up if give_up is not None else self.kill_at
            self.pause(None if until is None else until - now)

    def stop(self, grace: float, cause: str) -> None:
        """First rung of the ladder, or a shorter grace. Too late once the agent has ended."""
        self.hurry = self.hurry or grace <= 0
        if self.status is not None:
            return
        kill_at = time.monotonic() + grace
        if self.kill_at is None:
            self.cause, self.kill_at = cause, kill_at
            self.signal_group(signal.SIGTERM, signal.SIGCONT)
        self.kill_at = min(self.kill_at, kill_at)

    def signal_group(self, *numbers: int) -> None:
        """Signal the agent and its group; not once it is reaped: the id may be anybody's then."""
        for number in numbers:
            try:
                os.killpg(self.agent, number)
            except OSError:
                _send(self.agent, number)

    def pause(self, timeout: float | None) -> None:
        """Sleep until a signal, a control message, output that is moved, or the time-out."""
        poller = select.poll()
        poller.register(self.wake_read, select.POLLIN)
        if self.control is not None:
            poller.register(self.control, select.POLLIN)
        pipes = {pump.source for pump in self.pumps if pump.source >= 0}
        for fd in pipes:
            poller.register(fd, select.POLLIN)
        found = poller.poll(None if timeout is None else max(0.0, timeout) * 1000 + 1)
        printed = pipes.intersection(fd for fd, _ in found)
        if printed:
            if len(printed) == len(found) and not self.bursting:
                for fd in pipes:
                    poller.unregister(fd)
                poller.poll(GATHER_SEC * 1000)
            self.bursting = self.pump(PUMP_BYTES) >= PIECE_BYTES // 2
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake_read, 4096)

    def pump(self, most: int) -> int:
        """Move what the run has printed, at most so much of each stream."""
        return sum(pump.move(most) for pump in self.pumps)

    def read_control(self) -> None:
        """Take the supervisor's messages. Its end is no event: the run goes on without it."""
        while self.control is not None:
            try:
                data = self.control.recv(4096, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.control.close()
                self.control = None
            *lines, self.buffer = (self.buffer + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                self.stop(float(message["grace"]), message["cause"])

    def reap(self) -> bool:
        """Collect every child that has ended; False when there are no children at all."""
        while True:
            try:
                if not hasattr(os, "waitid"):
                    ended = 0
                elif (info := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None:
                    return True
                else:
                    ended = info.si_pid
                # a zombie still holds its group's id: the last moment to use it safely
                if ended == self.agent:
                    self.signal_group(signal.SIGTERM, signal.SIGCONT)
                pid, status, usage = os.wait4(ended or -1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.swept += self.status is not None
            self.cpu_sec += usage.ru_utime + usage.ru_stime
            if pid == self.agent:
                self.status = status

    def sweep(self) -> tuple[int, int]:
        """End all that was adopted: TERM, a moment, KILL until all are gone. (ended, left)."""
        begun = time.monotonic()
        asked: set[int] = set()
        while self.reap():
            now = time.monotonic()
            polite = now < begun + POLITE_SEC and not self.hurry
            if now > begun + POLITE_SEC + GIVE_UP_SEC:
                return self.swept, len(children_of(os.getpid()))
            # not reaped yet, so none of these ids can be reused
            for pid in children_of(os.getpid()):
                if not polite:
                    _send(pid, signal.SIGKILL)
                elif pid not in asked:
                    asked.add(pid)
                    _send(pid, signal.SIGTERM, signal.SIGCONT)
            self.read_control()
            self.pause(min(0.02, begun + POLITE_SEC - now) if polite else 0.005)
        return self.swept, 0

    def report(self, swept: int, left: int) -> dict[str, Any]:
        """The content of `exit.json`."""
        return {
            "run_id": self.request["run_id"],
            "exit_code": exit_code(self.status),
            "signal": end_signal(self.status),
            "ended_at": self.ended[0],
            "ended_monotonic": self.ended[1],
            "duration_sec": self.ended[1] - self.started[1],
            "started_at": self.started[0],
            "cause": self.cause,
            "cpu_sec": self.cpu_sec,
            "swept": swept,
            "left": left,
        }

    def tell(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Send one line, with descriptors, to the supervisor, if there is one."""
        if self.control is not None:
            with contextlib.suppress(OSError):
                socket.send_fds(self.control, [json.dumps(message).encode() + b"\n"], fds)


def exit_code(status: int | None) -> int | None:
    """Of a wait status; None if a signal ended the process, or nobody knows."""
    return os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None


def end_signal(status: int | None) -> int | None:
    """Of a wait status: the signal that ended the process, or None."""
    return os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None


def _send(pid: int, *numbers: int) -> None:
    for number in numbers:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def _serve_one(server: socket.socket, taken: int) -> NoReturn:
    """A recorder, forked before its run is asked for: what it can prepare costs the run no time."""
    try:
        recorder = Recorder()
        recorder.rehearse()
        if (received := _receive(server)) is not None:
            os.write(taken, b"!")
            os.close(taken)
            server.close()
            recorder.take(*received)
            recorder.record()
    finally:
        os._exit(0)


def main() -> None:
    """Keep one recorder ready until the supervisor is gone."""
    server = socket.socket(fileno=int(sys.argv[1]))
    fcntl.fcntl(server, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _heed_signals()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps recorders
    name_process(IDLE_NAME)
    _limit_files(int(sys.argv[2]))
    os.chdir("/")
    gc.disable()  # collections would only copy pages that recorders share
    gc.freeze()
    while True:
        served, forked = b"", False
        with contextlib.suppress(OSError):  # no process or descriptor to be had: soon, perhaps
            waiting, taken = os.pipe()
            try:
                if os.fork() == 0:
                    os.close(waiting)
                    _serve_one(server, taken)
                forked = True
            finally:
                os.close(taken)
                served = os.read(waiting, 1) if forked else b""
                os.close(waiting)
        if served:  # the run that starts now needs the processor more than the next one
            select.select([server], [], [], BREATH_SEC)
        elif _peer_is_gone(server):
            os._exit(0)  # the supervisor waits for this: no tidying up
        elif not forked:
            select.select([server], [], [], SCARCE_SEC)


def _heed_signals() -> None:
    """A shell's background job or nohup ignores signals, and what is ignored is inherited: an
    agent's own dev server could not be ended by Ctrl-C. Python's own two stay: agents get those
    back when they are started."""
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _limit_files(soft: int) -> None:
    """Give agents the soft limit of open files that we were started with; ours is higher."""
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _peer_is_gone(server: socket.socket) -> bool:
    try:
        return not server.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False  # somebody killed the recorder that was waiting: fork another
    except OSError:
        return True
