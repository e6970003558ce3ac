"""The two layers above the file: environment variables and flags, as nested values with their own
names.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from codex_self_iter.settings.model import KeyPath, Settings, merge
from codex_self_iter.settings.report import Problem
from codex_self_iter.settings.tree import (
    allowed_at,
    dotted,
    field_at,
    fields_of,
    kind_at,
    names_in,
    table_at,
)

PREFIX = str(Settings.model_config["env_prefix"])
_DELIMITER = str(Settings.model_config["env_nested_delimiter"])

OWN_VARIABLES = frozenset(
    PREFIX + name
    for name in (
        "CONFIG",
        "ENV_FILE",
        "RUN_ID",
        "RUN_IN",
        "TOOL_ID",
        "REAL_AGENTS",
        "REQUIRE_REAL_AGENTS",
        "DEBUG",
    )
)
"""Variables of ours that are no keys: the configuration file, a service's environment file, the
markers of runs and tools, switches of the tests."""
_TESTS = PREFIX + "TEST_"


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """Values of one source, nested as in a file, the source's name for each, and what could not be
    read.
    """

    values: Mapping[str, Any]
    names: Mapping[KeyPath, str]
    problems: tuple[Problem, ...] = ()

    def name(self, path: KeyPath) -> str | None:
        """The source of a key: of its own, of one above it, or of the first one below it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.names:
                return self.names[path[:end]]
        return next((name for key, name in self.names.items() if key[: len(path)] == path), None)


def variable_name(path: KeyPath) -> str:
    """The environment variable of a key."""
    return PREFIX + _DELIMITER.join(str(part).replace("-", "_").upper() for part in path)


def variable_layer(environ: Mapping[str, str]) -> Layer:
    """What the environment says. Every variable with our prefix must be a key's or one of
    OWN_VARIABLES.
    """
    values: dict[str, Any] = {}
    names: dict[KeyPath, str] = {}
    problems: list[Problem] = []
    ours = {name for name in environ if name.startswith(PREFIX) and not name.startswith(_TESTS)}
    for variable in sorted(ours - OWN_VARIABLES):
        where = f"environment {variable}"
        path = _path(variable.removeprefix(PREFIX))
        if path is None:
            problems.append(Problem(where, (), "unknown variable" + _near_variable(variable)))
            continue
        try:
            value = _from_text(path, environ[variable])
        except ValueError as error:
            problems.append(Problem(where, path, str(error)))
            continue
        values = merge(values, _nest(path, value))
        names[path] = where
    return Layer(values, names, tuple(problems))


def flag_layer(flags: Mapping[str, Any], options: Mapping[str, str] | None = None) -> Layer:
    """What the command line says: nested values, None for a flag that was not given.

    `options` names the flag of a dotted key where it is not simply the key's own name.
    """
    values: dict[str, Any] = {}
    names: dict[KeyPath, str] = {}
    problems: list[Problem] = []
    for path, value in _given((), flags):
        plain = "--" + "-".join(str(part).replace("_", "-") for part in path)
        where = f"flag {(options or {}).get('.'.join(map(str, path)), plain)}"
        names[path] = where
        try:
            typed = _from_text(path, value) if isinstance(value, str) else value
        except ValueError as error:
            problems.append(Problem(where, path, str(error)))
            continue
        values = merge(values, _nest(path, typed))
    return Layer(values, names, tuple(problems))


def _given(path: KeyPath, flags: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    for key, value in flags.items():
        if isinstance(value, Mapping) and value and table_at((*path, key)) is not None:
            yield from _given((*path, key), value)
        elif value is not None:
            yield (*path, key), value


def _nest(path: KeyPath, value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    nested: dict[str, Any] = value
    return nested


def _path(name: str) -> KeyPath | None:
    """The key that a variable's name means; the names in a free table (`env`, `prices`) keep their
    case.
    """
    path: KeyPath = ()
    for part in name.split(_DELIMITER):
        table = table_at(path)
        known = fields_of(table) if table is not None else names_in(path)
        key = next((name for name in known if name.replace("-", "_").upper() == part), None)
        if table is None and not known:
            key = part
        if not key or kind_at((*path, key)) is None:
            return None
        path = (*path, key)
    return path


def _near_variable(variable: str) -> str:
    keys = [(name,) for name in fields_of(Settings)]
    for name in list(fields_of(Settings)):
        table = table_at((name,))
        keys += [(name, below) for below in fields_of(table)] if table is not None else []  # type: ignore[misc]
    names = [variable_name(key).removeprefix(PREFIX) for key in keys]
    near = difflib.get_close_matches(variable.removeprefix(PREFIX), names, 1, 0.75)
    return (
        f"; did you mean {PREFIX}{near[0]}?"
        if near
        else f"; {PREFIX} names are the keys of the configuration file"
    )


def _from_text(path: KeyPath, text: str) -> Any:
    """A value from its text: JSON for lists and tables, else as the key's kind reads it.

    Raises ValueError for JSON that is none; a scalar that cannot be read is left for the schema to
    refuse."""
    kind = kind_at(path)
    if kind is None or "\0" in text:
        return text
    if _is_compound(kind):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            what = allowed_at(path) or f"the table [{dotted(path)}]"
            raise ValueError(f"must be {what}, written as JSON") from None
    try:
        TypeAdapter(kind).validate_strings(text)
    except ValidationError:
        return _plain_number(path, text)
    return _typed(kind, text)


def _typed(kind: Any, text: str) -> Any:
    value = TypeAdapter(kind).validate_strings(text)
    return value if isinstance(value, (bool, int, float)) else text


def _plain_number(path: KeyPath, text: str) -> Any:
    """A number that is out of bounds is shown as a number in the message, anything else as the text
    it is.
    """
    field = field_at(path)
    if field is not None and field.annotation in (int, float):
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def _is_compound(kind: Any) -> bool:
    while typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType, typing.Literal):
        return False
    return origin is not None or (isinstance(kind, type) and issubclass(kind, BaseModel))
