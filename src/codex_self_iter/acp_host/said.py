"""What an agent says during a turn, as events of our own: whole messages, tool calls. Pure.

An agent sends its text in pieces. A message ends where its id changes, where a tool is called and
where the turn ends; the last one is the answer."""

from __future__ import annotations

from collections.abc import Callable

from codex_self_iter.core.foreign import as_dict, as_list, as_text, as_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

MESSAGE_CHARS = 1_000_000
"""Of a longer message the end is kept: an answer is at its end."""
OUTPUT_CHARS = 64_000
"""Of a tool's longer output head and tail are kept."""
PROGRESS_SEC = 10.0
"""So often is it said that pieces arrive: the supervisor sees life, the output stays small."""
_CALLS = 100
"""So many open tool calls are known, the newest."""
_ENDED = ("completed", "failed")


class Said:
    """Collects one run's updates; `emit` takes the events (type, fields)."""

    def __init__(self, emit: Callable[..., None], asides: tuple[str, ...]) -> None:
        self._emit = emit
        self._asides = asides
        self._pieces: list[str] = []
        self._length = 0
        self._message: object = None
        self._told = float("-inf")
        self.last = ""
        """The last whole message of this turn."""
        self.calls: dict[str, Json] = {}
        """What is known of each tool call that has not ended."""

    def update(self, given: Json, now: float) -> None:
        """Take a `session/update`. `now`: monotonic seconds."""
        kind = as_text(given.get("sessionUpdate"))
        if kind in ("tool_call", "tool_call_update"):
            if kind == "tool_call" or as_text(given.get("toolCallId")) not in self.calls:
                self.flush()  # news of a call from before say nothing of the message
            self._call(given)
        elif kind == "agent_message_chunk":
            self._chunk(as_text(as_dict(given.get("content")).get("text")), given.get("messageId"))
        elif kind == "plan":
            self.flush()
        if kind in ("agent_message_chunk", "agent_thought_chunk", "tool_call_update"):
            self._progress(now)

    def flush(self) -> None:
        """The message that was being said is whole."""
        text = "".join(self._pieces)
        self._pieces, self._length = [], 0
        if text.strip():
            self.last = text
            self._emit("message", text=text)

    def _chunk(self, text: str, ident: object) -> None:
        """Take a piece of a message; what the program says itself comes whole, without an id."""
        aside = ident is None and text.lstrip().startswith(self._asides or "\0")
        if aside or ident != self._message:
            self.flush()
        if aside:
            self._emit("aside", text=text)
            return
        self._message = ident
        self._pieces.append(text)
        self._length += len(text)
        if self._length > 2 * MESSAGE_CHARS:
            kept = "".join(self._pieces)[-MESSAGE_CHARS:]
            self._pieces, self._length = [kept], len(kept)

    def _progress(self, now: float) -> None:
        if now - self._told >= PROGRESS_SEC:
            self._told = now
            self._emit("progress")

    def _call(self, given: Json) -> None:
        ident = as_text(given.get("toolCallId"))
        known = self.calls.get(ident)
        call = (known or {}) | {key: value for key, value in given.items() if value is not None}
        if known is None:
            if len(self.calls) >= _CALLS:  # of an agent that ends none
                del self.calls[next(iter(self.calls))]
            self._emit("tool", id=ident, **_shown(call))
        self.calls[ident] = call
        if call.get("status") in _ENDED:
            del self.calls[ident]
            ok = call["status"] == "completed"
            self._emit("tool_ended", id=ident, ok=ok, output=_output(call), **_shown(call))

    def permission(self, call: Json) -> Json:
        """A call for which permission is asked, with what was said of it before."""
        ident = as_text(call.get("toolCallId"))
        known = self.calls.get(ident)
        call = (known or {}) | {key: value for key, value in call.items() if value is not None}
        if known is not None:  # qwen says only here what its tool is to do
            self.calls[ident] = call
        return call


def name_of(call: Json) -> str:
    """A tool call in a few words."""
    shown = _shown(call)
    what = shown["command"] or shown["path"] or shown["title"]
    return f"{shown['kind']}: {what}"[:500]


def _shown(call: Json) -> Json:
    given = as_dict(call.get("rawInput"))
    command = given.get("command") or given.get("cmd")
    paths = [as_text(as_dict(one).get("path")) for one in as_list(call.get("locations"))]
    paths += [as_text(as_dict(one).get("path")) for one in as_list(call.get("content"))]
    paths += [as_text(given.get(key)) for key in ("file_path", "filePath", "path")]
    return {
        "kind": as_text(call.get("kind")) or "other",
        "title": as_text(call.get("title"))[:2000],
        "command": as_words(command)[:8000],
        "path": next(filter(None, paths), "")[:4096],
    }


def _output(call: Json) -> str:
    """What a tool printed, from wherever the agent puts it."""
    texts = []
    for part in map(as_dict, as_list(call.get("content"))):
        content = as_dict(part.get("content"))
        if part.get("type") == "content" and content.get("type") == "text":
            texts.append(as_text(content.get("text")))
    text = "\n".join(texts) or as_words(call.get("rawOutput"))
    half = OUTPUT_CHARS // 2
    return text if len(text) <= OUTPUT_CHARS else f"{text[:half]}\n[…]\n{text[-half:]}"
