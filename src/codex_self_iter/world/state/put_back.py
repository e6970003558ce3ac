"""Small files and directories that are to be after a run what they were before it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from codex_self_iter.core.foreign import as_dict, as_text
from codex_self_iter.world.guarded import read_object, stat_or_none
from codex_self_iter.world.state.durable import replace_private, stamp, storing

MOST_BYTES = 8 * 1024 * 1024
"""All of them together; what is beyond is not kept."""
_MOST_RECORD = 4 * MOST_BYTES


class _Room:
    def __init__(self) -> None:
        self.left = MOST_BYTES


def keep(paths: Iterable[str], places: Iterable[str], record: str) -> tuple[str, ...]:
    """Write down what they are, in the file `record`; of `places`, directories, only which ones they
    are. Returns those that are too large to be kept. Raises StorageError."""
    room, kept, lost = _Room(), dict[str, Any](), list[str]()
    for path in places:
        if (found := stat_or_none(path, follow=False)) is not None:
            kept[path] = {"kind": "place", "id": [found.st_dev, found.st_ino]}
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
    changed to is moved to the directory `aside`. Raises StorageError."""
    changed = []
    for path, value in (read_object(record, _MOST_RECORD) or {}).items():
        before = as_dict(value)
        if not _same(path, before):
            changed.append(path)
            with storing("put back", path):
                _restore(path, before, aside)
    return tuple(changed)


def forget(record: str) -> None:
    """The run is over: what changes from now on is a person's doing. Raises StorageError."""
    with storing("remove", record), contextlib.suppress(FileNotFoundError):
        os.unlink(record)


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


def _look(path: str, room: _Room) -> Mapping[str, Any]:
    """What is at a path, as plain JSON."""
    found = stat_or_none(path, follow=False)
    if found is None:
        return {"kind": "none"}
    about = {"mode": stat.S_IMODE(found.st_mode)}
    if stat.S_ISLNK(found.st_mode):
        return {"kind": "link", "to": os.readlink(path)}
    if stat.S_ISDIR(found.st_mode):
        room.left -= 100
        names = sorted(os.listdir(path))
        if room.left < 0:
            raise _TooMuchError
        return {
            "kind": "directory",
            **about,
            "in": {name: _look(f"{path}/{name}", room) for name in names},
        }
    if not stat.S_ISREG(found.st_mode):
        return {"kind": "other", **about}
    room.left -= found.st_size + 100
    if room.left < 0:
        raise _TooMuchError
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES)
    except OSError:
        data = b""
    return {"kind": "file", **about, "data": base64.b64encode(data).decode()}


def _restore(path: str, before: Mapping[str, Any], aside: str) -> None:
    parent = os.path.dirname(path)
    moved = ""
    if before.get("kind") == "place":  # it was moved, most likely within its directory
        with os.scandir(parent) as entries:
            beside = [one.path for one in entries if one.inode() == before["id"][1]]
        moved = next(iter(beside), "")
    if os.path.lexists(path):
        os.makedirs(aside, 0o700, exist_ok=True)
        name = path.strip("/").replace("/", "_")[-100:]
        shutil.move(path, f"{aside}/{name}.{stamp()}-{os.urandom(2).hex()}")
    if moved:
        os.rename(moved, path)
    elif os.path.isdir(parent):
        _write(path, before)


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
