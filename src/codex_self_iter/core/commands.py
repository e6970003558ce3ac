"""What to do: the outputs of `decide`, executed by the supervisor in order.

`Persist`, `Journal` and `KeepNotes` are durable when they return; what follows them may rely on it. A command
that cannot be carried out (disk full) blocks those behind it until it can."""

from __future__ import annotations

import dataclasses
from typing import Any

from codex_self_iter.core.state import Message, OpenRun, Wait
from codex_self_iter.core.terms import State


@dataclasses.dataclass(frozen=True, slots=True)
class Persist:
    """Write the state that `decide` returned to `runtime.json`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Journal:
    """Append one line to the journal."""

    record: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class KeepNotes:
    """Add what an iteration noted to the loop's notes; durable when it returns. What is there
    already is not added again."""

    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Prepare:
    """Read the inputs of the next run (plan, task, inbox, work tree); answer with `Prepared`."""


@dataclasses.dataclass(frozen=True, slots=True)
class TakeMessages:
    """Move these messages from the inbox to `inbox/done/`; another file of the name stays."""

    iteration: int
    messages: tuple[Message, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class StartRun:
    """Build the prompt and start the agent; answer with `RunEnded`."""

    run: OpenRun


@dataclasses.dataclass(frozen=True, slots=True)
class SteerRun:
    """Give the running turn these messages of the inbox; answer with `Steered`, or with a `Steer`
    that was refused. One that is under way is not begun again."""

    run_id: str
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Abort:
    """End what is running (run or gates); its end is reported as usual."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class RunGates:
    """Run the verification commands; answer with `GatesEnded`."""

    iteration: int


@dataclasses.dataclass(frozen=True, slots=True)
class Keep:
    """Commit what the iteration changed and keep a checkpoint; answer with `Kept`."""

    iteration: int
    commit: bool
    checkpoint: bool


@dataclasses.dataclass(frozen=True, slots=True)
class ShareLimit:
    """Tell the other loops of this supervisor that an account is limited."""

    account: str
    wait: Wait


@dataclasses.dataclass(frozen=True, slots=True)
class Notify:
    """Tell the person (log, `[notify]`). `cause`: the same for loops that one thing holds up, ""
    where it is the loop's own."""

    event: str
    text: str
    cause: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Log:
    """Write a log event with fields."""

    event: str
    fields: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Exit:
    """The loop has ended: write the report and leave."""

    code: int
    state: State
    reason: str


Command = (
    Persist
    | Journal
    | KeepNotes
    | Prepare
    | TakeMessages
    | StartRun
    | SteerRun
    | Abort
    | RunGates
    | Keep
    | ShareLimit
    | Notify
    | Log
    | Exit
)
