"""What the supervisors of one user share of a channel: who listens there, who asks it, what was heard.

`$XDG_STATE_HOME/codex-self-iter/replies/KEY/`: a file for each loop, `lock`, held by the one program
that asks the channel for all, and `heard.json`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from codex_self_iter.core.foreign import as_dict, as_list, as_number, as_text
from codex_self_iter.core.reply import KNOWN, Loop, Memory, digest
from codex_self_iter.screens.loops import Target, life
from codex_self_iter.world import registry
from codex_self_iter.world.guarded import open_guarded, read_object
from codex_self_iter.world.state.durable import replace_private
from codex_self_iter.world.state.holder import try_lock

_HEARD = "heard.json"


class Doing(NamedTuple):
    """A reply that is being acted upon: whose, which command, and where its answer goes."""

    sender: str
    command: str
    to: tuple[Any, ...]


class Desk:
    """Of one channel. Methods raise OSError."""

    def __init__(self, key: str) -> None:
        """Made if need be."""
        base = registry.directory()
        if not base:
            raise FileNotFoundError("there is no home directory to keep the channel's lock in")
        self._place = os.path.join(os.path.dirname(base), "replies", key[:24])
        os.makedirs(self._place, mode=0o700, exist_ok=True)
        self._lock = open_guarded(os.path.join(self._place, "lock"), os.O_RDWR | os.O_CREAT)

    def mine(self) -> bool:
        """Whether this program is the one that asks; it stays so until it ends."""
        return try_lock(self._lock)

    def close(self) -> None:
        """Let another one ask."""
        os.close(self._lock)

    def join(self, loop: Loop, workspace: str) -> None:
        """A loop listens here."""
        entry = {
            "name": loop.name,
            "workspace": workspace,
            "state_dir": loop.state_dir,
            "allowed": loop.allowed,
        }
        replace_private(self._path(loop.state_dir), json.dumps(entry).encode())

    def leave(self, state_dir: str) -> None:
        """It does no longer."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(state_dir))

    def loops(self) -> list[tuple[Loop, Target]]:
        """Those that listen and live, each with a name of its own."""
        found: list[tuple[registry.Entry, Sequence[str]]] = []
        for name in sorted(os.listdir(self._place)):
            if not name.startswith("loop-"):
                continue
            entry = read_object(os.path.join(self._place, name)) or {}
            called, workspace, state_dir = (
                as_text(entry.get(key)) for key in ("name", "workspace", "state_dir")
            )
            allowed = [as_text(one) for one in as_list(entry.get("allowed"))]
            if state_dir and life(Target(called, workspace, state_dir), {}).alive:
                found.append((registry.Entry(called, workspace, state_dir, 0, ""), allowed))
        names = registry.display_names([entry for entry, _ in found])
        return [
            (
                Loop(names[entry.state_dir], entry.state_dir, tuple(allowed), entry.name),
                Target(names[entry.state_dir], entry.workspace, entry.state_dir),
            )
            for entry, allowed in found
        ]

    def recall(self) -> tuple[Memory, str, Doing | None]:
        """What was heard; the channel's mark, "" where it was never asked; what was being done."""
        data = read_object(os.path.join(self._place, _HEARD)) or {}
        pairs = [one for one in as_list(data.get("seen")) if isinstance(one, list)]
        seen = tuple((as_text(one[0]), as_number(one[1])) for one in pairs if len(one) == 2)
        memory = Memory(seen[-KNOWN:], as_number(data.get("floor")))
        doing = as_dict(data.get("doing"))
        about = as_text(doing.get("sender")), as_text(doing.get("command"))
        known = Doing(*about, tuple(as_list(doing.get("to")))) if doing else None
        return memory, as_text(data.get("mark")), known

    def remember(self, memory: Memory, mark: str, doing: Doing | None = None) -> None:
        """Keep that, before anything is done about it: a reply is taken once, or not at all."""
        data = {"mark": mark, "floor": memory.floor, "seen": memory.seen}
        data |= {"doing": doing._asdict()} if doing else {}
        replace_private(os.path.join(self._place, _HEARD), json.dumps(data).encode(), sync=True)

    def _path(self, state_dir: str) -> str:
        return os.path.join(self._place, f"loop-{digest(state_dir)[:24]}.json")
