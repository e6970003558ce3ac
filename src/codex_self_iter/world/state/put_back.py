"""Small files and directories that are to be after a run what they were before it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from codex_self_iter.core.foreign import as_dict, as_text
from codex_self_iter.errors import StorageError
from codex_self_iter.world.guarded import read_object, stat_or_none
from codex_self_iter.world.state.durable import replace_private, stamp, storing

MOST_BYTES = 8 * 1024 * 1024
"""All of them together; what is beyond is not kept."""
_MOST_RECORD = 4 * MOST_BYTES
_MOST_DEPTH = 40
_ODD = "odd entries"
"""In the record: links and pipes below the places, by path."""


class _Room:
    def __init__(self) -> None:
        self.left = MOST_BYTES


def keep(paths: Iterable[str], places: Iterable[str], record: str) -> tuple[str, ...]:
    """Write down what they are, in the file `record`; of `places`, directories of git, only which ones
    they are and what is no plain file in them. Returns those that are too large to be kept. Raises
    StorageError."""
    room, kept, lost = _Room(), dict[str, Any](), list[str]()
    for path in places:
        if (found := stat_or_none(path, follow=False)) is not None:
            kept[path] = {
                "kind": "place",
                "id": [found.st_dev, found.st_ino],
                _ODD: dict(_odd(path)),
            }
    for path in paths:
        left = room.left
        try:
            kept[path] = _look(path, room)
        except _TooMuchError:
            room.left = left
            lost.append(path)
    with storing("write", record):
        os.makedirs(os.path.dirname(record), 0o700, exist_ok=True)
        replace_private(record, json.dumps(kept).encode())
    return tuple(lost)


def put_back(record: str, aside: str) -> tuple[str, ...]:
    """Make them again what the record says; returns those that had been changed. What they were
    changed to is moved to the directory `aside`. Raises StorageError when one could not be, after the
    others."""
    changed: list[str] = []
    failed: StorageError | None = None
    for path, value in (read_object(record, _MOST_RECORD) or {}).items():
        before = as_dict(value)
        try:
            with storing("put back", path):
                if not _same(path, before):
                    changed.append(path)
                    _restore(path, before, aside)
                for odd in _new_odd(path, before):
                    changed.append(odd)
                    _set_aside(odd, aside)
        except StorageError as error:
            failed = error
    if failed is not None:
        raise failed
    return tuple(changed)


def forget(record: str) -> None:
    """The run is over: what changes from now on is a person's doing. Raises StorageError."""
    with storing("remove", record), contextlib.suppress(FileNotFoundError):
        os.unlink(record)


def _odd(top: str) -> Iterator[tuple[str, str]]:
    """The links and pipes below a directory of git, and where they lead. Not looked into: objects, which
    are never written twice, and what belongs to other work trees."""
    pending = [top]
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(directory) as entries:
                found = list(entries)
        except OSError:
            continue
        for entry in found:
            if entry.is_symlink():
                yield entry.path, os.readlink(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                closed = entry.name in ("worktrees", "modules") or directory.endswith("/objects")
                pending += [] if closed else [entry.path]
            elif not entry.is_file() and stat.S_ISFIFO(entry.stat(follow_symlinks=False).st_mode):
                yield entry.path, "|"


def _new_odd(path: str, before: Mapping[str, Any]) -> list[str]:
    if before.get("kind") != "place":
        return []
    had = as_dict(before.get(_ODD))
    return [odd for odd, to in _odd(path) if had.get(odd) != to]


def _same(path: str, before: Mapping[str, Any]) -> bool:
    if before.get("kind") == "place":
        found = stat_or_none(path, follow=False)
        return found is not None and [found.st_dev, found.st_ino] == before["id"]
    try:
        return _look(path, _Room()) == before
    except _TooMuchError:
        return False


class _TooMuchError(Exception):
    pass


def _look(path: str, room: _Room, depth: int = 0) -> Mapping[str, Any]:
    """What is at a path, as plain JSON."""
    found = stat_or_none(path, follow=False)
    if found is None:
        return {"kind": "none"}
    about = {"mode": stat.S_IMODE(found.st_mode)}
    try:
        if stat.S_ISLNK(found.st_mode):
            return {"kind": "link", "to": os.readlink(path)}
        if stat.S_ISDIR(found.st_mode):
            names = sorted(os.listdir(path))
            room.left -= 100 * (1 + len(names))
            if room.left < 0 or depth > _MOST_DEPTH:
                raise _TooMuchError
            below = {name: _look(f"{path}/{name}", room, depth + 1) for name in names}
            return {"kind": "directory", **about, "in": below}
        if not stat.S_ISREG(found.st_mode):
            return {"kind": "other", **about}
        room.left -= found.st_size
        if room.left < 0:
            raise _TooMuchError
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES)
    except OSError:
        return {"kind": "unreadable", **about}
    return {"kind": "file", **about, "data": base64.b64encode(data).decode()}


def _restore(path: str, before: Mapping[str, Any], aside: str) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        return
    os.chmod(parent, stat.S_IMODE(os.stat(parent).st_mode) | stat.S_IRWXU)
    moved = ""
    if before.get("kind") == "place":  # it was moved, most likely within its directory
        with os.scandir(parent) as entries:
            beside = [one.path for one in entries if one.inode() == before["id"][1]]
        moved = next(iter(beside), "")
    _set_aside(path, aside)
    if moved:
        os.rename(moved, path)
    else:
        _write(path, before)


def _set_aside(path: str, aside: str) -> None:
    if not os.path.lexists(path):
        return
    os.makedirs(aside, 0o700, exist_ok=True)
    if os.path.isdir(path) and not os.path.islink(path):
        os.chmod(path, stat.S_IRWXU)
    target = f"{aside}/{path.strip('/').replace('/', '_')[-100:]}.{stamp()}-{os.urandom(2).hex()}"
    try:
        os.rename(path, target)
    except OSError:  # another file system, or nothing that can be moved
        shutil.move(path, target)


def _write(path: str, before: Mapping[str, Any]) -> None:
    kind = before.get("kind")
    if kind == "link":
        os.symlink(as_text(before.get("to")), path)
    elif kind == "directory":
        os.makedirs(path)
        for name, below in as_dict(before.get("in")).items():
            _write(f"{path}/{name}", as_dict(below))
        os.chmod(path, int(before["mode"]))
    elif kind == "file":
        with open(path, "xb") as file:
            file.write(base64.b64decode(before["data"]))
        os.chmod(path, int(before["mode"]))
