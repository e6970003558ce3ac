"""What the loop has changed and not committed: whose a change is, judged by content. Pure.

What changes while something of the loop works (a run, a gate, a commit hook) is the loop's; what
changes in between is somebody else's. So the looks before and after each piece of work tell it,
path by path, with what was owed already:

    clean before, different after                        the loop's: owed
    owed before, with just that content                  the loop's: owed
    owed before, and edited in between by somebody else  two hands in one file: theirs to commit
    dirty before, not owed, and changed                  two hands in one file: theirs to commit
    dirty before, untouched                              somebody else's
    clean before, after just what work took from there   somebody else's, brought back
    clean after                                          committed or taken back: owed no more

Leaving a mixed file is the safe side: nothing of a person's is published under our message, and
nothing of the loop's is lost. Once it is committed or taken back, it belongs to the loop again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.core.progress import printable

SAMPLE = 10
"""So many paths are named; the others are counted."""
WHY = 4000
"""Characters of a reason; a hook may say a lot."""
MIXED = "was changed and not committed before the iteration"
EDITED = "was edited by somebody else since the loop changed it"
LEFT_OUT = "left out: let .gitignore name it, or commit it yourself on purpose"
"""Ends the reason of what is not committed unasked: an agent can let git ignore it."""
CONFLICT = "has an unresolved conflict: resolve it in the file, or git add it"
_MENDABLE = (LEFT_OUT, CONFLICT)
NESTED = ("160000", "repository")
NONE: Mapping[str, str] = MappingProxyType({})


@dataclasses.dataclass(frozen=True, slots=True)
class Debt:
    """One path that the loop changed and has not committed.

    Attributes:
        value: its fingerprint when the loop's last work on it ended.
        iteration, since: when it was first owed: number, Unix seconds.
        why: why it is not committed yet, or "".
        mixed: somebody else's changes are in it, too."""

    value: str
    iteration: int = 0
    since: float = 0.0
    why: str = ""
    mixed: bool = False


Debts = Mapping[str, Debt]
"""By path, relative to the workspace."""


@dataclasses.dataclass(frozen=True, slots=True)
class Owed:
    """All debts in short.

    Attributes:
        count: how many paths; 0 with a reason: nobody could look which.
        iteration: the oldest debt's.
        files: some of them, fit for UTF-8.
        why: why they are not committed; "" when it was not tried yet.
        mendable: an agent can do something about it (a hook refuses, a lock is left, a
            conflict is not resolved, what is left out is to be ignored)."""

    count: int = 0
    iteration: int = 0
    files: tuple[str, ...] = ()
    why: str = ""
    mendable: bool = False

    def __bool__(self) -> bool:
        return self.count > 0 or bool(self.why)

    def told(self) -> str:
        """One line for people, "" when nothing is owed."""
        if not self:
            return ""
        one = self.count == 1
        why = " ".join(self.why.split()) or "not tried since"
        files = ", ".join(self.files[:3]) + ("" if self.count <= 3 else ", …")
        short = why if len(why) <= 300 else why[:299] + "…"
        if not self.count:
            return f"what the loop changed is not committed: {short}"
        return f"{self.count} {'file is' if one else 'files are'} not committed ({files}): {short}"


NOTHING = Owed()


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """The workspace at the beginning of a piece of the loop's work.

    Attributes:
        look: its content.
        locks: git's lock files that were there, each with what tells it from a later one; None:
            nobody looked."""

    look: Snapshot
    locks: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON value; a Snapshot's own, with the locks."""
        return self.look.to_json() | {"locks": self.locks}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Mark:
        """Read `to_json`'s value or a Snapshot's. Raises KeyError, TypeError or AttributeError."""
        locks = data.get("locks")
        return cls(Snapshot.from_json(data), None if locks is None else dict(locks))


def seen(debts: Debts, look: Snapshot) -> dict[str, Debt]:
    """The debts at a look: without what is clean by now; what somebody else edited is mixed."""
    if not look.complete:
        return dict(debts)
    now: dict[str, Debt] = {}
    for path, debt in debts.items():
        value = look.entries.get(path)
        if value is not None and (value == debt.value or debt.mixed):
            now[path] = debt
        elif value is not None:
            now[path] = dataclasses.replace(debt, why=EDITED, mixed=True)
    return now


def worked(
    debts: Debts,
    before: Snapshot,
    after: Snapshot,
    iteration: int,
    wall: float,
    theirs: Mapping[str, str] = NONE,
) -> dict[str, Debt]:
    """The debts once work of the loop between two complete looks has ended; `theirs`: what earlier
    work has `taken`."""
    now = seen(debts, before)
    for path in before.entries.keys() | after.entries.keys():
        was, value, known = before.entries.get(path), after.entries.get(path), now.get(path)
        if value is None:
            now.pop(path, None)
        elif was != value:
            foreign = was is not None or theirs.get(path) == value
            mixed = foreign if known is None else known.mixed
            why = MIXED if known is None and mixed else known.why if known is not None else ""
            debt = known or Debt("", iteration, wall)
            now[path] = dataclasses.replace(debt, value=value, why=why, mixed=mixed)
    return now


