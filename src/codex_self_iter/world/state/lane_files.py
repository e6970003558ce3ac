"""What a person asks of lanes: one file in `lanes/asked/` for each wish, taken by the supervisor.

Agents work beside this directory and may plant anything in it: what is no wish of ours is set
aside, and what cannot be read now waits. Only light imports beside the words of lanes."""

from __future__ import annotations

import contextlib
import os
import re

from codex_self_iter.core.lanes import Wish
from codex_self_iter.world.guarded import parse_object
from codex_self_iter.world.state.durable import encode_json, stamp, storing
from codex_self_iter.world.state.inbox import leave
from codex_self_iter.world.state.root import StateRoot

ASKED = "lanes/asked"
LANE_ID = re.compile(r"\d{1,6}[a-z]?(-\d{1,6})?", re.ASCII)
"""How a lane is called: number of the item, a letter for a candidate, "-2" for a second lane."""
MAX_WISH = 4096
"""Bytes of such a file."""
MOST_WISHES = 200
"""Files that are read at once; the rest wait."""


def write_wish(state_dir: str, wish: Wish, lane: str) -> str:
    """Ask something of a lane; returns the file's path. Raises StorageError."""
    name = f"{ASKED}/{stamp()}-{os.urandom(3).hex()}.json"
    return leave(state_dir, name, encode_json({"wish": wish.value, "lane": lane}).decode() + "\n")


def read_wishes(root: StateRoot) -> list[tuple[str, Wish, str]]:
    """The wishes that wait, as they were asked: name of the file, wish, lane. What is none is set
    aside. Raises StorageError."""
    found = []
    for name in _names(root):
        data = root.read(f"{ASKED}/{name}", MAX_WISH)
        if data is None:  # it is gone, or was no file and is set aside
            continue
        read = parse_object(data) or {}
        wish, lane = read.get("wish"), read.get("lane")
        known = isinstance(wish, str) and wish in {one.value for one in Wish}
        if len(data) > MAX_WISH or not known or not is_lane(lane):
            root.set_aside(f"{ASKED}/{name}", 'it is no {"wish": "keep|drop|retry", "lane": ID}')
            continue
        found.append((name, Wish(str(wish)), str(lane)))
    return found


def is_lane(value: object) -> bool:
    """Whether a lane can be called so."""
    return isinstance(value, str) and LANE_ID.fullmatch(value) is not None


def done(root: StateRoot, name: str) -> None:
    """Remove a wish that was taken; it may be gone already. Raises StorageError."""
    path = f"{root.path}/{ASKED}/{name}"
    with (
        root.guard,
        storing("remove", path),
        contextlib.suppress(FileNotFoundError),
        root.directory(ASKED, create=False) as fd,
    ):
        os.unlink(name, dir_fd=fd)


def _names(root: StateRoot) -> list[str]:
    """The files that wait; their names begin with the time."""
    with root.guard, storing("read", f"{root.path}/{ASKED}"):
        try:
            with root.directory(ASKED, create=False) as fd:
                names = os.listdir(fd)
        except FileNotFoundError:
            return []
    return sorted(name for name in names if not name.startswith("."))[:MOST_WISHES]
