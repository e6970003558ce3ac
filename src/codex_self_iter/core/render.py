"""An agent's output as people read it: event lines -> messages, commands with exit codes, changes,
errors.

Pure, standard library only, and tolerant: what is not understood is shown as the text that it is.
Every text that leaves here is bounded and free of control characters. The events themselves tell
which agent speaks, so that an agent behind a command template or a wrapper script is read as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from codex_self_iter.core.text import clean, clean_block, money, tokens

MAX_TEXT = 16 * 1024
MAX_COMMAND = 2000
OUTPUT_LINES = 8
"""Last lines of a command's output that are shown."""
MAX_OPEN_COMMANDS = 64
_ENDED = "ended"
"""Kind of a command's end, which shows the command only if its start was not seen."""

Event = Mapping[str, Any]


class Item(NamedTuple):
    """One thing to show. `kind`: message, command, output, change, error, note or text (a plain
    line).
    """

    kind: str
    text: str


# -- small readers of untrusted values -------------------------------------------------------------


def _dict(value: object) -> Event:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return (
        value
        if isinstance(value, str)
        else ""
        if value is None
        else json.dumps(value, ensure_ascii=False)
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0


def _tail(text: str) -> str:
    """The last lines of a command's output."""
    lines = clean_block(text[-MAX_TEXT:], MAX_TEXT).rstrip().split("\n")
    left_out = len(lines) - OUTPUT_LINES
    return "\n".join(([f"[{left_out} lines]"] if left_out > 0 else []) + lines[-OUTPUT_LINES:])


def _command(text: str) -> str:
    """A command without the shell that codex wraps around it."""
    for shell in ("/bin/bash -lc ", "bash -lc ", "/bin/sh -c ", "/bin/zsh -lc "):
        if text.startswith(shell):
            inner = text[len(shell) :]
            quoted = len(inner) > 1 and inner[0] == inner[-1] and inner[0] in "'\""
            text = inner[1:-1] if quoted else inner
            break
    return clean(text, MAX_COMMAND)


def _message(text: str) -> Iterator[Item]:
    """A message; a control block in JSON is shown by its fields."""
    block = _parse(text) if text.lstrip().startswith("{") else {}
    if not {"summary", "next_goal", "execution_prompt"} & block.keys():
        if text.strip():
            yield Item("message", clean_block(text.strip(), MAX_TEXT))
        return
    rows = (
        f"{key}: {clean(_text(value), 2000)}"
        for key, value in block.items()
        if value not in (None, "", [])
    )
    yield Item("message", "\n".join(rows))


def _output(text: str) -> Iterator[Item]:
    if text.strip():
        yield Item("output", _tail(text))


def _spent(usage: Event) -> str:
    counts = (usage.get("input_tokens"), usage.get("output_tokens"))
    return (
        f"{tokens(_number(counts[0]))} tokens in, {tokens(_number(counts[1]))} out"
        if any(counts)
        else ""
    )


def _parse(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


# -- one reader for each kind of agent -------------------------------------------------------------


def _codex(event: Event) -> Iterator[Item]:
    kind = event.get("type")
    if kind in ("item.started", "item.updated", "item.completed"):
        yield from _codex_item(_dict(event.get("item")), done=kind == "item.completed")
    elif kind == "error":
        yield Item("error", clean(_text(event.get("message"))))
    elif kind == "turn.failed":
        yield Item("error", "failed: " + clean(_text(_dict(event.get("error")).get("message"))))
    elif kind == "turn.completed":
        yield Item("note", f"done, thread total {_spent(_dict(event.get('usage')))}")
    elif kind == "thread.started":
        yield Item("note", f"thread {clean(_text(event.get('thread_id')))}")


def _codex_item(item: Event, *, done: bool) -> Iterator[Item]:
    kind = item.get("type")
    if kind == "command_execution":
        yield Item(_ENDED if done else "command", _command(_text(item.get("command"))))
        if done:
            yield from _output(_text(item.get("aggregated_output")))
            yield Item("note", f"exit {_text(item.get('exit_code')) or _text(item.get('status'))}")
    elif not done:
        return
    elif kind == "agent_message":
        yield from _message(_text(item.get("text")))
    elif kind == "file_change":
        for change in map(_dict, _list(item.get("changes"))):
            yield Item(
                "change", f"{clean(_text(change.get('kind')))} {clean(_text(change.get('path')))}"
            )
    elif kind == "web_search":
        yield Item("note", f"searched the web: {clean(_text(item.get('query')))}")
    elif kind == "error":
        yield Item("error", clean(_text(item.get("message"))))


def _claude(event: Event) -> Iterator[Item]:
    kind, subtype = event.get("type"), event.get("subtype")
    if kind == "assistant":
        for block in map(_dict, _list(_dict(event.get("message")).get("content"))):
            if block.get("type") == "text":
                yield from _message(_text(block.get("text")))
            elif block.get("type") == "tool_use":
                yield _tool(_text(block.get("name")), _dict(block.get("input")))
    elif kind == "user":
        for block in map(_dict, _list(_dict(event.get("message")).get("content"))):
            if block.get("type") == "tool_result":
                yield from _claude_result(block)
    elif kind == "result":
        failed = event.get("is_error") or subtype != "success"
        text = clean(_text(event.get("result")) or _text(event.get("errors") or subtype), 1000)
        spent = ", ".join(
            filter(
                None,
                (money(_number(event.get("total_cost_usd"))), _spent(_dict(event.get("usage")))),
            )
        )
        yield Item("error", f"failed: {text}") if failed else Item("note", f"done, {spent}")
        for denial in map(_dict, _list(event.get("permission_denials"))):
            yield Item("error", f"not permitted: {clean(_text(denial.get('tool_name')))}")
    elif kind == "system" and subtype == "init":
        yield Item(
            "note",
            f"session {clean(_text(event.get('session_id')))}, {clean(_text(event.get('model')))}",
        )
    elif kind == "system" and subtype == "api_retry":
        count = f"{_text(event.get('attempt'))}/{_text(event.get('max_retries'))}"
        yield Item("error", f"retry {clean(count)}: {clean(_text(event.get('error')))}")


def _claude_result(block: Event) -> Iterator[Item]:
    content = block.get("content")
    parts = (
        [_text(_dict(part).get("text")) for part in _list(content)]
        if isinstance(content, list)
        else [_text(content)]
    )
    text = "\n".join(parts)
    if block.get("is_error"):
        yield Item("error", _tail(text))
    else:
        yield from _output(text)


def _tool(name: str, given: Event) -> Item:
    """A tool call, as a command or a change where it is one."""
    command = given.get("command") or given.get("cmd")
    path = (
        given.get("file_path")
        or given.get("filePath")
        or given.get("absolute_path")
        or given.get("path")
    )
    if isinstance(command, str):
        return Item("command", _command(command))
    if isinstance(path, str) and name.lower() in (
        "write",
        "edit",
        "multiedit",
        "notebookedit",
        "replace",
        "write_file",
    ):
        return Item("change", f"{clean(name.lower())} {clean(path)}")
    return Item("note", clean(f"{name} {_text(path or dict(given))}", 300))


def _gemini(event: Event) -> Iterator[Item]:
    kind = event.get("type")
    if kind == "message" and event.get("role") != "user":
        yield from _message(_text(event.get("content")))
    elif kind == "tool_use":
        given = _dict(event.get("parameters") or event.get("args") or event.get("input"))
        yield _tool(_text(event.get("tool_name") or event.get("name")), given)
    elif kind == "tool_result":
        error = _dict(event.get("error")).get("message") or event.get("error")
        if event.get("status") == "error" or error:
            yield Item("error", _tail(_text(error or event.get("output"))))
        else:
            yield from _output(_text(event.get("output")))
    elif kind == "result":
        failed = event.get("status") == "error"
        text = clean(_text(_dict(event.get("error")).get("message")))
        yield (
            Item("error", f"failed: {text}")
            if failed
            else Item("note", f"done, {_spent(_dict(event.get('stats')))}")
        )
    elif kind == "init":
        yield Item(
            "note",
            f"session {clean(_text(event.get('session_id')))}, {clean(_text(event.get('model')))}",
        )


def _opencode(event: Event) -> Iterator[Item]:
    kind, part = event.get("type"), _dict(event.get("part"))
    if kind == "text":
        yield from _message(_text(part.get("text")))
    elif kind == "tool_use":
        state = _dict(part.get("state"))
        yield _tool(_text(part.get("tool")), _dict(state.get("input")))
        if state.get("status") == "error":
            yield Item("error", _tail(_text(state.get("error"))))
        else:
            yield from _output(_text(state.get("output")))
        code = _dict(state.get("metadata")).get("exit")
        if code is not None:
            yield Item("note", f"exit {clean(_text(code))}")
    elif kind == "error":
        error = _dict(event.get("error"))
        message = _dict(error.get("data")).get("message") or error.get("name")
        yield Item("error", f"failed: {clean(_text(message))}")


READERS: dict[str, Callable[[Event], Iterator[Item]]] = {
    "codex": _codex,
    "claude": _claude,
    "gemini": _gemini,
    "opencode": _opencode,
}


def sniff(event: Event) -> str:
    """The agent whose stream this event belongs to, or "" when it could be anything."""
    kind = event.get("type")
    if not isinstance(kind, str):
        return ""
    if kind.startswith(("thread.", "turn.", "item.")):
        return "codex"
    if "sessionID" in event:
        return "opencode"
    if kind == "init" or (
        kind in ("message", "tool_use", "tool_result", "result") and "timestamp" in event
    ):
        return "gemini"
    if kind in ("system", "assistant", "user", "result") and "session_id" in event:
        return "claude"
    return ""


class Renderer:
    """Reads one stream line by line. Feed whole lines; ask `finish` for what is still held at the
    end.
    """

    def __init__(self, agent: str = "") -> None:
        """`agent` is an adapter's name where it is known; a stream can say otherwise."""
        self._reader = READERS.get(agent)
        self._open: list[str] = []
        self._pieces = ""

    def feed(self, line: str) -> list[Item]:
        """What one line, without its line feed, has to show."""
        event = _parse(line) if line.startswith("{") else {}
        agent = sniff(event)
        if agent:
            self._reader = READERS[agent]
        if not event or self._reader is None or not isinstance(event.get("type"), str):
            text = clean_block(line.rstrip("\r"), MAX_TEXT).replace("\n", " ")
            return [*self.finish(), Item("text", text)]
        if event.get("delta") is True and event.get("role") != "user":
            return self._piece(_text(event.get("content")))
        return [*self.finish(), *self._once(self._reader(event))]

    def finish(self) -> list[Item]:
        """The message whose pieces were still coming."""
        pieces, self._pieces = self._pieces, ""
        return list(_message(pieces))

    def _piece(self, text: str) -> list[Item]:
        """A message that comes in pieces is shown when it is whole, or long."""
        self._pieces += text[:MAX_TEXT]
        return self.finish() if len(self._pieces) > MAX_TEXT else []

    def _once(self, items: Iterator[Item]) -> Iterator[Item]:
        """A command is announced at its start; its end does not repeat it."""
        for item in items:
            if item.kind == "command":
                self._open = [*self._open[-MAX_OPEN_COMMANDS:], item.text]
            if item.kind != _ENDED:
                yield item
            elif item.text in self._open:
                self._open.remove(item.text)
            else:
                yield Item("command", item.text)
