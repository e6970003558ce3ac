"""What happened: the inputs of `decide`. Frozen values; the time comes apart, as a `Moment`."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from codex_self_iter.core.agent_report import AgentReport
from codex_self_iter.core.evidence import GateResult
from codex_self_iter.core.owed import Owed
from codex_self_iter.core.runs import RunOutcome
from codex_self_iter.core.state import Dropped, Message, StopSource, Wait


class Trace(enum.StrEnum):
    """What is left of the open run, if there is one, when a supervisor starts."""

    NONE = "none"
    """It never started."""
    ADOPTED = "adopted"
    """It goes on, or has ended by itself: its end will be reported."""
    GONE = "gone"
    """It was ended, or vanished without a record."""


class Hold(enum.StrEnum):
    """A condition that forbids new runs."""

    PLAN = "plan"
    DISK = "disk"
    STORAGE = "storage"
    START = "start"
    """The last run could not be started."""
    HOOK = "hook"
    """`[hooks] before_iteration` has failed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Boot:
    """The supervisor has started and looked for what the last one left.

    `dropped`: what a run that is gone had taken out of the plan; None: nothing is known. `heard`: the
    last heartbeat of the one before, in Unix seconds; 0.0: not known."""

    trace: Trace = Trace.NONE
    paused: bool = False
    dropped: Dropped | None = None
    heard: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; a wait may be over."""


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """The inputs of the next run were read. `gate_files` maps path to fingerprint.

    `owed`, here and below: what is not committed by now; None: nobody looked."""

    messages: tuple[Message, ...] = ()
    head: str = ""
    gate_files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    owed: Owed | None = None
    at_start: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    """By gate, whether it succeeded before the first run of this start."""


@dataclasses.dataclass(frozen=True, slots=True)
class GateFiles:
    """What the gate files are now that a run, which had to wait for its place, is about to start."""

    gate_files: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class GateFilesTaken:
    """A person takes these gate files as they are now, whoever has changed them."""

    gate_files: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class RunEnded:
    """A run has ended and nothing of it is left.

    `prompt` is what was sent, so that echoes can be told; `gate_files` None: nobody looked (it
    never started).
    `ticked`: items of the plan that it ticked, less those that it unticked; `ticked_marks`: what
    tells them from others (see `Iteration`); `dropped`: None: nobody looked; `plan_checks`: an item
    of the plan has a check, and such are run.
    `not_started`: its files could not be written, so nothing was run; the same iteration tries
    again later."""

    run_id: str
    outcome: RunOutcome
    report: AgentReport
    prompt: str = ""
    changed: bool | None = None
    changed_files: tuple[str, ...] = ()
    head: str = ""
    change_note: str = ""
    gate_files: Mapping[str, str] | None = None
    plan_open: int = 0
    plan_total: int = 0
    ticked: int = 0
    ticked_marks: tuple[str, ...] = ()
    dropped: Dropped | None = None
    plan_checks: bool = False
    not_started: bool = False
    owed: Owed | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class GatesEnded:
    """The verification commands have ended. `aborted`: we ended them; they will run again."""

    results: tuple[GateResult, ...]
    aborted: bool = False
    owed: Owed | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """The iteration's result was committed and kept as a checkpoint (ids may be "")."""

    commit: str = ""
    checkpoint: str = ""
    head: str = ""
    error: str = ""
    owed: Owed | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """Somebody wants the loop to end: now, or after the open iteration."""

    reason: str
    after_iteration: bool = False
    exit_code: int = 0
    source: StopSource = StopSource.FILE


@dataclasses.dataclass(frozen=True, slots=True)
class Unstop:
    """The request to stop after the iteration was taken back by who had made it."""

    source: StopSource = StopSource.FILE


@dataclasses.dataclass(frozen=True, slots=True)
class Pause:
    """Start no new iteration; with `now`, end the running run as well."""

    reason: str
    now: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Resume:
    """Go on after a pause."""


@dataclasses.dataclass(frozen=True, slots=True)
class Steer:
    """A message has arrived in the inbox; with `now`, the running run is given it, or ended for it.

    `names`: the messages that are in such a hurry. A run that was given them already is not ended;
    `refused`: the running turn did not take them.
    """

    now: bool = False
    names: tuple[str, ...] = ()
    refused: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Steered:
    """The running turn of a run has taken these messages."""

    run_id: str
    messages: tuple[Message, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class GoalSet:
    """A person replaced the goal. `names`: the inbox files that said so, put aside later."""

    goal: str
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Edited:
    """Plan or task changed. `ticks_only`: checkboxes alone; `in_run`: while an agent worked."""

    what: str
    added: int
    removed: int
    ticks_only: bool = False
    in_run: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A condition forbids new runs."""

    name: Hold
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Unblock:
    """The condition is over."""

    name: Hold


@dataclasses.dataclass(frozen=True, slots=True)
class LimitSeen:
    """Another loop found an account to be limited."""

    account: str
    wait: Wait


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyChanged:
    """The configuration was reloaded; the new policy is already in force."""


Event = (
    Boot
    | Tick
    | Prepared
    | GateFiles
    | GateFilesTaken
    | RunEnded
    | GatesEnded
    | Kept
    | Stop
    | Unstop
    | Pause
    | Resume
    | Steer
    | Steered
    | GoalSet
    | Edited
    | Block
    | Unblock
    | LimitSeen
    | PolicyChanged
)