def taken(
    debts: Debts, before: Snapshot, after: Snapshot, *, whole: bool = False
) -> dict[str, str]:
    """Somebody else's changes that work took out of the work tree (a stash, a hook that was ended
    before it brought them back), or committed: path -> fingerprint. `whole`: the loop's own, too."""
    return {
        path: value
        for path, value in before.entries.items()
        if path not in after.entries and (whole or path not in debts or debts[path].mixed)
    }


def staged(known: Mapping[str, str], before: Snapshot, after: Snapshot) -> dict[str, str]:
    """What the loop's work has put into git's index and is still there: path -> fingerprint.

    Other staged content is somebody else's: theirs to commit, and kept for them."""
    return {
        path: value
        for path, value in after.staged.items()
        if value != before.staged.get(path) or value == known.get(path)
    }


def stashed(known: Iterable[str], before: Snapshot, after: Snapshot) -> tuple[str, ...]:
    """What the loop's work has put into git's stash and is still there."""
    ours = {*known, *after.stashes} - (set(before.stashes) - set(known))
    return tuple(one for one in after.stashes if one in ours)


def _inner(look: Snapshot) -> list[str]:
    """The repositories inside this one that differ, each with a slash."""
    return [f"{path}/" for path, value in look.entries.items() if value.startswith(NESTED)]


def unkept(look: Snapshot) -> list[str]:
    """What no commit and no checkpoint of this repository can hold: changes inside others."""
    inner = tuple(_inner(look))
    return sorted(printable(path) for path in look.entries if inner and path.startswith(inner))


def divide(debts: Debts, look: Snapshot) -> tuple[dict[str, str], dict[str, str]]:
    """What can be committed now: (ours: path -> fingerprint, left: path -> reason)."""
    ours: dict[str, str] = {}
    left: dict[str, str] = {}
    inner = tuple(_inner(look))
    for path, debt in debts.items():
        value = look.entries.get(path)
        if value is None:
            continue
        if path.startswith(inner):
            outer = next(one for one in inner if path.startswith(one)).rstrip("/")
            left[path] = f"inside {printable(outer)}, a repository of its own: commit it there"
        elif value.startswith(("repository", "special", "unreadable")):
            left[path] = f"{value.partition(' ')[0]}: cannot be committed"
        elif debt.mixed or value != debt.value:
            left[path] = debt.why or MIXED
        else:
            ours[path] = value
    foreign = [path for path in look.entries if path not in ours and not path.startswith(inner)]
    for path in colliding(ours, foreign):
        del ours[path]
        left[path] = "stands where a file of somebody else's is missing"
    return ours, left


def colliding(ours: Iterable[str], foreign: Iterable[str]) -> list[str]:
    """Paths of ours that lie below a foreign path, or above one: no tree can hold both."""
    others = set(foreign)
    above = {parent for path in others for parent in _parents(path)}
    return [
        path for path in ours if path in above or any(parent in others for parent in _parents(path))
    ]


def _parents(path: str) -> Iterable[str]:
    """ "a/b/c" -> "a", "a/b"."""
    return (path[:place] for place, letter in enumerate(path) if letter == "/")


def explained(debts: Debts, whys: Mapping[str, str]) -> dict[str, Debt]:
    """The debts with what the last commit said of them."""
    return {
        path: dataclasses.replace(debt, why=whys[path][:WHY]) if path in whys else debt
        for path, debt in debts.items()
    }


def summary(debts: Debts, error: str = "", stash: str = "") -> Owed:
    """All debts in short; `error`: why the last commit could not be made; `stash`: what a run has
    put out of the work tree."""
    if not debts and not error and not stash:
        return NOTHING
    names = sorted(debts)
    if error:
        why = error
    else:
        told = [f"{printable(path)} {debts[path].why}" for path in names if debts[path].why]
        more = f"; and {len(told) - SAMPLE} more" if len(told) > SAMPLE else ""
        why = "; ".join(told[:SAMPLE]) + more
    why = "; ".join(filter(None, (stash, why)))
    return Owed(
        count=len(debts),
        iteration=min((debt.iteration for debt in debts.values()), default=0),
        files=tuple(printable(path) for path in names[:SAMPLE]),
        why=why[:WHY],
        mendable=bool(error) or any(debt.why.endswith(_MENDABLE) for debt in debts.values()),
    )
