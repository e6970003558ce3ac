"""The words that everything else is said in: states, roles, verdicts, and when something was."""

from __future__ import annotations

import dataclasses
import enum


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
