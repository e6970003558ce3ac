"""The values that cross borders: what a run is, how it ended, what the agent said, what changed.

Everything here is a frozen dataclass or an enum of plain values. Durations are seconds (float),
sizes are bytes (int), points in time are Unix seconds of the wall clock (float) unless a name says
otherwise."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any


class State(enum.StrEnum):
    """The states of `status.json` (contract, §5.9)."""

    STARTING = "starting"
    RUNNING = "running"
    VERIFYING = "verifying"
    BACKOFF = "backoff"
    COOLDOWN = "cooldown"
    LIMITED = "limited"
    PAUSED = "paused"
    STOPPING = "stopping"
    COMPLETED = "completed"
    STOPPED = "stopped"
    STAGNATED = "stagnated"
    BLOCKED = "blocked"
    CRASHED = "crashed"


class Role(enum.StrEnum):
    """What an agent run is for. In `goal` mode every run is an executor's."""

    PLANNER = "planner"
    EXECUTOR = "executor"
    REVIEWER = "reviewer"


class Mode(enum.StrEnum):
    """What one iteration consists of."""

    GOAL = "goal"
    """One executor's run."""
    ROLES = "roles"
    """A planner's, an executor's and a reviewer's run."""


class Verdict(enum.StrEnum):
    """What the supervisor decided about an iteration."""

    OPEN = ""
    """Nothing yet."""
    CONTINUE = "continue"
    NO_CHANGE = "no_change"
    COMPLETED = "completed"
    CLAIM_REJECTED = "claim_rejected"
    AWAITING_CONFIRMATION = "awaiting_confirmation"
    STOP = "stop"
    PLANNER_STOP = "planner_stop"
    CONTINUE_FALSE = "continue_false"
    ERROR = "error"
    TIMED_OUT = "timed_out"
    LIMITED = "limited"
    ABORTED = "aborted"
    INTERRUPTED = "interrupted"


class FailureClass(enum.StrEnum):
    """Why a run failed; each class has its own policy (the table is in `verdict`)."""

    AGENT = "agent"
    """The agent's own fault: crash, non-zero exit, no or invalid control block, time-out at work."""
    LIMIT = "limit"
    """A usage or rate limit; `Failure.reset_at` is its end where known."""
    OVERLOAD = "overload"
    NETWORK = "network"
    AUTH = "auth"
    CONFIG = "config"
    """Not installed, unknown model, bad flag, not a git repository…: a person must act."""
    SANDBOX = "sandbox"
    CONTEXT = "context"
    """The conversation no longer fits the model: the next run starts a fresh session."""
    KILLED = "killed"
    """Ended by us or by a person, not by the agent."""
    MEMORY = "memory"


