"""The state of one loop: frozen values that become plain JSON (`runtime.json`).

`LoopState` is everything that must survive. Nothing in it is derived from the outside world's
present (whether a STOP file exists, whether the disk is full): that is told by events after every
start. It is read back at the file border, in `world.state.codec`."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Mapping
from typing import Any

from codex_self_iter.core.agent_report import Failure, Usage
from codex_self_iter.core.control_block import ControlBlock
from codex_self_iter.core.evidence import GateResult
from codex_self_iter.core.owed import NOTHING, Owed
from codex_self_iter.core.runs import EndCause
from codex_self_iter.core.terms import Moment, Role, State, Verdict
from codex_self_iter.core.totals import NO_TOTALS, OUTAGE, Totals, until

SCHEMA = 1
"""Version of `runtime.json`; raised when a reader of the old form would misread the new one."""


class Step(enum.StrEnum):
    """Where an open iteration is."""

    RUN = "run"
    """An agent run is on, or about to start."""
    VERIFY = "verify"
    """The gates are running."""
    KEEP = "keep"
    """The result is being committed and kept as a checkpoint."""


class WaitKind(enum.StrEnum):
    """Why a loop, or an account, waits. `waits.STATES` says which state each kind is."""

    ERROR = "error"
    LIMIT = "limit"
    AUTH = "auth"
    """A person must act: log in, or change the configuration."""
    NO_CHANGE = "no_change"
    PLANNER_STOP = "planner_stop"
    CONTINUE_FALSE = "continue_false"


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """A wait with an end that survives a restart.

    Attributes:
        until: wall time of the end, for people and for after a reboot.
        length: seconds from its start; a restart never waits longer than this.
        up_until: the end on the boot-time clock of `boot_id`: exact while the machine is up,
            whatever the wall clock does."""

    kind: WaitKind
    until: float
    length: float
    reason: str
    up_until: float
    boot_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Counters:
    """Everything that is counted across iterations.

    Attributes:
        failures: failed iterations in a row, of any class: the exponent of the backoff.
        agent_errors: the same, agent faults only: compared with `max_consecutive_errors`.
        auth_errors: the same, of the classes in which a person must act.
        tries: the same for the other classes, by `bounds.key`.
        outage_sec: how long an outage has lasted: its runs and waits, so that no clock's jump and
            no suspend counts.
        missing_sec: the same, of an agent's program that was there before.
        no_change: iterations in a row without progress.
        confirmations: passing completion claims in a row.
        gate_repeats: identical gate failures in a row; gate_print: their fingerprint.
        aimless: iterations in a row without a tick, a claim or another result of a gate.
        cooldowns: planner stops or `continue=false` in a row without progress (`Best`)."""

    failures: int = 0
    agent_errors: int = 0
    auth_errors: int = 0
    no_change: int = 0
    confirmations: int = 0
    gate_repeats: int = 0
    gate_print: str = ""
    cooldowns: int = 0
    tries: dict[str, int] = dataclasses.field(default_factory=dict)
    outage_sec: float = 0.0
    missing_sec: float = 0.0
    aimless: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Best:
    """The best that was reached, with which progress is told from going back and forth.

    Attributes:
        ticks: items ticked less those unticked; peak: the most of that there was.
        gates: by mark of the command the least that was left to do (see `stagnation.left`).
        done: marks of the items that were ticked, the last `stagnation.DONE`: one that was taken
            out of the plan and added again is ticked once more, and no progress."""

    ticks: int = 0
    peak: int = 0
    gates: dict[str, int] = dataclasses.field(default_factory=dict)
    done: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Dropped:
    """What runs took out of the plan instead of ticking it.

    Attributes:
        items: texts of items that were open, and are not back.
        plan: `plan.content_hash` of the plan as the last run left it. Another one is a person's,
            who has seen what is in it."""

    items: tuple[str, ...] = ()
    plan: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One message from `inbox/`: its file's name, its text, and what tells this file from another
    one of its name ("": not known)."""

    name: str
    text: str
    mark: str = ""

    def same_file(self, other: Message) -> bool:
        """True when both were read from one file."""
        return self.name == other.name and (
            self.mark == other.mark or not (self.mark and other.mark)
        )


