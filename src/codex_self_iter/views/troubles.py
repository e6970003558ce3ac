"""What is wrong with a loop, or holds it: in words, each with the one command that mends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from codex_self_iter.core.foreign import as_dict, as_list, as_text
from codex_self_iter.core.text import clean, epoch, typed
from codex_self_iter.views import lane_rows as lanes
from codex_self_iter.views.rows import Urgency, asks, quiet, urgency
from codex_self_iter.views.summary import BAD, Seen, Surroundings, View


class Trouble(NamedTuple):
    """One thing that a person may want to know or mend. The texts are clean, of one line each.

    Attributes:
        kind: a word that stays the same while it lasts, such as "gone", "blocked", "quiet".
        urgency: NEEDS_YOU, STUCK or WAITING; of what can be looked at later, WORKING.
        mend: a command line, "" where nothing but time, or what the words say, helps.
        since: Unix seconds, None where it is not known."""

    kind: str
    urgency: Urgency
    words: str
    mend: str = ""
    since: float | None = None


def troubles(seen: Seen, around: Surroundings) -> list[Trouble]:
    """All of a loop, the most urgent first. Where its file cannot be believed nothing more is taken
    from it."""
    if around.gone and not seen.life.alive:  # no other command takes it
        words = f"its workspace {clean(seen.workspace)} is gone"
        mend = clean(f"codex-self-iter history{around.where}")
        return [Trouble("homeless", Urgency.NEEDS_YOU, words, mend)]
    believed = () if seen.flaw else _of_its_state(seen, around)
    found = (
        *_of_its_life(seen, around),
        *believed,
        *_of_its_work(seen, around),
        *(_of_its_lanes(seen, around) if not seen.flaw else ()),
        *_of_what_is_left(seen, around),
    )
    told = (one._replace(words=clean(one.words), mend=clean(one.mend)) for one in found)
    return sorted(told, key=lambda one: one.urgency)


def _of_its_life(seen: Seen, around: Surroundings) -> Iterator[Trouble]:
    """Whether there is anybody who would go on with it."""
    view, pid = View(seen, around), seen.life.pid
    heard = epoch(seen.status.get("updated_at"))
    if seen.gone and not seen.life.alive:  # a supervisor puts it back by itself
        words = f"{seen.flaw}; if that was meant, this forgets it, and every other of the kind"
        yield Trouble("vanished", Urgency.NEEDS_YOU, words, "codex-self-iter status --all")
    elif seen.flaw:
        yield Trouble(
            "unreadable", Urgency.NEEDS_YOU, seen.flaw, f"codex-self-iter doctor{around.own}"
        )
    if seen.life.orphan:
        mend = _start(around)
        yield Trouble("orphan", Urgency.NEEDS_YOU, view.orphan(), mend, heard)
    elif seen.state()[0] == "gone":
        mend = _start(around)
        words = f"the supervisor is {view.supervisor()}"
        yield Trouble("gone", Urgency.NEEDS_YOU, words, mend, heard)
    if seen.life.late:
        words = f"supervisor {view.supervisor()}"
        yield Trouble("late", Urgency.NEEDS_YOU, words, f"kill -CONT {pid}", heard)


def _start(around: Surroundings) -> str:
    """The command that goes on with it, whatever lies in its way."""
    return f"codex-self-iter run{around.own}{' --clear-stop' if around.stop else ''}"


def _of_its_state(seen: Seen, around: Surroundings) -> Iterator[Trouble]:
    """What it has ended with, or waits for."""
    status, where, state = seen.status, around.where, seen.state()[0]
    since, reason = epoch(status.get("since")), as_text(status.get("reason"))
    number = as_dict(status.get("last")).get("iteration")
    if asks(seen):
        words, mend = f"its agent waits for a person: {reason}", f'codex-self-iter steer{where} "…"'
        if any(seen.waiting):  # what it was told helps nobody until it is started
            words, mend = f"answered, but nothing runs it: {reason}", _start(around)
        yield Trouble("asks", Urgency.NEEDS_YOU, words, mend, since)
    elif state in BAD:
        mend = f"codex-self-iter doctor{around.own}"
        if state == "stagnated":
            mend = f"codex-self-iter show{where} {number}" if number else mend
        words = View(seen, around).wait() or f"{state}: {reason}"
        yield Trouble(state, Urgency.NEEDS_YOU, words, mend, since)
    elif state == "paused":
        words = f"paused: {reason}"
        yield Trouble("paused", Urgency.PAUSED, words, f"codex-self-iter resume{where}", since)
    elif state in ("limited", "backoff", "cooldown"):
        mend = "" if state == "limited" else f'codex-self-iter steer --now{where} "…"'
        words = View(seen, around).wait() or f"{state}: {reason}"
        yield Trouble(state, Urgency.WAITING, words, mend, since)


def _of_its_work(seen: Seen, around: Surroundings) -> Iterator[Trouble]:
    """Signs that a loop which is at it gets nowhere."""
    if urgency(seen) is not Urgency.STUCK:  # one that is paused or limited does nothing by intent
        return
    words = View(seen, around).stuck()
    logs = f"codex-self-iter logs -f{around.where}"
    yield Trouble("quiet" if quiet(seen) else "stuck", Urgency.STUCK, words, logs)


def _of_its_lanes(seen: Seen, around: Surroundings) -> Iterator[Trouble]:
    """Lanes that do not go on without a person, and what has landed beside the target."""
    for one in lanes.needy(seen.status):
        words = f"lane {one.lane} needs you: {one.why} ({one.item})"
        mend = f"codex-self-iter lanes show {typed(one.lane)}{around.where}"
        yield Trouble("lane", Urgency.NEEDS_YOU, words, mend, one.since)
    if why := lanes.held(seen.status):
        mend = f"git -C {typed(seen.workspace)} status"
        yield Trouble("held", Urgency.WORKING, f"what has landed is held back: {why}", mend)


def _of_what_is_left(seen: Seen, around: Surroundings) -> Iterator[Trouble]:
    """What could not be done for the person, and what keeps the next start from working."""
    owed, where = View(seen, around).owed(), around.where
    if owed:
        yield Trouble("owed", Urgency.WORKING, owed, f"codex-self-iter status{where}")
    if around.stop and not seen.life.alive:
        words = "a STOP file is there: the next start ends at once"
        yield Trouble("stop", Urgency.WORKING, words, _start(around))
    if around.pause and not seen.life.alive:
        words = "a PAUSE file is there: the next start pauses at once"
        yield Trouble("pause", Urgency.WORKING, words, f"codex-self-iter resume{where}")
    for text in as_list(seen.status.get("warnings")):
        mend = f"codex-self-iter doctor{around.own}"
        yield Trouble("warning", Urgency.WORKING, str(text), mend)