class EndCause(enum.StrEnum):
    """What ended a run, as the process host saw it."""

    EXIT = "exit"
    """The agent ended by itself (any exit code or signal that we did not send)."""
    WALL_TIMEOUT = "wall_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    MEMORY = "memory"
    REQUEST = "request"
    """We ended it: STOP, pause --now, steer --now, shutdown."""
    SPAWN_FAILED = "spawn_failed"
    LOST = "lost"
    """It was gone and no exit status had been recorded."""


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """When something happened.

    Attributes:
        wall: Unix seconds, may jump; up: boot-time clock (seconds since boot, goes on in suspend);
        boot_id: which boot `up` belongs to; u: a random number in [0, 1) for jitter."""

    wall: float
    up: float
    boot_id: str
    u: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class RunLimits:
    """The bounds of one run. 0 means no limit.

    Attributes:
        wall_sec: longest duration, on the monotonic clock, from the true start.
        idle_sec: longest time without output, CPU use of the tree and file change in the workspace.
        memory_bytes: resident memory of the whole tree.
        kill_grace_sec: time between TERM and KILL.
        output_bytes: disk that each of stdout and stderr may take; head and tail are kept.
        processes: number of processes in the tree; more is a fork bomb and ends the run with cause
            MEMORY."""

    wall_sec: float = 0.0
    idle_sec: float = 0.0
    memory_bytes: int = 0
    kill_grace_sec: float = 10.0
    output_bytes: int = 64 * 1024 * 1024
    processes: int = 4096


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
        limits: see RunLimits."""

    run_id: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    directory: str
    run_lock_path: str
    stdin_path: str | None = None
    watch_root: str | None = None
    limits: RunLimits = RunLimits()


@dataclasses.dataclass(frozen=True, slots=True)
class RunIdentity:
    """Who a run's processes are, so that a later supervisor recognises them and nothing else.

    Start times are kernel ticks since boot (/proc/PID/stat field 22); with `boot_id` they do not
    move with the wall clock. `pidfd_inode` is 0 where the kernel has no pidfs (before 6.9)."""

    run_id: str
    boot_id: str
    recorder_pid: int
    recorder_start: int
    agent_pid: int
    agent_start: int
    pidfd_inode: int
    started_at: float
    started_monotonic: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON value."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunIdentity:
        """Read `to_json`'s value. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(**{field.name: data[field.name] for field in dataclasses.fields(cls)})


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
        error: one line about a spawn error, else "".
        argv0_missing: True when the program itself was not found (a configuration fault, not the
            agent's)."""

    run_id: str
    cause: EndCause
    exit_code: int | None
    signal: int | None
    started_at: float
    duration_sec: float
    cpu_sec: float = 0.0
    max_memory_bytes: int = 0
    output_bytes: int = 0
    swept: int = 0
    error: str = ""
    argv0_missing: bool = False

    @property
    def ok(self) -> bool:
        """True when the agent ended by itself with exit code 0."""
        return self.cause is EndCause.EXIT and self.exit_code == 0


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and money of one run; `input_tokens` includes `cached_input_tokens`."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    """None: unknown."""

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def to_json(self) -> dict[str, Any]:
        """Plain JSON value."""
        return dataclasses.asdict(self) | {"total_tokens": self.total_tokens}


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed, as the adapter read it.

    Attributes:
        kind: the class that chooses the policy.
        message: one line for people and for the next prompt; at most 500 characters.
        reset_at: wall time at which a limit ends, if the agent said so.
        account: names the account a limit belongs to; loops with the same account wait together."""

    kind: FailureClass
    message: str
    reset_at: float | None = None
    account: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class AgentReport:
    """What an adapter read from a finished run's files.

    Attributes:
        answer: the final message, verbatim (bounded to its last 256 KiB); "" if there was none.
        structured: True when `answer` came from the CLI's own final-message channel, so that no
            other output can be mistaken for it.
        usage: of this run alone, or None if unknown.
        thread_usage: cumulative totals of the thread as the CLI reports them (codex), or None.
        session_id: thread to resume, or "".
        failure: None when the run did what it should.
        model: as reported, or "".
        refused: tools or commands that the agent was not allowed to use.
        changed_files: paths that the agent itself says it changed."""

    answer: str
    structured: bool
    usage: Usage | None = None
    thread_usage: Usage | None = None
    session_id: str = ""
    failure: Failure | None = None
    model: str = ""
    refused: tuple[str, ...] = ()
    changed_files: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class GateResult:
    """One verification command's end. `output` is head and tail, bounded, ready for a prompt."""

    command: str
    exit_code: int | None
    duration_sec: float
    output: str
    timed_out: bool = False
    flaw: str = ""
    """Why it could not run at all ("command not found"), else ""."""

    @property
    def ok(self) -> bool:
        """True when the command exited 0 in time."""
        return self.exit_code == 0 and not self.timed_out and not self.flaw

    def to_json(self) -> dict[str, Any]:
        """Plain JSON value."""
        return dataclasses.asdict(self) | {"ok": self.ok}


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """The content of a work tree, reduced to what tells progress.

    Attributes:
        head: commit id, or "" (unborn branch or no git).
        branch: name, or "" when detached or without git.
        entries: path -> content fingerprint of every tracked file that differs from HEAD and every
            untracked file that is not ignored ("" fingerprint: deleted).
        complete: False when a bound was hit or git did not answer: equality then proves nothing.
        note: why it is incomplete, or a state worth knowing ("merge in progress", "index.lock left
            behind")."""

    head: str
    branch: str
    entries: Mapping[str, str]
    complete: bool = True
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON value."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Snapshot:
        """Read `to_json`'s value. Raises KeyError or TypeError for anything else."""
        return cls(**{field.name: data[field.name] for field in dataclasses.fields(cls)})
