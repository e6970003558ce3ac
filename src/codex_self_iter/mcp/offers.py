"""The tools: what each is called, takes and runs, and what of the command's output is handed on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Given = dict[str, Any]
MAX_TEXT = 256 * 1024
"""Characters of a message; the commands say the same of its bytes."""
CLIENTS_OWN = frozenset({"wait_for_previous"})
"""Arguments that a client adds for itself to every tool, and hands on: Gemini CLI."""
_NO_CONSTANTS: Any = {"parse_constant": lambda _: None}


class UnfitError(Exception):
    """Arguments that a tool does not take, in words."""


def _workspace() -> dict[str, Any]:
    said = "The loop: its workspace's path, or its name. Default: what the server was started for."
    return {"type": "string", "description": said, "minLength": 1, "maxLength": 4096}


def _number(said: str, most: int = 10**9) -> dict[str, Any]:
    return {"type": "integer", "description": said, "minimum": 1, "maximum": most}


def _text(said: str) -> dict[str, Any]:
    return {"type": "string", "description": said, "minLength": 1, "maxLength": MAX_TEXT}


def _flag(said: str) -> dict[str, Any]:
    return {"type": "boolean", "description": said}


class Tool(NamedTuple):
    """One tool.

    Attributes:
        words: what the command is called with; which loop is put behind its first word.
        shape: what is made of its output.
        takes: the schema of each argument, and the names of those that must be there.
        stdin: the argument that the command reads from there.
        control: it changes something. `ends`: it can end or replace what was there; `again`: twice
            is as good as once."""

    name: str
    title: str
    said: str
    words: Callable[[Given], list[str]]
    shape: Callable[[str], Given]
    takes: dict[str, dict[str, Any]]
    needs: tuple[str, ...] = ()
    stdin: str = ""
    control: bool = False
    ends: bool = False
    again: bool = True

    def listed(self) -> Given:
        """As `tools/list` shows it."""
        # without the bounds, which are said when it matters: clients put them into the description
        shown = {
            name: {"type": one["type"], "description": one["description"]}
            for name, one in self.takes.items()
        }
        schema: Given = {"type": "object", "properties": shown, "additionalProperties": False}
        schema |= {"required": list(self.needs)} if self.needs else {}
        hints = {
            "title": self.title,
            "readOnlyHint": not self.control,
            "destructiveHint": self.ends,
            "idempotentHint": self.again,
            "openWorldHint": False,
        }
        about = {"name": self.name, "title": self.title, "description": self.said}
        return {**about, "inputSchema": schema, "annotations": hints}

    def command(self, given: Given, default: list[str]) -> list[str]:
        """The words of the command; `default`: those for the loop that no argument names."""
        first, *rest = self.words(given)
        named = given.get("workspace")
        if named:
            path = os.path.expanduser(named) if named.startswith("~") else named
            default = [f"--loop={path}"]
        return [first, *(default if "workspace" in self.takes else []), *rest]

    def check(self, given: object) -> Given:
        """The arguments, if they are what it takes. Raises UnfitError."""
        if given is None:
            given = {}
        if not isinstance(given, dict):
            raise UnfitError("arguments must be an object")
        given = {name: value for name, value in given.items() if name not in CLIENTS_OWN}
        for name in given:
            if name not in self.takes:
                known = ", ".join(map(repr, self.takes)) or "nothing"
                raise UnfitError(f"unknown argument {str(name)[:80]!r}; it takes {known}")
        # some clients send null for what is left out
        there = {name: value for name, value in given.items() if value is not None}
        for name in self.needs:
            if name not in there:
                raise UnfitError(f"{name!r} is missing")
        return {name: _fit(name, value, self.takes[name]) for name, value in there.items()}


def _fit(name: str, value: object, schema: dict[str, Any]) -> object:
    """A value as its schema wants it. Raises UnfitError."""
    kind = schema["type"]
    if kind == "integer":
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        least, most = schema["minimum"], schema["maximum"]
        if isinstance(whole, bool) or not isinstance(whole, int) or not least <= whole <= most:
            raise UnfitError(f"{name!r} must be a whole number from {least} to {most}")
        return whole
    if kind == "boolean":
        if not isinstance(value, bool):
            raise UnfitError(f"{name!r} must be true or false")
        return value
    if not isinstance(value, str) or not schema["minLength"] <= len(value) <= schema["maxLength"]:
        raise UnfitError(f"{name!r} must be a text of 1 to {schema['maxLength']} characters")
    if "\0" in value or any("\ud800" <= one <= "\udfff" for one in value):
        raise UnfitError(f"{name!r} is not valid text")
    return value


# --- what is made of a command's output ---------------------------------------------------------

_ROW = ("name", "workspace", "state_dir", "state", "alive", "since", "reason", "iteration", "goal")
_RECORD = (
    "iteration", "ts", "verdict", "goal_in", "summary", "next_goal", "reason", "unproven", "error", "failure_class",
    "agent", "duration_sec", "cost_usd", "changed_count", "ticked",
)  # fmt: skip


def _some(value: Given, names: tuple[str, ...]) -> Given:
    return {name: value[name] for name in names if value.get(name) not in (None, "", [])}


def _loops(text: str) -> Given:
    """Those with a supervisor first: what is cut of many is what rests."""
    rows = sorted(json.loads(text, **_NO_CONSTANTS), key=lambda row: not row.get("alive"))
    return {"loops": [_some(row, _ROW) for row in rows]}


def _status(text: str) -> Given:
    value = json.loads(text, **_NO_CONSTANTS)
    if isinstance(value, dict):
        return value
    note = "no workspace was given, and the working directory is none: these are all loops"
    return {**_loops(text), "note": note}


def _history(text: str) -> Given:
    """The newest first: what is cut for its length is what is oldest."""
    rows = [json.loads(line, **_NO_CONSTANTS) for line in text.split("\n") if line]
    found: Given = {"iterations": [_some(row, _RECORD) for row in reversed(rows)]}
    note = "no such iteration is recorded there; `loops` lists all loops"
    return found if rows else found | {"note": note}


def _one(text: str) -> Given:
    value: Given = json.loads(text, **_NO_CONSTANTS)
    return value


def _diff(text: str) -> Given:
    return {"diff": text}


def _done(text: str) -> Given:
    return {"done": text.strip()}


# --- the table ----------------------------------------------------------------------------------


def _if(given: Given, name: str, option: str) -> list[str]:
    """An option for a flag, or for a value (`--limit=…`); none where it is not given."""
    value = given.get(name)
    return [option] if value is True else [f"{option}={value}"] if value else []


def _numbers(given: Given, *names: str) -> list[str]:
    return [str(given[name]) for name in names if given.get(name)]


_WHICH = {"workspace": _workspace()}
_NOW = _flag("At once, if need be by ending the running agent, instead of after it.")
TOOLS = (
    Tool(
        "loops",
        "All loops",
        "All loops of this user: name, workspace, state, goal, whether a supervisor is alive.",
        lambda _: ["status", "--all", "--json"],
        _loops,
        {},
    ),
    Tool(
        "status",
        "What a loop is doing",
        "What a loop does now, since when and until when, why it waits, its plan and its cost.",
        lambda _: ["status", "--json"],
        _status,
        _WHICH,
    ),
    Tool(
        "history",
        "What a loop did",
        "The iterations of a loop, the newest first: verdict, summary, next goal, error.",
        lambda given: [
            *("history", "--json", f"--limit={given.get('limit') or 10}"),
            *_if(given, "since", "--since"),
        ],
        _history,
        _WHICH
        | {
            "limit": _number("At most so many (default: 10).", 200),
            "since": _text("From this one on: an iteration's number, a date, or 90m, 12h, 7d ago."),
        },
    ),
    Tool(
        "show",
        "One iteration",
        "Everything about one iteration: gates and their output, evidence, changed files, usage.",
        lambda given: ["show", "--json", *_numbers(given, "iteration")],
        _one,
        _WHICH | {"iteration": _number("Its number (default: the last).")},
    ),
    Tool(
        "diff",
        "What an iteration changed",
        "What an iteration changed, as a patch; with `to`, what lies between two iterations.",
        lambda given: ["diff", *_if(given, "stat", "--stat"), *_numbers(given, "iteration", "to")],
        _diff,
        _WHICH
        | {
            "iteration": _number("Its number."),
            "to": _number("An iteration to compare it with."),
            "stat": _flag("Names and counts of lines only."),
        },
        needs=("iteration",),
    ),
    Tool(
        "steer",
        "Tell the agent something",
        "Leave a message that the agent reads with its next prompt.",
        lambda given: ["steer", *_if(given, "now", "--now"), "-"],
        _done,
        _WHICH | {"text": _text("The message."), "now": _NOW},
        needs=("text",),
        stdin="text",
        control=True,
        ends=True,
        again=False,
    ),
    Tool(
        "goal",
        "Replace the goal",
        "Replace what the next iteration is to do.",
        lambda _: ["goal", "-"],
        _done,
        _WHICH | {"text": _text("The goal.")},
        needs=("text",),
        stdin="text",
        control=True,
        ends=True,
    ),
    Tool(
        "pause",
        "Pause a loop",
        "Start no further iteration until resume.",
        lambda given: ["pause", *_if(given, "now", "--now")],
        _done,
        _WHICH | {"now": _NOW},
        control=True,
        ends=True,
    ),
    Tool(
        "resume",
        "Go on after a pause",
        "Let a paused loop go on.",
        lambda _: ["resume"],
        _done,
        _WHICH,
        control=True,
    ),
    Tool(
        "stop_after_iteration",
        "Stop a loop after its iteration",
        "End the loop when the running iteration has ended. Only a person starts it again.",
        lambda _: ["stop", "--after-iteration"],
        _done,
        _WHICH,
        control=True,
        ends=True,
    ),
)


# --- how much of it -----------------------------------------------------------------------------

ROOM = 40_000
"""Characters of an answer: some 10,000 tokens, which every client hands to its model whole."""
_STEPS = ((30_000, 500), (8000, 200), (2000, 100), (600, 50), (300, 30), (200, 12), (100, 6))
_CUT = "long texts and lists are shortened, where an ellipsis says so"


def fitted(value: Given) -> Given:
    """The value within ROOM: long texts and lists shortened, and said."""
    if len(compact(value)) <= ROOM:
        return value
    for text, rows in _STEPS:
        shown: Given = {"cut": _CUT, **_shorter(value, text, rows)}
        if len(compact(shown)) <= ROOM:
            return shown
    return {"cut": "it is too long to be shown", "begins": compact(value)[: ROOM // 2]}


def _shorter(value: Any, text: int, rows: int) -> Any:
    if isinstance(value, str) and len(value) > text:
        return f"{value[:text]}… ({len(value) - text} more characters)"
    if isinstance(value, dict):
        return {key: _shorter(one, text, rows) for key, one in value.items()}
    if isinstance(value, list):
        return [*(_shorter(one, text, rows) for one in value[:rows]), *_more(len(value) - rows)]
    return value


def _more(count: int) -> Iterator[str]:
    if count > 0:
        yield f"… {count} more"


def compact(value: object) -> str:
    """As JSON, for a model to read."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
