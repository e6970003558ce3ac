"""What is wrong with a configuration: all of it, with place, key and what is allowed."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from codex_self_iter.core.text import counted
from codex_self_iter.errors import UsageError
from codex_self_iter.settings.keys import (
    allowed_at,
    dotted,
    kind_at,
    names_in,
    suggestion,
    table_at,
    tables_at,
)
from codex_self_iter.settings.model import KeyPath
from codex_self_iter.settings.types import AGENT_NAMES


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One error. `where`: "FILE:LINE", "environment NAME", "flag --x" or a path; `key` may be ()."""

    where: str
    key: KeyPath
    message: str

    def __str__(self) -> str:
        key = f"{dotted(self.key)}: " if self.key else ""
        return f"{self.where}: {key}{self.message}"


class ConfigError(UsageError):
    """The configuration has errors; the message lists all of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        head = f"{counted(len(self.problems), 'error')} in the configuration:"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in self.problems)]))


def from_validation(error: ValidationError, above: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Key and message of every error that the schema found, each key once.

    `above`: the entry of [[workspaces]] that was looked at."""
    seen: set[KeyPath] = set()
    for details in error.errors(include_url=False):
        path = _real_path(details["loc"])
        if path not in seen:
            seen.add(path)
            yield path, _message(path, details, above)


def shown(path: KeyPath, value: Any) -> str:
    """A value as it is shown in messages: short, and never one from an agent's `env` table."""
    if is_secret(path):
        return "***"
    words = (word for types, word in _KINDS if isinstance(value, types))
    kind = next(words, "another kind of value")
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{text} ({kind})"


def is_secret(path: KeyPath) -> bool:
    """Whether a key is in an agent's `env` table, whose values may be keys and tokens."""
    return any(path[at] == "agents" and path[at + 2] == "env" for at in range(len(path) - 2))


_KINDS = (
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a number"),
    (str, "a text"),
    (Mapping, "a table"),
    ((list, tuple), "a list"),
)


def _real_path(loc: tuple[str | int, ...]) -> KeyPath:
    """The key without the branches of a union and without the mark of a table's key."""
    path: KeyPath = tuple(part for part in loc if part != "[key]")
    while len(path) > 1 and kind_at(path) is None and _is_branch(path):
        path = path[:-1]
    return path


def _is_branch(path: KeyPath) -> bool:
    """A union's branch is reported as a part below a key that holds no table."""
    return path[-1] in ("bool", "int", "constrained-int") and path[-2] == "no_change_gate"


def _message(path: KeyPath, details: Mapping[str, Any], above: KeyPath) -> str:
    kind, value = details["type"], details["input"]
    if kind == "extra_forbidden":
        hint = suggestion(path)
        return "unknown key" + (f"; {hint}" if hint else "")
    if kind == "missing":
        return f"is required: {allowed_at(path)}"
    reason = str(details["ctx"]["error"]) if kind == "value_error" else ""
    tables, how = tables_at(path, above)
    allowed = tables or allowed_at(path) or ("a table" if kind_at(path) is not None else "")
    if details["loc"][-1] == "[key]":
        value = path[-1]
        names = names_in(path[:-1])
        allowed += f" ({', '.join(names)})" if names else ""
    if reason:
        text = f"{reason}, but is {shown(path, value)}; allowed: {allowed}"
    elif not allowed:
        text = str(details["msg"])
    elif _is_part(path) and not tables:
        text = f"must not be {shown(path, value)}; allowed: {allowed}"
    else:
        text = f"must be {allowed}, not {shown(path, value)}"
    text += f"; {how}" if how else ""
    if kind == "less_than_equal" and "to" not in allowed.split():
        text += f"; the largest is {details['ctx']['le']}"
    if kind == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
        text += "; a text stands in quotes" + ("" if is_secret(path) else f': "{value}"')
    return text + _near_value(allowed, value)


def _is_part(path: KeyPath) -> bool:
    """Whether what is allowed describes the whole list or table that this is a part of."""
    return table_at(path[:-1]) is None


def _near_value(allowed: str, value: Any) -> str:
    """The word that was probably meant, where words are to choose from."""
    words = [part.strip('",();: ') for part in allowed.replace(",", " ").split() if '"' in part]
    if "adapter" in allowed:
        words = list(AGENT_NAMES)
    near = difflib.get_close_matches(value, words, 1) if isinstance(value, str) else []
    return f"; did you mean {json.dumps(near[0])}?" if near and near[0] != value else ""
