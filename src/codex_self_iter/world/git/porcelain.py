"""Reading git's machine output: `status --porcelain=v2 -z` and `diff --raw -z`. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

RAW = ("-r", "-z", "--raw", "--no-renames", "--no-abbrev")
"""What makes `diff-tree` and `diff-index` answer as `parse_raw` reads."""


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One path that differs from HEAD or is not tracked.

    Attributes:
        path: bytes, relative to the top of the work tree, without a trailing slash.
        tracked: False for a `?` line.
        nested: True for a submodule, or a whole repository that is not tracked.
        head: fingerprint of the path in HEAD (`<mode> <object id>`), "" when HEAD does not have it,
            None when the line does not say.
        staged: its fingerprint in the index where that differs from HEAD ("": taken out), else
            None."""

    path: bytes
    tracked: bool
    nested: bool
    head: str | None
    staged: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """A whole answer. `head` is "" on an unborn branch, `branch` is "" when detached."""

    head: str
    branch: str
    records: tuple[Record, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class RawChange:
    """One line of a raw diff: fingerprints before and after ("" where the path does not exist)."""

    path: bytes
    old: str
    new: str


def parse_status(data: bytes) -> Status:
    """Read `git status --porcelain=v2 -z --branch`. Raises ValueError if it is cut short or odd."""
    if data and not data.endswith(b"\0"):
        raise ValueError("git status: the answer is cut short")
    head = branch = ""
    records = []
    fields = iter(data.split(b"\0")[:-1])
    for field in fields:
        if field.startswith(b"# branch.oid "):
            head = field[13:].decode().replace("(initial)", "")
        elif field.startswith(b"# branch.head "):
            branch = to_text(field[14:])
        elif not field.startswith(b"#"):
            records.append(_record(field, fields))
    return Status(head, "" if branch == "(detached)" else branch, tuple(records))


def _record(field: bytes, rest: Iterator[bytes]) -> Record:
    kind = field[:1]
    if kind == b"1":
        _, how, sub, mode, now, _, oid, index, path = field.split(b" ", 8)
        staged = None if how.startswith(b".") else _fingerprint(now, index)
        return Record(path, True, sub.startswith(b"S"), _fingerprint(mode, oid), staged)
    if kind == b"2":  # only when the person forces rename detection; the old path follows
        _, _, sub, _, _, _, _, _, _, path = field.split(b" ", 9)
        next(rest, b"")
        return Record(path, True, sub.startswith(b"S"), None)
    if kind == b"u":
        parts = field.split(b" ", 10)
        return Record(parts[10], True, parts[2].startswith(b"S"), None)
    if kind in (b"?", b"!") and field[1:2] == b" ":
        return Record(field[2:].rstrip(b"/"), False, field.endswith(b"/"), None)
    raise ValueError(f"git status: a line that is not understood: {field[:80]!r}")


def parse_raw(data: bytes) -> list[RawChange]:
    """Read `git diff --raw -z --no-renames --no-abbrev`. Raises ValueError for anything else."""
    fields = data.split(b"\0")
    changes = []
    for meta, path in zip(fields[0:-1:2], fields[1::2], strict=True):
        old_mode, new_mode, old, new, _ = meta.removeprefix(b":").split(b" ")
        changes.append(RawChange(path, _fingerprint(old_mode, old), _fingerprint(new_mode, new)))
    return changes


def _fingerprint(mode: bytes, oid: bytes) -> str:
    return "" if mode == b"000000" else f"{mode.decode()} {oid.decode()}"


def to_text(path: bytes) -> str:
    """A path as text; other bytes than UTF-8 become lone surrogates, for `os.fsencode` and JSON."""
    return path.decode("utf-8", "surrogateescape")
