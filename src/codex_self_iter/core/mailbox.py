"""Words to a person that are still to be sent: what waits, when it is tried again, when given up.

A word is kept before what it tells of is on the disk, and is known by its key: a supervisor that is
killed in between says it once more at most, and never not at all."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence

from codex_self_iter.core.backoff import exponential

MOST = 50
"""Words that wait; the oldest go for new ones, and are counted."""
KNOWN = 200
"""Keys of words that were sent, by which they are not sent again."""
FIRST_SEC, LONGEST_SEC = 30.0, 3600.0
"""The wait after the first failure; it doubles up to the longest."""
DAY_SEC = 86_400.0
"""So long a target that asks for it is left alone, at most."""
GIVE_UP_SEC = 3 * DAY_SEC
"""A word so old is tried no more."""
MOST_ERROR = 300


@dataclasses.dataclass(frozen=True, slots=True)
class Notice:
    """One word: what has happened to which loop. Texts are redacted.

    Attributes:
        key: the same for the same word; event: see docs/notifications.md.
        at, since: Unix seconds: when it happened, and since when the loop is in its state.
        done, total: items of the plan; changed: files that the last iteration changed.
        said: what the last iteration said of itself.
        gone: its workspace is not there any more.
        config: the configuration file that its start was given, "" for none."""

    key: str
    event: str
    text: str
    at: float
    loop: str
    workspace: str
    state_dir: str
    state: str
    since: float
    iteration: int
    done: int = 0
    total: int = 0
    changed: int = 0
    said: str = ""
    gone: bool = False
    config: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Pending:
    """A target that has not had a word yet. `due`: Unix seconds of the next try."""

    target: str
    tries: int = 0
    due: float = 0.0
    error: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A word, who has still to be told, and what became of the others: "sent" or why not. `before`:
    the word before it, for what was done since."""

    notice: Notice
    pending: tuple[Pending, ...]
    outcomes: dict[str, str] = dataclasses.field(default_factory=dict)
    before: Notice | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Mailbox:
    """All of a loop.

    Attributes:
        entries: what waits, the oldest first.
        known: keys of words that were kept before, the newest last.
        dropped: how many went without a word for want of room, since somebody was told so.
        last: the newest word that was kept.
        rests: targets that have asked to be left alone, each until when (Unix seconds).
        digest_day, digest_at: day (as a number) and time (Unix seconds) of the last digest; 0: none."""

    entries: tuple[Entry, ...] = ()
    known: tuple[str, ...] = ()
    dropped: int = 0
    last: Notice | None = None
    rests: dict[str, float] = dataclasses.field(default_factory=dict)
    digest_day: int = 0
    digest_at: float = 0.0


def key_of(*parts: object) -> str:
    """What names a word: the loop, its iteration, the event, the text."""
    text = "\0".join(map(str, parts))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def added(box: Mailbox, notice: Notice, targets: Sequence[str]) -> Mailbox:
    """The same with this word for these targets; the same box where it was there already, or nobody
    is to be told."""
    if notice.key in box.known or not targets:
        return box
    pending = tuple(Pending(name) for name in targets)
    entries = (*box.entries, Entry(notice, pending, before=box.last))
    over = max(0, len(entries) - MOST)
    return dataclasses.replace(
        box,
        entries=entries[over:],
        known=(*box.known, notice.key)[-KNOWN:],
        dropped=box.dropped + over,
        last=notice,
    )


def passed_over(box: Mailbox, key: str) -> Mailbox:
    """The same, where this word is known and told to nobody: another loop has."""
    return dataclasses.replace(box, known=(*box.known, key)[-KNOWN:])


def due(box: Mailbox, target: str, now: float, *, last: bool = False) -> tuple[Entry, ...]:
    """The words that a target should be sent now, the oldest first. `last`: nobody is there later, so
    that only a target that has asked to be left alone is."""
    return tuple(
        entry
        for entry in box.entries
        for one in entry.pending
        if one.target == target and _rest(box, Pending(target) if last else one, now) <= 0
    )


