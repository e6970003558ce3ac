"""Reading a configuration file: its values, and the line of each key for error messages."""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_settings import InitSettingsSource

from codex_self_iter.settings.model import KeyPath, Settings
from codex_self_iter.settings.problems import Problem

_LARGEST = 4 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class TomlFile:
    """A file's values and, by key, the line on which each stands (from 1)."""

    path: Path
    values: Mapping[str, Any]
    text: str

    @functools.cached_property
    def lines(self) -> Mapping[KeyPath, int]:
        """The line of every key; worked out when it is first asked for."""
        return dict(_lines(self.text))

    def line(self, path: KeyPath) -> int:
        """The line of a key, or of the nearest key above it that is written; 1 for none."""
        for end in range(len(path), 0, -1):
            found = self.lines.get(path[:end]) or self.lines.get((*path[:end], 0))  # a [[list]]
            if found:
                return found
        return 1


class BadFileError(Exception):
    """The file cannot be read as TOML at all: the line (0 = none) and the reason."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


class FileSource(InitSettingsSource):
    """The configuration file as a source; one that cannot be read is a problem and says nothing."""

    def __init__(self, path: Path | None) -> None:
        self.file: TomlFile | None = None
        self.problems: tuple[Problem, ...] = ()
        try:
            self.file = read_toml(path) if path is not None else None
        except BadFileError as error:
            where = f"{path}:{error.line}" if error.line else str(path)
            hint = "; name an existing file with --config" if "does not exist" in str(error) else ""
            self.problems = (Problem(where, (), f"the configuration file {error}{hint}"),)
        self.values = dict(self.file.values) if self.file is not None else {}
        super().__init__(Settings, self.values)

    def find(self, path: KeyPath) -> str | None:
        """File and line of a key, or None when it is not there."""
        if self.file is None or not has(self.values, path):
            return None
        return f"file {self.file.path}:{self.file.line(path)}"


def has(values: Any, path: KeyPath) -> bool:
    """Whether nested values have a key."""
    for part in path:
        table = isinstance(values, Mapping) and part in values
        listed = isinstance(values, (list, tuple)) and isinstance(part, int) and part < len(values)
        if not (table or listed):
            return False
        values = values[part]
    return True


def read_toml(path: Path) -> TomlFile:
    """Read one file. Raises BadFileError: missing, no plain file, unreadable, no UTF-8, no TOML."""
    data = _read(path)
    if data.startswith(b"\xef\xbb\xbf"):
        raise BadFileError(1, "begins with a byte-order mark; save it as UTF-8 without one")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = f"is not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8"
        raise BadFileError(line, reason) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax(text, str(error)) from None
    except RecursionError:
        raise BadFileError(0, "is nested too deeply") from None
    return TomlFile(path, values, text)


def read_plain(path: Path, most: int = -1) -> bytes:
    """A plain file's bytes; never waits on a pipe. Raises OSError, BadFileError for no such file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadFileError(0, "is not a plain file")
        return file.read(most)


def _read(path: Path) -> bytes:
    try:
        data = read_plain(path, _LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        known = {errno.ENOENT: "does not exist", errno.EISDIR: "is a directory"}
        number = getattr(error, "errno", None) or 0
        raise BadFileError(0, known.get(number, f"cannot be read ({reason})")) from None
    if len(data) > _LARGEST:
        raise BadFileError(0, "is larger than 4 MiB, so it is hardly a configuration file")
    return data


def _syntax(text: str, message: str) -> BadFileError:
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if found is None:
        reason = message.removesuffix(" (at end of document)")
        return BadFileError(text.count("\n") + 1, f"is not TOML: {reason}")
    line, column = int(found[1]), int(found[2])
    return BadFileError(line, f"is not TOML: {message[: found.start()]} (column {column})")


def _lines(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Every key with its line. The text is TOML, so a statement ends where it first parses."""
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    statement, first = "", 0
    for number, line in enumerate(text.split("\n"), start=1):
        first = first if statement else number
        statement += line + "\n"
        parsed = _parse(statement)
        if parsed is None:
            continue
        head = statement.lstrip()
        statement = ""
        keys = list(_keys((), parsed))
        if head.startswith("["):
            table = _table(keys[-1], head.startswith("[["), counts)
            yield table, first
        else:
            yield from (((*table, *key), first) for key in keys)


def _parse(statement: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return None


def _keys(path: KeyPath, value: Any) -> Iterator[KeyPath]:
    """The key of a statement and those inside its inline tables, outermost first."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _keys((*path, key), below)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _keys((*path, index), below)


def _table(key: KeyPath, is_array: bool, counts: dict[KeyPath, int]) -> KeyPath:
    """The full path of a table header; below a [[list]] it belongs to the list's last entry."""
    names = [part for part in key if isinstance(part, str)]
    path: KeyPath = ()
    for index, name in enumerate(names):
        path = (*path, name)
        if is_array and index == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path
