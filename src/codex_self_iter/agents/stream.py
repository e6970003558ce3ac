"""What agents say, in one vocabulary.

Each adapter turns a line of its CLI's stream into `Event`s. `fold` reduces any number of them to
`Parsed`, what the supervisor believes; `views.transcript` shows the same ones to people. All of it
is pure and takes whatever comes: cut, repeated, interleaved or foreign lines never raise, and an
answer is only ever a text that the stream itself gave as one."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Any

from codex_self_iter.core.agent_report import SEEN_CHARS, Usage
from codex_self_iter.core.foreign import as_number, as_words
from codex_self_iter.core.text import tokens

_MESSAGES = 8
"""So many of its last messages may hold the answer."""
_KEPT = 200
"""Refused tools, changed files and so on that a report carries at most."""


class EventKind(enum.StrEnum):
    """What an event tells."""

    SESSION = "session"
    TURN = "turn"
    """The model is at work."""
    MESSAGE = "message"
    """Text for people; the last one is the answer where the CLI has no better channel."""
    DELTA = "delta"
    """A piece of a message."""
    ASIDE = "aside"
    """Text for people that is no part of the answer: a sub-agent's, or the CLI's own."""
    THINKING = "thinking"
    ANSWER = "answer"
    """The CLI's own final-answer channel."""
    TOOL_STARTED = "tool_started"
    TOOL_ENDED = "tool_ended"
    CHANGED = "changed"
    REFUSED = "refused"
    RETRY = "retry"
    NOTE = "note"
    """A warning, or an error that does not end the run by itself."""
    TOKENS = "tokens"
    """Usage of one model call (`ident`); the last value for an ident counts, idents add up."""
    TOTAL = "total"
    """Usage of the whole run or thread."""
    SPENT = "spent"
    """Usage since the last such event, or since the start; they add up to the run's."""
    LIMIT = "limit"
    """Says when a limit ends; no failure by itself."""
    DONE = "done"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorFacts:
    """What the CLI says about an error: its own class name (`code`), the HTTP status (0: none), and
    the wall time at which a limit ends (exact values only; prose is read in `classify`)."""

    message: str = ""
    code: str = ""
    http_status: int = 0
    reset_at: float | None = None


class Tool(enum.StrEnum):
    """What a tool call does, as far as people are told."""

    COMMAND = "command"
    EDIT = "edit"
    OTHER = "other"


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One thing that an agent said.

    Attributes:
        text: for people, "" where they need not see it; of CHANGED the path, of REFUSED what was.
        ident: names a session, a tool call or a model call.
        tool: of a tool call; an EDIT's text has one line for each file.
        output: what a tool call printed.
        ended: how a tool call ended, in the CLI's words: its exit code, or a status.
        error: of a tool call, what it gave instead of its output."""

    kind: EventKind
    text: str = ""
    ident: str = ""
    model: str = ""
    tool: Tool = Tool.OTHER
    output: str = ""
    ended: str = ""
    ok: bool = True
    usage: Usage | None = None
    error: ErrorFacts | None = None


@dataclasses.dataclass(slots=True)
class Parsed:
    """What a whole stream says.

    Attributes:
        events: how many there were.
        message: the last whole message.
        messages: the last ones, in order.
        answer: the final-answer channel's text, or None where there was none.
        total: usage that the CLI gave for the run or thread.
        tokens: usage by model call, for runs that ended without a total.
        ended: a final event was seen.
        ok: the final event reported success.
        error: of the final event, or the last error seen.
        retry: the last retry after which nothing moved.
        open_tools: tool calls that had started and not ended.
        tools_ok: how many tool calls ended well.
        moved: the model did something (a message or a tool call).
        turn_open: the model was asked and the run had not ended.
        limit_ends: when the windows of a limit that are used up end, as told by the CLI.
        limit_told: these are the server's words of the refusal itself.
        note: the CLI's last remark that is no failure by itself.
        too_long: a line was longer than is read; it may have been the final event."""

    events: int = 0
    session_id: str = ""
    model: str = ""
    message: str = ""
    messages: list[str] = dataclasses.field(default_factory=list)
    answer: str | None = None
    total: Usage | None = None
    tokens: dict[str, Usage] = dataclasses.field(default_factory=dict)
    ended: bool = False
    ok: bool = False
    error: ErrorFacts | None = None
    retry: ErrorFacts | None = None
    open_tools: set[str] = dataclasses.field(default_factory=set)
    tools_ok: int = 0
    moved: bool = False
    turn_open: bool = False
    limit_ends: list[float] = dataclasses.field(default_factory=list)
    limit_told: bool = False
    note: str = ""
    too_long: bool = False
    refused: dict[str, None] = dataclasses.field(default_factory=dict)
    changed: dict[str, None] = dataclasses.field(default_factory=dict)
    pieces: list[str] = dataclasses.field(default_factory=list)

    def say(self, text: str) -> None:
        """Take a whole message, if there is anything in it."""
        if text:
            self.message, self.messages = text, [*self.messages[1 - _MESSAGES :], text]

    def join(self) -> None:
        """Take the pieces of a message as a whole one."""
        self.say("".join(self.pieces))
        self.pieces = []

    @property
    def usage(self) -> Usage | None:
        """The CLI's total, else the sum over the model calls seen, else None."""
        if self.total is not None or not self.tokens:
            return self.total
        return Usage.of(*self.tokens.values())


