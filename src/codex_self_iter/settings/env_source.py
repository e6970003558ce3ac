"""The two sources above the file: environment variables and flags, each key with its own name."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from codex_self_iter.settings import keys
from codex_self_iter.settings.model import KeyPath, Settings, merge
from codex_self_iter.settings.problems import Problem

PREFIX = str(Settings.model_config["env_prefix"])
_DELIMITER = str(Settings.model_config["env_nested_delimiter"])

OWN_VARIABLES = frozenset(PREFIX + name for name in (
    "CONFIG", "ENV_FILE", "RUN_ID", "RUN_IN", "TOOL_ID", "REAL_AGENTS", "REQUIRE_REAL_AGENTS", "DEBUG",
    "HOOK", "LOOP", "ITERATION", "STATE", "REASON", "VERDICT", "EXIT_CODE", "LANE", "PORT_BASE",
))  # fmt: skip
"""Ours, but no keys: a service's environment file, the marks of runs and tools, tests' switches, what
a hook and a lane's agent are told."""
_TESTS = PREFIX + "TEST_"


class TextSource(EnvSettingsSource):
    """Values that may be texts, nested as in a file.

    Attributes:
        values: what could be read; names: what each key is called here.
        problems: what could not be read."""

    def __init__(self) -> None:
        super().__init__(Settings)
        self.values: dict[str, Any] = {}
        self.names: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []

    def __call__(self) -> dict[str, Any]:
        """All values: what the library asks a source for."""
        return self.values

    def find(self, path: KeyPath) -> str | None:
        """The source of a key: of its own, of one above it, or of the first one below it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.names:
                return self.names[path[:end]]
        return next((name for key, name in self.names.items() if key[: len(path)] == path), None)

    def put(self, path: KeyPath, value: Any, where: str) -> bool:
        """Add a value, read by its key's kind when it is a text; False when it cannot be read."""
        try:
            typed = self._read(path, value) if isinstance(value, str) else value
        except ValueError as error:
            self.problems.append(Problem(where, path, str(error)))
            return False
        for part in reversed(path):
            typed = {part: typed}
        self.values = merge(self.values, typed)
        return True

    def _read(self, path: KeyPath, text: str) -> Any:
        """A value from its text: JSON for lists and tables, else as the key's kind reads it.

        Raises ValueError for JSON that is none; a scalar that cannot be read is left for the
        schema to refuse, a number that is out of bounds as a number, for the message."""
        kind = keys.kind_at(path)
        if kind is None or "\0" in text:
            return text
        field = FieldInfo.from_annotation(kind)
        if self.field_is_complex(field):
            try:
                return self.decode_complex_value(keys.dotted(path), field, text)
            except (ValueError, RecursionError):
                what = keys.allowed_at(path) or f"the table [{keys.dotted(path)}]"
                raise ValueError(f"must be {what}, written as JSON") from None
        try:
            value = TypeAdapter(kind).validate_strings(text)
        except ValidationError:
            return _plain_number(path, text)
        return value if isinstance(value, (bool, int, float)) else text


class VariableSource(TextSource):
    """The environment: every variable with our prefix is a key's, or one of OWN_VARIABLES."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__()
        ours = {name for name in environ if name.startswith(PREFIX)} - OWN_VARIABLES
        self.env_vars = {n: environ[n] for n in sorted(ours) if not n.startswith(_TESTS)}
        for variable, text in self.env_vars.items():
            where = f"environment {variable}"
            path = _path(variable.removeprefix(PREFIX))
            if path is None:
                what = "unknown variable" + _near_variable(variable)
                self.problems.append(Problem(where, (), what))
            elif self.put(path, text, where):
                self.names[path] = where


class FlagSource(TextSource):
    """The command line: nested values, None for a flag that was not given.

    `options` names the flag of a dotted key where it is not simply the key's own name."""

    def __init__(self, flags: Mapping[str, Any], options: Mapping[str, str]) -> None:
        super().__init__()
        for path, value in _given((), flags):
            name, key = "--" + "-".join(map(str, path)).replace("_", "-"), keys.dotted(path)
            if options and key != "workspace":
                name = options.get(key, f"--set {key}")
            self.names[path] = f"flag {name}"
            self.put(path, value, self.names[path])


def variable_name(path: KeyPath) -> str:
    """The environment variable of a key."""
    return PREFIX + _DELIMITER.join(str(part).replace("-", "_").upper() for part in path)


def _given(path: KeyPath, flags: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    for key, value in flags.items():
        if isinstance(value, Mapping) and value and keys.table_at((*path, key)) is not None:
            yield from _given((*path, key), value)
        elif value is not None:
            yield (*path, key), value


def _path(name: str) -> KeyPath | None:
    """The key that a variable's name means; names in a free table (`env`) keep their case."""
    path: KeyPath = ()
    for part in name.split(_DELIMITER):
        table = keys.table_at(path)
        known = keys.fields_of(table) if table is not None else keys.names_in(path)
        key = next((name for name in known if name.replace("-", "_").upper() == part), None)
        if table is None and not known:
            key = part
        if not key or keys.kind_at((*path, key)) is None:
            return None
        path = (*path, key)
    return path


def _near_variable(variable: str) -> str:
    paths: list[KeyPath] = [(name,) for name in keys.fields_of(Settings)]
    paths += [(*p, below) for p in paths if (t := keys.table_at(p)) for below in keys.fields_of(t)]
    names = [variable_name(key).removeprefix(PREFIX) for key in paths]
    near = difflib.get_close_matches(variable.removeprefix(PREFIX), names, 1, 0.75)
    if near:
        return f"; did you mean {PREFIX}{near[0]}?"
    return f"; {PREFIX} names are the keys of the configuration file"


def _plain_number(path: KeyPath, text: str) -> Any:
    field = keys.field_at(path)
    if field is not None and field.annotation in (int, float):
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return kind(text)
    return text
