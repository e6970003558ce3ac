"""Reading the agent's final structured answer.

Two formats are understood, wherever the last one ends wins:

    JSON        one object, bare or in a code fence, with the fields of FIELDS
    labels      NEXT_GOAL: … STOP: … SUMMARY: … REASON: … EVIDENCE: … COMPLETED: …   in any order,
                with NOTES: … if there are any

A block must say what comes next: `next_goal` and `stop`, or `completed`/`stop` that is true, or the
promise word as its summary. Everything else has a safe default (nothing is completed, nothing
stops). A block that stands in the prompt with the same text before it, or that an agent quotes from
it within a line, is an echo of the prompt and never an answer; nor is one whose summary or goal is
a placeholder. Only where no block can be read is one looked for that is nearly JSON."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from codex_self_iter.core.foreign import decode_at, encode, flaw_at
from codex_self_iter.core.nearly_json import decode_nearly
from codex_self_iter.core.notes import PROPOSED
from codex_self_iter.core.text import SEQUENCE

FIELDS = ("summary", "next_goal", "stop", "reason", "evidence", "completed")
"""By these a block is known; `notes` may be there beside them."""


def strict_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    """An object's JSON schema by the rules of structured outputs: all required, nothing more."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": dict(properties),
    }


SCHEMA: Mapping[str, Any] = strict_schema(
    {
        "summary": {
            "type": "string",
            "description": "What this iteration did, in one or two sentences.",
        },
        "next_goal": {"type": "string", "description": "What the next iteration is to do."},
        "stop": {
            "type": "boolean",
            "description": "True only when a person must act before work can go on.",
        },
        "reason": {"type": "string", "description": "Why to stop, or why to go on."},
        "evidence": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Commands run and what they showed, files changed, commits made.",
        },
        "completed": {
            "type": "boolean",
            "description": "True only when everything asked for is done and checked.",
        },
    }
)
_WITH_NOTES = strict_schema(
    {
        **SCHEMA["properties"],
        "notes": {
            "type": "array",
            "items": {"type": "string"},
            "description": "New facts that later iterations need, one short line each; else empty.",
        },
    }
)
SCHEMA_WITH_NOTES: Mapping[str, Any] = _WITH_NOTES | {"required": list(FIELDS)}
"""An answer without notes is one, too: claude asks anew for what lacks something that is required."""

MAX_CANDIDATES = 2_000
MAX_NEARLY = 8
"""So many objects at the end are tried once more, as nearly JSON."""
MAX_ECHOES = 25
"""So many blocks at the end are compared with the prompt: each may cost a search of all of it."""
WINDOW = 64 * 1024
"""Characters of one JSON object that neither fills the answer as a whole nor is one of the last
MAX_LARGE that begin as a control block does."""
MAX_LARGE = 4
MAX_DEPTH = 8
"""Nested lists that become lines; what is deeper stays JSON."""
MAX_TEXT = 20_000
"""Longest text kept of one field, in characters."""
ECHO_CONTEXT = 40
"""Characters before a block that must agree with the prompt for it to be an echo."""

_LABEL = r"(?P<key>NEXT_GOAL|STOP|SUMMARY|REASON|EVIDENCE|COMPLETED|NOTES)"
_LINE_LABEL = re.compile(rf"^[ \t>*_`#-]*{_LABEL}[*_`]*[ \t]*:[*_`]*", re.MULTILINE)
_INLINE_LABEL = re.compile(rf"(?<![\w]){_LABEL}[*_`]*[ \t]*:")
_FIRST = re.compile(rf"\{{\s*\"(?:{'|'.join(FIELDS)})\"")
_OBJECT = re.compile(r"\{\s*\"")
_NEARLY = re.compile(r"""\{(?>(?:\s|//[^\n]*\n)*)["'“](?P<key>\w+)["'”]\s*:""")
_PLACEHOLDER = re.compile(r"\.{3,}|…+|<[^<>\n]{1,200}>")
_HUNK = re.compile(r"@@ -\d+(?:,(\d{1,9}))? \+\d+(?:,(\d{1,9}))? @@")
_TOLD = ("summary", "next_goal")
_MARKS = " \t\r>*-#`"
_TRUE = frozenset({"true", "yes", "y", "1", "on", "done"})
_FALSE = frozenset({"false", "no", "n", "0", "off", "none", "null", ""})


@dataclasses.dataclass(frozen=True, slots=True)
class Unreadable:
    """There is no valid answer; `why` tells the agent what was wrong."""

    why: str


