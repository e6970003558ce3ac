"""What the supervisor finds out for itself: the content of a work tree, the gates' results."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class GateResult:
    """One verification command's end. `output` is head and tail, bounded, ready for a prompt;
    `exit_code` is 128 and the signal's number where one ended it, as shells have it."""

    command: str
    exit_code: int | None
    duration_sec: float
    output: str
    timed_out: bool = False
    flaw: str = ""
    """Why it could not run at all ("command not found"), else ""."""
    items: tuple[str, ...] = ()
    """Titles of the items of the plan whose check it is; of a gate none."""
    tick: str = ""
    """What became of their ticks when it failed."""
    refused: tuple[str, ...] = ()
    """Marks (see `Iteration.ticked_marks`) of the ticks that were taken back."""
    started_at: float = 0.0
    """0.0: not known, as in what an older version wrote."""

    @property
    def ok(self) -> bool:
        """True when the command exited 0 in time."""
        return self.exit_code == 0 and not self.timed_out and not self.flaw

    def to_json(self) -> dict[str, Any]:
        """Plain JSON value."""
        return dataclasses.asdict(self) | {"ok": self.ok}


_MISSING = {126: " (a program of it cannot be executed)", 127: " (a program of it is not there)"}

_SIGNALS = {
    129: "HUP", 130: "INT", 131: "QUIT", 132: "ILL", 134: "ABRT", 135: "BUS", 136: "FPE", 137: "KILL",
    139: "SEGV", 141: "PIPE", 143: "TERM", 152: "XCPU", 153: "XFSZ",
}  # fmt: skip
"""As shells tell what ended a program."""


def gate_end(gate: Mapping[str, Any]) -> str:
    """How a gate ended, in words; `gate` as `GateResult.to_json`, perhaps an older one."""
    return _ended(gate) + gate_before(gate)


def gate_before(gate: Mapping[str, Any]) -> str:
    """What to add of a gate of the journal that had failed before the loop's first run, else ""."""
    return ", was red before the loop began" if gate.get("red_at_start") else ""


def _ended(gate: Mapping[str, Any]) -> str:
    if gate.get("ok"):
        return "passed"
    if gate.get("flaw"):
        return f"could not run: {gate['flaw']}"
    if gate.get("timed_out"):
        return "timed out"
    code = gate.get("exit_code")
    if code in _SIGNALS:
        return f"ended by signal {_SIGNALS[code]} (code {code})"
    missing = _MISSING.get(code, "") if isinstance(code, int) else ""
    return f"exited with code {code}{missing}"


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """The content of a work tree, reduced to what tells progress.

    Attributes:
        head: commit id, or "" (unborn branch or no git).
        branch: name, or "" when detached or without git.
        entries: path -> content fingerprint of every tracked file that differs from HEAD and every
            untracked file that is not ignored ("" fingerprint: deleted).
        complete: False when a bound was hit or git did not answer: equality then proves nothing.
        note: why it is incomplete, or a state worth knowing ("merge in progress", "index.lock left
            behind").
        staged: path -> fingerprint in git's index of every tracked file that is staged otherwise
            than in HEAD ("": taken out of the index).
        stashes: commit ids of what is in git's stash, the newest first.
        rest: what is another one when a name, size or time of an untracked file changes that is
            beyond the bound and so not among the entries; "" unless that is all that is missing."""

    head: str
    branch: str
    entries: Mapping[str, str]
    complete: bool = True
    note: str = ""
    staged: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stashes: tuple[str, ...] = ()
    rest: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON value."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Snapshot:
        """Read `to_json`'s value. Raises KeyError or TypeError for anything else."""
        # an older version looked at less
        data = {"staged": {}, "stashes": (), "rest": "", **data}
        data["stashes"] = tuple(data["stashes"])
        found = cls(**{field.name: data[field.name] for field in dataclasses.fields(cls)})
        texts = [found.head, found.branch, found.note, found.rest, *found.stashes]
        whole = isinstance(found.complete, bool)
        for table in (found.entries, found.staged):
            whole = whole and isinstance(table, Mapping)
            texts += [*table, *table.values()] if whole else []
        if not whole or not all(isinstance(text, str) for text in texts):
            raise TypeError("not a snapshot of ours")
        return found