def fold(events: Iterable[Event]) -> Parsed:
    """Reduce a stream to what it says."""
    parsed = Parsed()
    for event in events:
        parsed.events += 1
        if event.kind is not EventKind.DELTA:
            parsed.join()
        if event.kind in _MOVES:
            parsed.moved, parsed.retry = True, None
        _take(parsed, event)
    parsed.join()
    return parsed


_MOVES = frozenset(map(EventKind, ("message", "delta", "thinking", "tool_started", "tool_ended")))
"""What only a model does that has answered."""


def _take(parsed: Parsed, event: Event) -> None:
    """Add one event. An aside says nothing that counts, and thinking only that something moved."""
    match event.kind:
        case EventKind.DELTA:
            parsed.pieces.append(event.text)
        case EventKind.MESSAGE:
            parsed.say(event.text)
        case EventKind.ANSWER:
            parsed.answer = event.text
        case EventKind.SESSION:
            parsed.session_id = event.ident or parsed.session_id
            parsed.model = event.model or parsed.model
        case EventKind.TURN:
            parsed.turn_open, parsed.ended, parsed.ok = True, False, False
        case EventKind.TOOL_STARTED:
            parsed.open_tools.add(event.ident)
        case EventKind.TOOL_ENDED:
            parsed.open_tools.discard(event.ident)
            parsed.tools_ok += event.ok
        case EventKind.CHANGED if event.text and len(parsed.changed) < _KEPT:
            parsed.changed[event.text] = None
        case EventKind.REFUSED if event.text and len(parsed.refused) < _KEPT:
            parsed.refused[event.text[:SEEN_CHARS]] = None
        case EventKind.RETRY:
            parsed.retry = event.error or ErrorFacts(event.text)
        case EventKind.NOTE:
            parsed.error = event.error or parsed.error
            parsed.note = event.error.message if event.error else parsed.note
        case EventKind.TOKENS if event.usage is not None:
            parsed.tokens[event.ident or f"#{len(parsed.tokens)}"] = event.usage
        case EventKind.TOTAL:
            parsed.total = event.usage or parsed.total
        case EventKind.SPENT if event.usage is not None:
            parsed.total = Usage.of(*filter(None, (parsed.total, event.usage)))
        case EventKind.LIMIT if event.error is not None and event.error.reset_at is not None:
            parsed.limit_ends = [event.error.reset_at]  # a later refusal is of another window
            parsed.limit_told = True
        case EventKind.DONE:
            parsed.ended, parsed.ok, parsed.turn_open = True, True, False
            parsed.retry = parsed.error = None
        case EventKind.FAILED:
            parsed.ended, parsed.ok, parsed.turn_open = True, False, False
            last, said = parsed.error or ErrorFacts(), event.error or ErrorFacts(event.text)
            # The final event often lacks what an earlier one told: the CLI's own code, the status.
            parsed.error = ErrorFacts(
                said.message or last.message,
                said.code or last.code,
                said.http_status or last.http_status,
                said.reset_at or last.reset_at,
            )


_PATHS = ("file_path", "filePath", "absolute_path", "path")
_EDITORS = ("write", "edit", "multiedit", "notebookedit", "replace", "write_file")


def tool_call(name: str, given: Mapping[str, Any]) -> tuple[Tool, str]:
    """What a call of a tool with these parameters is to people: its kind and its words."""
    command = given.get("command") or given.get("cmd")
    if isinstance(command, str):
        return Tool.COMMAND, command
    path = next((given[key] for key in _PATHS if given.get(key)), None)
    if isinstance(path, str) and name.lower() in _EDITORS:
        return Tool.EDIT, edited(name.lower(), path)
    return Tool.OTHER, f"{name} {as_words(path or dict(given))}"


def edited(how: str, path: str) -> str:
    """An edited file, on one line."""
    return f"{how} {path}".replace("\n", " ")


def spent(usage: Mapping[str, Any]) -> str:
    """The CLI's own token counts, for people; "" without any."""
    counts = usage.get("input_tokens"), usage.get("output_tokens")
    given, made = map(as_number, counts)
    return f"{tokens(given)} tokens in, {tokens(made)} out" if any(counts) else ""