@dataclasses.dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that was started, or is about to be: persisted before the spawn."""

    run_id: str
    role: Role
    agent: str
    account: str
    attempt: int
    label: str
    """Name of its directory under `logs/runs/`."""
    started_at: float
    session_id: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """A finished run of the open iteration, for the journal."""

    run_id: str
    role: Role
    agent: str
    label: str
    exit_code: int | None
    signal: int | None
    cause: EndCause
    duration_sec: float
    model: str = ""
    resumed: bool = False
    started_at: float = 0.0
    """0.0: not known, as in what an older version wrote."""
    usage: Usage | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class PlannerAnswer:
    """What the planner wants done, or that there is nothing to do (`stop`)."""

    objective: str
    execution_prompt: str
    done_if: str
    rationale: str
    stop: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Review:
    """What the reviewer found. `confidence` is whatever it wrote."""

    next_focus: str
    reason: str
    confidence: bool | int | float | str | None
    go_on: bool = dataclasses.field(metadata={"json": "continue"})


@dataclasses.dataclass(frozen=True, slots=True)
class GoalNote:
    """A person set a goal; for the next journal line."""

    kind: str
    at: float
    goal: str


@dataclasses.dataclass(frozen=True, slots=True)
class EditNote:
    """A person edited plan or task; for the next journal line."""

    kind: str
    at: float
    added: int
    removed: int


Note = GoalNote | EditNote


@dataclasses.dataclass(frozen=True, slots=True)
class Iteration:
    """The open iteration: what goes on at its step, not at its start, after a crash."""

    number: int
    goal: str
    started_at: float
    step: Step = Step.RUN
    run: OpenRun | None = None
    ended: tuple[Ended, ...] = ()
    messages: tuple[Message, ...] = ()
    events: tuple[Note, ...] = ()
    head_before: str = ""
    warned: bool = False
    planner: PlannerAnswer | None = None
    block: ControlBlock | None = None
    claim: bool = False
    reviewer: Review | None = None
    gates: tuple[GateResult, ...] = ()
    gates_ran: bool = False
    gate_flaw: str = ""
    changed: bool | None = None
    changed_files: tuple[str, ...] = ()
    head_after: str = ""
    change_note: str = ""
    plan_open: int = 0
    plan_total: int = 0
    ticked: int = 0
    """Items ticked by its runs, less those unticked."""
    ticked_marks: tuple[str, ...] = ()
    """Marks (`marks.mark`) of what `plan.newly_ticked` says of its runs."""
    usage: Usage | None = None
    refused: tuple[str, ...] = ()
    commit: str = ""
    checkpoint: str = ""
    keep_error: str = ""
    failure: Failure | None = None
    failure_verdict: Verdict = Verdict.OPEN
    orphaned: bool = False
    """The run ended with the supervisor that had started it: nobody's fault, no reason to wait."""
    boot_id: str = ""
    up: float = 0.0
    """Of the `Moment` at which it was started."""

    def lasted(self, at: Moment) -> float:
        """Seconds from its start to this moment; after a reboot by the wall clock."""
        same = self.boot_id == at.boot_id
        return round(max(0.0, at.up - self.up if same else at.wall - self.started_at), 3)

    @property
    def done_marks(self) -> tuple[str, ...]:
        """Marks of what its runs have ticked, without what was taken back."""
        refused = {name for gate in self.gates for name in gate.refused}
        return tuple(name for name in self.ticked_marks if name not in refused)

    @property
    def aim(self) -> str:
        """What is being done: the planner's objective where there is one, else the goal."""
        return (self.planner.objective if self.planner else "") or self.goal


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """A thread that may be resumed, and what it has used so far (cumulative)."""

    session_id: str
    turns: int
    started_at: float
    tokens: int
    thread_usage: Usage | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Spent:
    """What the loop has used: in all, and on the UTC day `day` (days since 1970)."""

    tokens: int = 0
    cost_usd: float = 0.0
    hours: float = 0.0
    day: int = 0
    day_tokens: int = 0
    day_cost_usd: float = 0.0
    day_hours: float = 0.0
    noticed: tuple[str, ...] = ()
    """Bounds whose notice was already given."""
    unpriced_tokens: int = 0
    """Those of the tokens whose cost is not known."""


class StopSource(enum.StrEnum):
    """Who asks a loop to end after its iteration; each takes back only what it asked for."""

    FILE = "file"
    SIGNAL = "signal"
    CONFIG = "config"


class EndingKind(enum.StrEnum):
    """Why a person ends what is running."""

    STOP = "stop"
    STEER = "steer"
    PAUSE = "pause"


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """What is to happen once the running run, or the open iteration, has ended."""

    kind: EndingKind
    reason: str
    exit_code: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Last:
    """The last iteration that was closed, as `status.json` shows it."""

    iteration: int
    verdict: Verdict
    summary: str
    duration_sec: float
    ended_at: float
    tokens: int | None
    cost_usd: float | None
    failure_class: str = ""
    unproven: str = ""
    """What stood against believing that the work is done, where that was asked; else ""."""


