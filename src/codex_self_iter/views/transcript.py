"""An agent's events as people read them: messages, commands with exit codes, changes, errors.

Pure, and tolerant: what is not understood is shown as the text that it is. Every text that leaves
here is bounded and free of control characters. Which agent speaks is told by the events themselves,
so that an agent behind a command template or a wrapper script is read as well."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from codex_self_iter.agents.stream import Event, EventKind, Tool
from codex_self_iter.core.foreign import as_words, decode
from codex_self_iter.core.text import clean, clean_block

MAX_TEXT = 16 * 1024
MAX_COMMAND = 2000
MAX_CALL = 300
OUTPUT_LINES = 8
"""Last lines of a command's output that are shown."""
MAX_OPEN_COMMANDS = 64

Reader = Callable[[str, Mapping[str, Any]], list[Event]]
"""What one JSON event of this `type` says (see `CliAgent.events`)."""


class Item(NamedTuple):
    """One thing to show; `kind` is message, command, output, change, error, note or text (a line
    that is no event)."""

    kind: str
    text: str


class Transcript:
    """Reads one stream line by line; `finish` gives what is still held at its end."""

    def __init__(self, recognise: Callable[[str, Mapping[str, Any]], Reader | None]) -> None:
        """`recognise`: the reader of the agent to which an event belongs, None if any could have
        said it: then the reader stays who it was."""
        self._recognise = recognise
        self._reader: Reader | None = None
        self._open: list[str] = []
        self._pieces = ""

    @property
    def pending(self) -> bool:
        """Whether a message is coming in pieces, of which nothing was shown yet."""
        return bool(self._pieces)

    def feed(self, line: str) -> list[Item]:
        """What one line, without its line feed, has to show."""
        value = decode(line) if line.startswith("{") else None
        kind = value.get("type") if value else None
        if value and isinstance(kind, str):
            self._reader = self._recognise(kind, value) or self._reader
            if self._reader is not None:
                return self._shown(self._reader(kind, value))
        text = clean_block(line.rstrip("\r"), MAX_TEXT).replace("\n", " ")
        return [*self.finish(), Item("text", text)]

    def finish(self) -> list[Item]:
        """The message whose pieces were still coming."""
        pieces, self._pieces = self._pieces, ""
        return list(_message(pieces))

    def _shown(self, events: list[Event]) -> list[Item]:
        if [event.kind for event in events] == [EventKind.DELTA]:
            return self._piece(events[0].text)
        return [*self.finish(), *(item for event in events for item in self._items(event))]

    def _piece(self, text: str) -> list[Item]:
        """A message that comes in pieces is shown when it is whole, or long."""
        self._pieces += text[:MAX_TEXT]
        return self.finish() if len(self._pieces) > MAX_TEXT else []

    def _items(self, event: Event) -> Iterator[Item]:
        match event.kind:
            case EventKind.MESSAGE | EventKind.ASIDE:
                yield from _message(event.text)
            case EventKind.TOOL_STARTED | EventKind.TOOL_ENDED:
                yield from self._call(event)
            case EventKind.FAILED:
                yield Item("error", f"failed: {clean(event.text)}")
            case EventKind.NOTE | EventKind.RETRY if event.text:
                yield Item("error", clean(event.text))
            case EventKind.SESSION | EventKind.DONE if event.text:
                yield Item("note", clean(event.text))

    def _call(self, event: Event) -> Iterator[Item]:
        if event.text:
            if event.tool is Tool.COMMAND:
                yield from self._command(event)
            elif event.tool is Tool.EDIT:
                yield from (Item("change", clean(line)) for line in event.text.split("\n"))
            else:
                yield Item("note", clean(event.text, MAX_CALL))
        if event.error is not None:
            yield Item("error", _tail(event.error.message))
        elif event.output.strip():
            yield Item("output", _tail(event.output))
        if event.ended:
            yield Item("note", clean(f"exit {event.ended}"))

    def _command(self, event: Event) -> Iterator[Item]:
        """A command is announced at its start; its end does not repeat it."""
        text = _without_shell(event.text)
        if event.kind is EventKind.TOOL_ENDED and text in self._open:
            self._open.remove(text)
            return
        if event.kind is EventKind.TOOL_STARTED:
            self._open = [*self._open[-MAX_OPEN_COMMANDS:], text]
        yield Item("command", text)


def _message(text: str) -> Iterator[Item]:
    """A message; a control block in JSON is shown by its fields."""
    block = decode(text) or {}
    if {"summary", "next_goal", "execution_prompt"} & block.keys():
        rows = (
            f"{key}: {clean(as_words(value), 2000)}"
            for key, value in block.items()
            if value not in (None, "", [])
        )
        yield Item("message", "\n".join(rows))
    elif text.strip():
        yield Item("message", clean_block(text.strip(), MAX_TEXT))


def _tail(text: str) -> str:
    """The last lines of a command's output."""
    lines = clean_block(text[-MAX_TEXT:], MAX_TEXT).rstrip().split("\n")
    left_out = len(lines) - OUTPUT_LINES
    return "\n".join(([f"[{left_out} lines]"] if left_out > 0 else []) + lines[-OUTPUT_LINES:])


def _without_shell(text: str) -> str:
    """A command without the shell that codex wraps around it."""
    for shell in ("/bin/bash -lc ", "bash -lc ", "/bin/sh -c ", "/bin/zsh -lc "):
        if text.startswith(shell):
            text = text[len(shell) :]
            quote = text[0] if len(text) > 1 and text[0] == text[-1] else ""
            if quote == "'":
                text = text[1:-1]
            elif quote == '"':
                text = re.sub(r'\\(["\\$`])', r"\1", text[1:-1])
            break
    return clean(text, MAX_COMMAND)