def untried(entries: Iterable[Entry], target: str) -> tuple[Entry, ...]:
    """Those of them that were never sent to a target."""
    return tuple(
        entry
        for entry in entries
        if any(one.target == target and not one.tries for one in entry.pending)
    )


def awaited(box: Mailbox) -> set[str]:
    """The targets for which something waits."""
    return {one.target for entry in box.entries for one in entry.pending}


def patience(box: Mailbox, now: float) -> float | None:
    """Seconds until something is due; None when nothing waits."""
    rests = [_rest(box, one, now) for entry in box.entries for one in entry.pending]
    return max(0.0, min(rests)) if rests else None


def _rest(box: Mailbox, one: Pending, now: float) -> float:
    """Seconds until a target is due; a clock that was set back by more than an hour makes it no longer
    than it was."""
    rests = (due - now for due in (one.due, box.rests.get(one.target, 0.0)))
    return max(rest if rest <= DAY_SEC + 3600 else 0.0 for rest in rests)


def held(box: Mailbox, target: str, until: float) -> Mailbox:
    """The same, where the target is sent nothing before that time (Unix seconds)."""
    return _each(box, lambda _, one: dataclasses.replace(one, due=max(one.due, until)), target)


def settled(
    box: Mailbox, keys: Iterable[str], target: str, error: str, now: float, rest: float = 0.0
) -> tuple[Mailbox, tuple[Entry, ...]]:
    """The same after a try to send these words to a target: `error` "" is sent; `rest`: so many
    seconds it asks to be left alone. With it those that nobody waits for any more."""
    tried, rest = set(keys), min(rest, DAY_SEC)

    def after(entry: Entry, one: Pending) -> Pending | str:
        if entry.notice.key not in tried:
            return one
        if not error:
            return "sent"
        if now - entry.notice.at > GIVE_UP_SEC:
            return f"given up after {one.tries + 1} tries: {error[:MOST_ERROR]}"
        wait = max(rest, exponential(one.tries + 1, FIRST_SEC, LONGEST_SEC, 0.0))
        return Pending(target, one.tries + 1, now + wait, error[:MOST_ERROR])

    box = _each(box, after, target)
    over = tuple(entry for entry in box.entries if not entry.pending)
    left = tuple(entry for entry in box.entries if entry.pending)
    dropped = 0 if not error and tried else box.dropped
    rests = {name: until for name, until in box.rests.items() if until > now and name != target}
    rests |= {target: now + rest} if rest > 0 else {}
    return dataclasses.replace(box, entries=left, dropped=dropped, rests=rests), over


def digest_due(last: int, today: int, *, reached: bool) -> tuple[bool, int]:
    """Whether the digest of today is to be told now, and the day that is then the last one. Days are
    numbers; `last` is 0 before the first look, `reached`: it is the hour, or later.

    No day is told twice while the clock goes wrong by less than a day; one that was far ahead costs the
    day on which it is set right."""
    if not last:
        return False, today if reached else today - 1
    if last > today + 1:
        return False, today
    due = reached and today > last
    return due, today if due else last


def without(box: Mailbox, targets: Iterable[str]) -> tuple[Mailbox, tuple[Entry, ...]]:
    """The same for these targets only: one that is not configured any more is sent nothing."""
    have = set(targets)
    gone = awaited(box) - have
    for name in gone:
        box = _each(box, lambda _e, _o: "given up: it is not in the configuration any more", name)
    over = tuple(entry for entry in box.entries if not entry.pending)
    left = tuple(entry for entry in box.entries if entry.pending)
    return (dataclasses.replace(box, entries=left), over) if gone else (box, ())


def _each(box: Mailbox, change: Callable[[Entry, Pending], Pending | str], target: str) -> Mailbox:
    entries = []
    for entry in box.entries:
        pending, outcomes = list[Pending](), dict(entry.outcomes)
        for one in entry.pending:
            new = change(entry, one) if one.target == target else one
            if isinstance(new, str):
                outcomes[target] = new
            else:
                pending.append(new)
        entries.append(dataclasses.replace(entry, pending=tuple(pending), outcomes=outcomes))
    return dataclasses.replace(box, entries=tuple(entries))