@dataclasses.dataclass(frozen=True, slots=True)
class ControlBlock:
    """The agent's answer, coerced. `denied`: it says itself that nothing is completed."""

    summary: str = ""
    next_goal: str = ""
    stop: bool = False
    reason: str = ""
    evidence: tuple[str, ...] = ()
    completed: bool = False
    notes: tuple[str, ...] = ()
    denied: bool = dataclasses.field(default=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON value of what was answered."""
        return {name: getattr(self, name) for name in FIELDS} | {"evidence": list(self.evidence)}


def to_bool(value: Any) -> bool | None:
    """Coerce what agents write for a boolean; None when it means neither."""
    if value is None:
        return False
    if isinstance(value, bool | int | float):
        return bool(value) if value in (0, 1) else None
    if isinstance(value, str):
        word = value.strip().strip("`*_.\"'").casefold()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    return None


def to_text(value: Any, depth: int = 0) -> str:
    """Coerce what agents write for a text: lists become lines, everything else JSON. Bounded,
    always valid UTF-8."""
    if value is None:
        return ""
    if isinstance(value, list | tuple) and depth < MAX_DEPTH:
        return "\n".join(filter(None, (to_text(item, depth + 1) for item in value)))[:MAX_TEXT]
    if not isinstance(value, str):
        value = encode(value) or "(nested too deeply)"
    # A lone surrogate can be in no file and in no prompt.
    return str(value).strip()[:MAX_TEXT].encode("utf-8", "replace").decode("utf-8")


def _to_list(value: Any) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(text for text in map(to_text, value) if text)[:200]
    text = to_text(value)
    lines = (re.sub(r"^[-*•]\s+", "", line.strip()) for line in text.splitlines())
    return tuple(
        line for line in lines if line and line.casefold() not in {"none", "null", "[]", "n/a"}
    )[:200]


def _coerce(fields: Mapping[str, Any], promise: str = "") -> ControlBlock | Unreadable:
    """Build a block from raw values, or name the field that is missing or wrong."""
    stop, completed = to_bool(fields.get("stop")), to_bool(fields.get("completed"))
    for name, value in (("stop", stop), ("completed", completed)):
        if value is None:
            said = to_text(fields.get(name))[:80]
            return Unreadable(f'"{name}" must be true or false, not {said!r}')
    next_goal = to_text(fields.get("next_goal"))
    if next_goal.casefold() in {"none", "null", "n/a"}:
        next_goal = ""
    summary = to_text(fields.get("summary"))
    denied = not completed and fields.get("completed") is not None
    if not (stop or completed or (promise and summary == promise and not denied)):
        if "stop" not in fields:
            return Unreadable('"stop" is missing')
        if not next_goal:
            return Unreadable(
                '"next_goal" is missing or empty although neither "stop" nor "completed" is true'
            )
    return ControlBlock(
        summary=summary,
        next_goal=next_goal,
        stop=bool(stop),
        reason=to_text(fields.get("reason")),
        evidence=_to_list(fields.get("evidence")),
        completed=bool(completed),
        notes=_to_list(fields.get("notes"))[:PROPOSED],
        denied=denied,
    )


class _Echoes:
    """Tells what an agent repeats of its prompt: the same text, with the same words before it."""

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt
        self._words: str | None = None
        self._objects: list[tuple[int, int, dict[str, Any]]] | None = None
        self.found = 0
        self._left = MAX_ECHOES

    def repeats(self, text: str, start: int, end: int, fields: Mapping[str, Any]) -> bool:
        """True for a block that is no answer: a form that nobody filled in, an echo, or an object
        of the prompt, however it is written, with the same words before it or quoted in a line."""
        form = any(_PLACEHOLDER.fullmatch(to_text(fields.get(key))) for key in _TOLD)
        self.found += form
        return form or self.has(text, start, end) or self._quotes(text, start, fields)

    def has(self, text: str, start: int, end: int) -> bool:
        """True for an echo, and for whatever comes after too many of them."""
        if not self._prompt:
            return False
        block = " ".join(text[start:end].split())
        whole = " ".join(text[max(0, start - 400) : end].split())
        if whole == block:
            # nothing but the block itself: an answer, even if the task spells out what to answer
            return False
        if self._words is None:
            self._words = " ".join(self._prompt.split())
        before = len(whole) - len(block)
        key = whole[max(0, before - ECHO_CONTEXT) :]
        self._left -= 1
        echo = self._left < 0 or (
            key in self._words if before > ECHO_CONTEXT else self._words.startswith(key)
        )
        self.found += echo
        return echo

    def _quotes(self, text: str, start: int, fields: Mapping[str, Any]) -> bool:
        before = text[max(0, start - 400) : start]
        if not self._prompt or not before.strip():
            return False
        if self._objects is None:
            self._objects = list(_json_objects(self._prompt, _is_part))
        line = before.rpartition("\n")[2].strip(_MARKS)
        echo = any(
            value == fields and (line or _context(self._prompt, at) == _context(text, start))
            for at, _, value in self._objects
        )
        self.found += echo
        return echo


def _context(text: str, start: int) -> str:
    """The words before a place."""
    return " ".join(text[max(0, start - 400) : start].split())[-ECHO_CONTEXT:]


def _json_objects(
    text: str, wanted: Callable[[Mapping[str, Any]], bool]
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield (start, end, object) of the wanted JSON objects, last one first."""
    starts = [match.start() for match in _OBJECT.finditer(text)][-MAX_CANDIDATES:]
    begin = len(text) - len(text.lstrip())
    large = MAX_LARGE
    for start in reversed(starts):
        first = large > 0 and bool(_FIRST.match(text, start))
        large -= first
        whole = first or start <= begin
        window = text[start:] if whole else text[start : start + WINDOW]
        # a line break inside a text is what agents write most often wrong
        found = decode_at(window, 0, strict=False)
        if found and isinstance(found[0], dict) and wanted(found[0]):
            yield start, start + found[1], found[0]


class Labelled(NamedTuple):
    """A labelled block: its rank among blocks, where it starts, its last line ends and it ends, its
    values."""

    rank: int
    start: int
    end: int
    limit: int
    fields: dict[str, Any]


def _labelled(text: str, pattern: re.Pattern[str], region: tuple[int, int]) -> Iterator[Labelled]:
    """Yield the labelled blocks of a region. A label that repeats starts a new block.

    The last value of a block has no end of its own, so the rank among other blocks is its last
    label's place, and its end, for telling an echo, that of the label's line."""
    blocks: list[list[re.Match[str]]] = []
    for match in pattern.finditer(text, region[0], region[1]):
        known = {earlier["key"] for earlier in blocks[-1]} if blocks else set()
        if not known or (match["key"] in known and match["key"] != "NOTES"):
            blocks.append([])
        blocks[-1].append(match)
    del blocks[:-MAX_CANDIDATES]
    for index, labels in enumerate(blocks):
        limit = blocks[index + 1][0].start() if index + 1 < len(blocks) else region[1]
        ends = [label.start() for label in labels[1:]] + [limit]
        fields: dict[str, Any] = {}
        for label, end in zip(labels, ends, strict=True):
            value = text[label.end() : end].strip()
            if label["key"] in {"STOP", "COMPLETED"}:
                value = value.split("\n", 1)[0].strip()
            fields[label["key"].lower()] = value
        line_end = text.find("\n", labels[-1].end(), limit)
        line_end = limit if line_end < 0 else line_end
        yield Labelled(labels[-1].start(), labels[0].start(), line_end, limit, fields)


def _labelled_blocks(text: str) -> list[Labelled]:
    """Blocks with a label on each line; where a line's label stands alone, blocks that go on within
    the line."""
    lined = list(_labelled(text, _LINE_LABEL, (0, len(text))))
    found = [block for block in lined if len(block.fields) > 1]
    regions = [(0, lined[0].start if lined else len(text))]
    regions += [(block.start, block.limit) for block in lined if len(block.fields) == 1]
    for region in regions:
        found += [
            block for block in _labelled(text, _INLINE_LABEL, region) if len(block.fields) > 1
        ]
    return found


def _candidates(text: str) -> list[tuple[int, int, dict[str, Any]]]:
    """Everything that looks like a block: whole ones before mere parts of one, each the last first.

    A `STOP: yes` and `REASON: …` among what is said after the answer takes nothing back."""
    # An object inside another ends before it: sorted by end, the whole comes before its parts.
    found = [(end, start, end, fields) for start, end, fields in _json_objects(text, _is_part)]
    found += [
        (block.rank, block.start, block.end, block.fields) for block in _labelled_blocks(text)
    ]
    found.sort(key=lambda block: (not _is_whole(block[3]), -block[0], block[1]))
    return [(start, end, fields) for _, start, end, fields in found]


def _is_part(fields: Mapping[str, Any]) -> bool:
    """True for what has more than one field of a block."""
    return len(set(FIELDS) & fields.keys()) > 1


def _is_whole(fields: Mapping[str, Any]) -> bool:
    """True for a block that only an answer has."""
    decides = "stop" in fields or "completed" in fields
    return "next_goal" in fields or ("summary" in fields and decides)


def _is_unsure(fields: Mapping[str, Any]) -> bool:
    return None in (to_bool(fields.get("stop")), to_bool(fields.get("completed")))


def plain(text: str) -> str:
    """The text as it was meant: without colours and other escapes, and without the hunks of diffs,
    in which an answer is a line of somebody's file."""
    if "\x1b" in text:
        text = re.sub(SEQUENCE, "", text)
    return _without_hunks(text) if "@@ -" in text else text


def _without_hunks(text: str) -> str:
    kept: list[str] = []
    left = [0, 0]  # lines of the old and of the new file that the hunk still has
    for line in text.split("\n"):
        head = _HUNK.match(line)
        if head is not None:
            left = [min(int(count or 1), len(text)) for count in head.groups()]
        elif line[:1] in (" ", "+", "-", "") and max(left) > 0:
            left = [left[0] - (line[:1] != "+"), left[1] - (line[:1] != "-")]
            continue
        kept.append(line)
    return "\n".join(kept)


def parse(text: str, prompt: str = "", promise: str = "") -> ControlBlock | Unreadable:
    """Return the last control block of `text`, or what was wrong with it. An older one does not
    take the place of a last one that is not valid.

    Args:
        text: the agent's final message, or the end of its output.
        prompt: what the agent was sent; blocks echoed from it do not count.
        promise: the word that claims completion, or "": as a summary it needs no goal, and as the
            last line of a text without any block it needs no block."""
    flaw, echoes = "", _Echoes(prompt)
    text = plain(text)
    for start, end, fields in _read_twice(text):
        if isinstance(fields, str):
            flaw = flaw or ("" if echoes.has(text, start, end) else fields)
            continue
        if echoes.repeats(text, start, end, fields):
            continue
        block = _coerce(fields, promise)
        if isinstance(block, ControlBlock):
            return block
        flaw = flaw or f"the last control block is not valid: {block.why}"
        if _is_whole(fields) and ("next_goal" in fields or _is_unsure(fields)):
            break  # half a block hides nothing; one that says what nobody understands does
    last = len(text.rstrip())
    word = last - len(promise)
    alone = text[:last].rpartition("\n")[2].strip() == promise
    if promise and alone and not flaw and not echoes.has(text, word, last):
        return ControlBlock(summary=promise, completed=True)
    problem = flaw or "no control block was found at the end of the answer"
    if echoes.found:
        problem += "; the only blocks in it repeat the prompt"
    elif not text.strip():
        problem = "the agent printed nothing"
    return Unreadable(problem)


def _read_twice(text: str) -> Iterator[tuple[int, int, dict[str, Any] | str]]:
    """The blocks that are written as they should be, then those that are only nearly JSON."""
    yield from _candidates(text)
    for start, end, fields in _nearly_objects(text, FIELDS):
        if isinstance(fields, str) or _is_whole(fields):
            yield start, end, fields


def _nearly_objects(
    text: str, keys: Collection[str]
) -> Iterator[tuple[int, int, dict[str, Any] | str]]:
    """Yield (start, end, object) of what begins with one of the keys and is nearly JSON, the last
    one first; of what is broken beyond that, up to where and why."""
    starts = [found.start() for found in _NEARLY.finditer(text) if found["key"] in keys]
    for start in reversed(starts[-MAX_NEARLY:]):
        window = text[start : start + WINDOW]
        found = decode_nearly(window, 0)
        if found and isinstance(found[0], dict):
            yield start, start + found[1], found[0]
            continue
        why, at = flaw_at(window, 0)
        line, near = window.count("\n", 0, at) + 1, window[max(0, at - 20) : at + 20]
        where = f"at its line {line}: {why} (near `{' '.join(near.split())}`)"
        yield start, start + at, f"a JSON object was there, but it is broken {where}"


def read_json_object(text: str, required: str) -> dict[str, Any] | Unreadable:
    """Return the last JSON object of `text` that has the key `required`."""
    text, flaw = plain(text), ""
    objects = _json_objects(text, lambda value: required in value)
    for _, _, value in sorted(objects, key=lambda found: (-found[1], found[0])):
        return value
    for _, _, fields in _nearly_objects(text, (required,)):
        if not isinstance(fields, str):
            return fields
        flaw = flaw or fields
    return Unreadable(
        flaw or f'no JSON object with "{required}" was found at the end of the answer'
    )


def promised(word: str, text: str, block: ControlBlock, prompt: str = "") -> bool:
    """True when the promise word stands alone on a line of the answer, or is the block's whole
    summary, and the block does not say that nothing is completed.

    A line that the prompt already has after the same words is an echo."""
    if not word or block.denied:
        return False
    if block.summary.strip() == word:
        return True
    echoes, text = _Echoes(prompt), plain(text)
    lines = re.finditer(rf"^[ \t]*{re.escape(word)}[ \t]*\r?$", text, re.MULTILINE)
    found = [match.span() for match in lines][-MAX_ECHOES:]
    return any(not echoes.has(text, *span) for span in found)
