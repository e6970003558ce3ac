"""What the loop owes, on disk: `git/owed.json` in the state directory.

It is written whenever a piece of the loop's work has begun or ended, so that whoever comes after a
kill knows what was the loop's: what had ended, by its content; what was under way, by the look
before it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.core.owed import Debt, Mark, seen, staged, stashed, taken, worked
from codex_self_iter.world.guarded import parse_object
from codex_self_iter.world.state.root import StateRoot

FILE = "git/owed.json"
SCHEMA = 1
_MAX = 64 * 1024 * 1024
"""Bytes; some 400,000 paths."""


class Ledger:
    """The debts of one loop, and what is under way.

    Attributes:
        debts: by path.
        staged: what the loop has put into git's index: fingerprints by path.
        stashed: what the loop's work has put into git's stash: commit ids.
        theirs: what somebody else had changed and the loop's work took out of the work tree:
            fingerprints by path.
        under_way: the look before work whose end nobody has seen yet, or None.
        home: the branch that was checked out before a run changed it; None: no run did.
        adrift: the last commit of the loop that was made on no branch, while no branch has it.
        known: False until a file was read or written: an older version kept none."""

    def __init__(self, root: StateRoot) -> None:
        self._root = root
        self.debts: dict[str, Debt] = {}
        self.staged: dict[str, str] = {}
        self.stashed: tuple[str, ...] = ()
        self.theirs: dict[str, str] = {}
        self.under_way: Mark | None = None
        self.home: str | None = None
        self.adrift = ""
        self.known = False
        self._written: bytes | None = None

    def load(self) -> None:
        """Read the file. Blocking. What cannot be understood is set aside. Raises StorageError."""
        data = self._root.read(FILE, _MAX)
        if data is None:
            return
        table = parse_object(data) if len(data) <= _MAX else None
        try:
            self.debts, self.staged, self.under_way = _parse(table)
            home, self.adrift = (table or {}).get("home"), _text((table or {}).get("adrift", ""))
            self.home = None if home is None else _text(home)
            self.stashed = tuple(map(_text, (table or {}).get("stashed", ())))
            theirs = (table or {}).get("theirs", {})
            self.theirs = {path: _text(value) for path, value in theirs.items()}
            self.known = True
        except (TypeError, ValueError, KeyError, AttributeError):
            self._root.set_aside(FILE, "cannot be read as what is not committed")

    def save(self) -> None:
        """Write the file, if it would be another one. Blocking. Raises StorageError."""
        value: dict[str, Any] = {
            "schema": SCHEMA,
            "paths": {path: dataclasses.asdict(debt) for path, debt in self.debts.items()},
            "staged": self.staged,
            "stashed": self.stashed,
            "theirs": self.theirs,
            "under_way": self.under_way.to_json() if self.under_way else None,
            "home": self.home,
            "adrift": self.adrift,
        }
        data = json.dumps(value).encode()
        if len(data) > _MAX:
            data = json.dumps(value | {"under_way": None}).encode()
        if data == self._written or (self._written is None and not self.known and self._empty):
            return
        self._root.replace(FILE, data)
        self._written, self.known = data, True

    @property
    def _empty(self) -> bool:
        left = self.debts or self.staged or self.stashed or self.theirs
        return not (left or self.under_way or self.adrift) and self.home is None

    def seen(self, look: Snapshot, iteration: int, wall: float) -> None:
        """Somebody looked: work whose end nobody had seen has ended by now."""
        if not look.complete:
            return
        if self.under_way is not None and self.under_way.look.complete:
            self.worked(self.under_way.look, look, iteration, wall)
        self.under_way = None
        self.debts = seen(self.debts, look)
        self.stashed = tuple(one for one in look.stashes if one in self.stashed)

    def worked(self, before: Snapshot, after: Snapshot, iteration: int, wall: float) -> None:
        """Work of the loop between two complete looks has ended."""
        theirs = self.theirs | taken(self.debts, before, after)
        self.debts = worked(self.debts, before, after, iteration, wall, self.theirs)
        self.theirs = {path: value for path, value in theirs.items() if path not in after.entries}
        self.staged = staged(self.staged, before, after)
        self.stashed = stashed(self.stashed, before, after)


def _parse(table: dict[str, Any] | None) -> tuple[dict[str, Debt], dict[str, str], Mark | None]:
    """Read the file's value. Raises TypeError, ValueError, KeyError or AttributeError."""
    if table is None:
        raise ValueError("not an object")
    if "schema" not in table:  # of an older version: path -> fingerprint
        return {path: Debt(_text(value)) for path, value in table.items()}, {}, None
    if table["schema"] != SCHEMA:
        raise ValueError("of another version")
    debts = {
        path: Debt(
            value=_text(one["value"]),
            iteration=int(one["iteration"]),
            since=float(one["since"]),
            why=_text(one["why"]),
            mixed=one["mixed"] is True,
        )
        for path, one in table["paths"].items()
    }
    put = {path: _text(value) for path, value in table.get("staged", {}).items()}
    mark = table.get("under_way")
    return debts, put, None if mark is None else Mark.from_json(mark)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
