"""What an adapter read from a finished run: its answer, what it cost, why it failed."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

from codex_self_iter.core.runs import RunOutcome
from codex_self_iter.core.text import one_line

SEEN_CHARS = 16 * 1024
"""Adapters bound what a program said at this; `shown` cuts it, once secrets are taken out."""
_SHOWN_CHARS = 500


class FailureClass(enum.StrEnum):
    """Why a run failed; each class has its own policy (the table is in `verdict`)."""

    AGENT = "agent"
    """The agent's own fault: crash, non-zero exit, no valid control block, time-out at work."""
    LIMIT = "limit"
    """A usage or rate limit; `Failure.reset_at` is its end where known."""
    OVERLOAD = "overload"
    NETWORK = "network"
    BILLING = "billing"
    """Credit, a plan or a spend cap is used up, or the account is closed: no waiting mends it."""
    AUTH = "auth"
    CONFIG = "config"
    """Not installed, unknown model, bad flag, not a git repository…: a person must act."""
    MISSING = "missing"
    """Its program could be started before and cannot now: an update replaces it, most often."""
    SANDBOX = "sandbox"
    CONTEXT = "context"
    """The conversation no longer fits the model: the next run starts a fresh session."""
    KILLED = "killed"
    """Ended by us or by a person, not by the agent."""
    MEMORY = "memory"


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and money of one run; `input_tokens` includes `cached_input_tokens`."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    """None: unknown."""

    @classmethod
    def of(cls, *parts: Usage) -> Usage:
        """The sum; its cost is that of the parts whose cost is known."""
        costs = [part.cost_usd for part in parts if part.cost_usd is not None]
        return cls(
            sum(part.input_tokens for part in parts),
            sum(part.cached_input_tokens for part in parts),
            sum(part.output_tokens for part in parts),
            sum(costs) if costs else None,
        )

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
        message: one line for people and for the next prompt; at most SEEN_CHARS characters.
        reset_at: wall time at which a limit ends, if the agent said so.
        account: names the account a limit belongs to; loops with the same account wait together.
        guessed: the class was read from free text alone: a guess until a second run confirms it.
        mend: what a person can do about it, or "".
        idle: it ended by itself, and nothing that it said is a sign of work (a message, a tool
            call): a file that such a run changed is a log or a history of its program."""

    kind: FailureClass
    message: str
    reset_at: float | None = None
    account: str = ""
    guessed: bool = False
    mend: str = ""
    idle: bool = False


def not_started(outcome: RunOutcome) -> Failure:
    """The failure of a run whose program could not be started."""
    kind = FailureClass.CONFIG if outcome.argv0_missing else FailureClass.AGENT
    if outcome.argv0_missing and outcome.was_there:
        kind = FailureClass.MISSING
    return Failure(kind, f"could not be started: {outcome.error or 'unknown reason'}")


@dataclasses.dataclass(frozen=True, slots=True)
class AgentReport:
    """What an adapter read from a finished run's files.

    Attributes:
        answer: the final message, verbatim (bounded to its last 256 KiB); "" if there was none.
        said: the last of its messages together, the answer at their end (bounded as it is), where
            there were several; "" otherwise.
        cut: how many bytes of the answer are here, at its end, if it was longer; 0: all of them.
        usage: of this run alone, or None if unknown.
        thread_usage: cumulative totals of the thread as the CLI reports them (codex), or None.
        session_id: thread to resume, or "".
        failure: None when the run did what it should.
        model: as reported, or "".
        refused: tools or commands that the agent was not allowed to use.
        answered: the stream had said its final event, with success: the answer counts, whatever
            became of the process.
        note: one line about an end that does not fit the answer, else ""."""

    answer: str
    usage: Usage | None = None
    thread_usage: Usage | None = None
    session_id: str = ""
    failure: Failure | None = None
    model: str = ""
    refused: tuple[str, ...] = ()
    answered: bool = False
    note: str = ""
    said: str = ""
    cut: int = 0

    def shown(self, redact: Callable[[str], str]) -> AgentReport:
        """The report as it is kept: what programs said without secrets, then short. The other way
        round, half a secret would stay."""

        def shown(text: str) -> str:
            return one_line(redact(text), _SHOWN_CHARS)

        failure = self.failure
        if failure is not None:
            failure = dataclasses.replace(failure, message=shown(failure.message))
        refused = tuple(dict.fromkeys(map(shown, self.refused)))
        return dataclasses.replace(self, failure=failure, refused=refused)
