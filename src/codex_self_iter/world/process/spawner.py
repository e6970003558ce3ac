"""The supervisor's side of the launcher: starts it when needed, again if it died; asks for runs.

Blocking and thread-safe: the process host calls it in a worker thread."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import codex_self_iter
from codex_self_iter.core.runs import RunIdentity
from codex_self_iter.world.pause import ended_within, pause
from codex_self_iter.world.process import bare, kill, launcher, proctable
from codex_self_iter.world.process.descriptors import original_soft_limit

CLOSE_SEC = 2.0
"""How long a launcher may take to see that it is not needed any more."""
PATIENCE_SEC = 20.0
"""How long launcher and recorder may take to start the agent, on a machine at its limits."""


class SpawnError(Exception):
    """The agent could not be started: one line. `argv0_missing`: there is no such program."""

    def __init__(self, message: str, *, argv0_missing: bool = False) -> None:
        super().__init__(message)
        self.argv0_missing = argv0_missing


class Spawned(NamedTuple):
    """A started run: its identity, control socket, descriptors that pin both processes (or -1)."""

    identity: RunIdentity
    control: socket.socket
    recorder_fd: int
    agent_fd: int


def recorder_name(run_id: str) -> str:
    """The name of this run's recorder, by which a later supervisor finds it without any file."""
    return launcher.NAME_PREFIX + hashlib.sha256(run_id.encode()).hexdigest()[:11]


class Spawner:
    """Owns the launcher process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @property
    def pid(self) -> int:
        """The launcher's pid, 0 if there is none now."""
        return self._process.pid if self._process else 0

    def spawn(self, request: Mapping[str, Any], fds: Sequence[int]) -> Spawned:
        """Start one run; `fds` are those that `Recorder.take` takes. Raises SpawnError."""
        name = recorder_name(request["run_id"])
        with kill.children.expecting(name):
            spawned = self._spawn(dict(request) | {"name": name}, fds)
            kill.children.spare(spawned.identity.recorder_pid, spawned.identity.recorder_start)
        return spawned

    def _spawn(self, request: Mapping[str, Any], fds: Sequence[int]) -> Spawned:
        frame = launcher.encode_frame(request)
        reason = ""
        for _ in range(2):
            answer = _Answer()
            try:
                with answer.theirs:
                    self._send(frame, [answer.theirs.fileno(), *fds])
                return answer.read(self._wake)
            except (OSError, EOFError) as error:
                # the launcher died or hangs: nothing that it began may stay
                reason = str(error) or "it ended"
                answer.close()
                self.close()
                _clear(request["run_id"])
                if answer.begun:  # the agent may have run: never start it a second time
                    killed = "the run's recorder was killed while the agent started"
                    raise SpawnError(killed) from error
            except BaseException:
                answer.close()
                raise
        raise SpawnError(f"the launcher process failed twice while starting the agent: {reason}")

    def _send(self, frame: bytes, fds: list[int]) -> None:
        with self._lock:
            sock = self._socket or self._start()
            sent = socket.send_fds(sock, [frame], fds)
            if sent < len(frame):
                sock.sendall(frame[sent:])

    def _start(self) -> socket.socket:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(PATIENCE_SEC)
        python = [sys.executable, "-I", "-S", "-X", "utf8", "-c", launcher.COMMAND]
        place = os.path.dirname(os.path.dirname(codex_self_iter.__file__))
        with theirs, kill.children.spawning() as register:
            self._process = subprocess.Popen(
                [*python, str(theirs.fileno()), str(original_soft_limit()), place],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # recorders outlive us: they must not hold our terminal or pipe open
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            register(self._process.pid)
        return self._socket

    def _wake(self, recorder: int) -> None:
        """An agent may have stopped launcher, waiting recorder, or its own before that could
        report."""
        for pid in {self.pid, recorder, *_waiting(self.pid)} - {0}:
            kill.kill(pid, proctable.start_ticks(pid), signal.SIGCONT)

    def close(self) -> None:
        """End the launcher, and the recorder that waits for a run. Living runs go on.

        The next `spawn` starts another."""
        with self._lock:
            sock, process = self._socket, self._process
            self._socket = self._process = None
        if sock is not None:
            sock.close()
        if process is not None:
            # One that is stopped would hold what it was sent, a run lock perhaps, for ever. (Ended
            # in this order: while the launcher lives, it alone has it as a child.)
            waiting = {pid: proctable.start_ticks(pid) for pid in _waiting(process.pid)}
            if not ended_within(process, CLOSE_SEC):
                waiting |= {pid: proctable.start_ticks(pid) for pid in _waiting(process.pid)}
                process.send_signal(signal.SIGKILL)
                process.wait()
            kill.children.forget(process.pid)
            for pid, start in waiting.items():
                kill.kill(pid, start)


def _waiting(launcher_pid: int) -> list[int]:
    """The launcher's children that have no run yet."""
    found = map(proctable.read, bare.children_of(launcher_pid)) if launcher_pid else ()
    return [one.pid for one in found if one is not None and one.name == launcher.IDLE_NAME]


def _clear(run_id: str) -> None:
    """End whatever a spawn that went wrong has begun."""
    name = recorder_name(run_id)
    give_up = time.monotonic() + CLOSE_SEC
    while True:
        try:
            kill.exterminate(
                lambda table: (
                    proctable.marked(table, run_id)
                    | {proc.pid for proc in table.values() if proc.name == name}
                ),
                adopted=True,
            )
            return
        except OSError:  # no descriptor to be had for a look
            if time.monotonic() > give_up:
                raise
        pause(0.1)


class _Answer:
    """A recorder's first words: it is there, then who the agent is or why it did not start."""

    def __init__(self) -> None:
        self.control, self.theirs = socket.socketpair()
        self.control.settimeout(0.25)
        self._fds: list[int] = []
        self._data = b""

    @property
    def begun(self) -> bool:
        """True once the recorder has answered at all."""
        return bool(self._data)

    def read(self, wake: Callable[[int], None]) -> Spawned:
        """Raises EOFError or OSError when no answer comes, SpawnError when it is a refusal.

        `wake` is called with the recorder's pid, 0 before it is known, while no answer comes."""
        give_up = time.monotonic() + PATIENCE_SEC
        while self._data.count(b"\n") < 2:
            try:
                data, fds, _, _ = socket.recv_fds(self.control, 65536, 2)
            except TimeoutError:
                if time.monotonic() > give_up:
                    raise
                wake(json.loads(self._data)["pid"] if self._data else 0)
                continue
            if not data:
                raise EOFError
            self._data += data
            self._fds += fds
        message = json.loads(self._data.splitlines()[1])
        if message["event"] == "failed":
            raise SpawnError(message["error"], argv0_missing=message.get("argv0_missing", False))
        self.control.setblocking(False)
        for fd in self._fds:
            os.set_inheritable(fd, False)
        identity = RunIdentity.from_json(message["identity"])
        return Spawned(identity, self.control, *[*self._fds, -1, -1][:2])

    def close(self) -> None:
        self.control.close()
        for fd in self._fds:
            os.close(fd)