@dataclasses.dataclass(frozen=True, slots=True)
class LoopState:
    """Everything about a loop that must survive.

    Attributes:
        iteration: the last number given out; numbers go on for ever.
        goal: what the next iteration is to do ("" = start from the plan).
        state, since, reason: as in `status.json`.
        open: the iteration in progress, or None between iterations.
        preparing: True while the inputs of the next run are being read.
        stops: who asks it to stop once the open iteration has ended.
        ending: what to do when the run that is being ended has ended.
        paused: a PAUSE file is there; paused_up: boot-time clock at which the pause began.
        blocked_by: a condition that forbids new runs now (disk, storage, plan, hook…), by name.
        carried: messages whose run did no work; they go into the next prompt.
        feedback: what failed last time, for the next prompt.
        goals: marks of the goals (see `marks.mark`), oldest first.
        goal_set: a goal that a person set; it replaces the `next_goal` of the open iteration.
        limits: account -> the wait until it may be used again: of kind LIMIT, or AUTH or ERROR
            when its agent stands aside because it fails.
        best, dropped: see Best, Dropped.
        gate_baseline: fingerprints of the gate files as the person left them; gate_seen: at the
            last look, before or after a run.
        gates: the verification commands at the last start or reload; None: not known.
        run_iterations: iterations begun since this supervisor started, and the one that it went on
            with.
        owed: what the loop has changed and not committed, in short (`git.commit = "supervisor"`).
        noted: how many notes its iterations have left; unkept: those that only the journal is sure
            to have.
        at_start: by gate, whether it succeeded before the loop's first run (`verify.at_start`).
        totals: what was done in all, for series."""

    loop_id: str
    iteration: int = 0
    goal: str = ""
    state: State = State.STARTING
    since: float = 0.0
    reason: str = ""
    counters: Counters = Counters()
    wait: Wait | None = None
    open: Iteration | None = None
    preparing: bool = False
    stops: dict[str, Ending] = dataclasses.field(default_factory=dict)
    ending: Ending | None = None
    paused: bool = False
    blocked_by: dict[str, str] = dataclasses.field(default_factory=dict)
    paused_up: float = 0.0
    goal_set: str = ""
    carried: tuple[Message, ...] = ()
    events: tuple[Note, ...] = ()
    feedback: str = ""
    goals: tuple[str, ...] = ()
    warned: bool = False
    limits: dict[str, Wait] = dataclasses.field(default_factory=dict)
    sessions: dict[str, Session] = dataclasses.field(default_factory=dict)
    spent: Spent = Spent()
    gate_baseline: dict[str, str] | None = None
    gate_seen: dict[str, str] | None = None
    gates: tuple[str, ...] | None = None
    run_iterations: int = 0
    owed: Owed = NOTHING
    best: Best = Best()
    dropped: Dropped = Dropped()
    last: Last | None = None
    noted: int = 0
    unkept: tuple[str, ...] = ()
    at_start: dict[str, bool] = dataclasses.field(default_factory=dict)
    exit_code: int | None = None
    totals: Totals = NO_TOTALS

    def totals_at(self, at: Moment) -> Totals:
        """The totals at this moment, with the time in this state."""
        return until(self.totals, self.kept_as, at)

    @property
    def kept_as(self) -> str:
        """What time in this state is counted as."""
        waits = self.state is State.BACKOFF and self.counters.outage_sec > 0
        return OUTAGE if waits else self.state.value

    @property
    def after_iteration(self) -> Ending | None:
        """The request to stop once the open iteration has ended: the first of them."""
        return next(iter(self.stops.values()), None)

    @property
    def finished(self) -> bool:
        """True once the loop has ended (an exit code was decided)."""
        return self.exit_code is not None


def to_json(state: LoopState) -> dict[str, Any]:
    """The plain JSON value of a state, with its schema version."""
    return {"schema": SCHEMA, **plain(state)}


def plain(value: Any) -> Any:
    """What `dataclasses.asdict` gives, without its copies of what cannot change."""
    if isinstance(value, _AS_IT_IS):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return {key: plain(getattr(value, name)) for name, key in _keys(value.__class__)}


_AS_IT_IS = (str, int, float, type(None))


@functools.cache
def _keys(kind: Any) -> tuple[tuple[str, str], ...]:
    """Name and key in JSON of every field."""
    fields = dataclasses.fields(kind)
    return tuple((field.name, field.metadata.get("json", field.name)) for field in fields)
