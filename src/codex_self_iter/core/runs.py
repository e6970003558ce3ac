"""A run as the process host sees it: what to start, who it is, how it goes and how it ended.

Durations are seconds, sizes bytes, points in time Unix seconds unless a name says otherwise."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any


class EndCause(enum.StrEnum):
    """What ended a run, as the process host saw it."""

    EXIT = "exit"
    """The agent ended by itself (any exit code or signal that we did not send)."""
    WALL_TIMEOUT = "wall_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    MEMORY = "memory"
    REQUEST = "request"
    """We ended it: STOP, pause --now, steer --now, shutdown."""
    CRASHED = "crashed"
    """We ended it, because its loop had failed or its supervisor was gone."""
    LINGERED = "lingered"
    """Its stream had said its final event and it did not end: we ended it."""
    SPAWN_FAILED = "spawn_failed"
    LOST = "lost"
    """It was gone and no exit status had been recorded."""


CALLED_OFF = (EndCause.REQUEST, EndCause.LOST)
"""How a run ends that we end. One that ended otherwise before it heard of that is judged as it is;
one that ends so although nobody asked was ended by others, most often by itself: an agent that
signals its parents would do so in every run, so it counts as the agent's error."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunLimits:
    """The bounds of one run. 0 means no limit.

    Attributes:
        wall_sec: longest duration, on the monotonic clock, from the true start.
        idle_sec: longest time without output, CPU use of the tree and file change in the workspace.
        memory_bytes: resident memory of the whole tree.
        kill_grace_sec: time between TERM and KILL.
        output_bytes: disk that each of stdout and stderr may take; head and tail are kept.
        noise_cores: share of a core that the agent uses while it waits; only more is a sign of
            life.
        processes: number of processes in the tree; more is a fork bomb and ends the run with cause
            MEMORY."""

    wall_sec: float = 0.0
    idle_sec: float = 0.0
    memory_bytes: int = 0
    kill_grace_sec: float = 10.0
    output_bytes: int = 64 * 1024 * 1024
    processes: int = 4096
    noise_cores: float = 0.005


@dataclasses.dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything the process host needs for one run.

    Attributes:
        run_id: unique for ever (`<loop id>-<iteration>-<role>`, and `-<attempt>` from the second
            on); the marker's value.
        argv: program and arguments; never through a shell.
        cwd: absolute path of the working directory.
        env: the complete environment; the host scrubs service variables and adds the marker.
        stdin_path: file that becomes stdin, or None for /dev/null.
        directory: absolute path of the run's own directory; the host writes `stdout.log`,
            `stderr.log`, `exit.json` and `identity.json` there.
        run_lock_path: the run lock's file, locked by the host and inherited by the run.
        watch_root: directory whose file changes count as activity, or None.
        limits: see RunLimits.
        walls: the fence around the agent, as `core.fence.walls` plans it; None: none.
        beside: (pid, start) of process 1 of its container: what hangs on it is the run's, too."""

    run_id: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    directory: str
    run_lock_path: str
    stdin_path: str | None = None
    watch_root: str | None = None
    limits: RunLimits = RunLimits()
    walls: Mapping[str, Any] | None = None
    beside: tuple[int, int] = (0, 0)


_KINDS: dict[str, tuple[type, ...]] = {
    "run_id": (str,),
    "boot_id": (str,),
    "started_at": (int, float),
    "started_monotonic": (int, float),
}


@dataclasses.dataclass(frozen=True, slots=True)
class RunIdentity:
    """Who a run's processes are, so that a later supervisor recognises them and nothing else.

    Start times are kernel ticks since boot (/proc/PID/stat field 22); with `boot_id` they do not
    move with the wall clock."""

    run_id: str
    boot_id: str
    recorder_pid: int
    recorder_start: int
    agent_pid: int
    agent_start: int
    started_at: float
    started_monotonic: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON value."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunIdentity:
        """Read `to_json`'s value. Raises KeyError or TypeError for anything else."""
        found = {field.name: data[field.name] for field in dataclasses.fields(cls)}
        for name, value in found.items():
            kinds = _KINDS.get(name, (int,))
            if type(value) not in kinds or (kinds != (str,) and not 0 <= value < 1e18):
                raise TypeError(f"{name} is none of ours")
        return cls(**found)


@dataclasses.dataclass(frozen=True, slots=True)
class RunSample:
    """One look of the monitor at a living run.

    Attributes:
        age_sec: since the true start.
        cpu_sec: CPU time of the tree so far (processes that ended in between included where they
            were seen).
        cpu_percent: of one core, since the last sample.
        memory_bytes: resident memory of the tree.
        processes: number of processes in the tree.
        last_output_at: wall time of the last growth of stdout or stderr; None before the first.
        idle_sec: since the last sign of life (output, CPU, file change).
        output_bytes: apparent size of stdout and stderr together.
        threads, io_bytes, open_files: of the tree, at most some ten seconds old; bytes are those
            read from and written to disks, 0 where the system does not tell."""

    age_sec: float
    cpu_sec: float
    cpu_percent: float
    memory_bytes: int
    processes: int
    last_output_at: float | None
    idle_sec: float
    output_bytes: int
    threads: int = 0
    io_bytes: int = 0
    open_files: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        exit_code: 0-255 when the agent exited; None when a signal ended it or nothing is known.
        signal: number of the signal that ended it, or None.
        cause: see EndCause.
        swept: number of left-over processes that had to be ended after the agent itself.
        left: what could not be ended, `pid (name)` each.
        troubles: what became of its files that nobody should have to guess, a line each.
        error: one line about a spawn error, else "".
        argv0_missing: True when the program itself was not found or cannot be executed (a
            configuration fault, not the agent's).
        was_there: True when that program could be started before.
        answered: its stream had said its final event before we signalled it."""

    run_id: str
    cause: EndCause
    exit_code: int | None
    signal: int | None
    started_at: float
    duration_sec: float
    cpu_sec: float = 0.0
    output_bytes: int = 0
    swept: int = 0
    error: str = ""
    argv0_missing: bool = False
    was_there: bool = False
    left: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()
    answered: bool = False

    @property
    def ok(self) -> bool:
        """True when the agent ended by itself with exit code 0."""
        return self.cause is EndCause.EXIT and self.exit_code == 0
