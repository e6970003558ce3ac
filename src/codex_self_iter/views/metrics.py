"""Loops as numbers for machines: families of series after Prometheus' conventions.

Base units (seconds, bytes, ratios), `_total` for what only grows, a time as a Unix time stamp. What a
label may be is bounded: states, verdicts, causes and results are closed sets, agents are those of
the configuration, loops those of this user."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from codex_self_iter.core.foreign import as_dict, as_list, as_number, as_text
from codex_self_iter.core.terms import State
from codex_self_iter.core.text import clean, epoch
from codex_self_iter.views.rows import Urgency, urgency
from codex_self_iter.views.summary import Seen

STATES = (
    *(state.value for state in State),
    "gone",
    "orphan",
    "not responding",
    "not started",
    "unreadable",
)
"""What `csi_loop_state` says: the states of `status.json`, and what only others can see."""
WAITS = ("backoff", "cooldown", "limited", "outage", "paused", "blocked")
LONGEST = 100
"""Characters of a label's value."""


class Sample(NamedTuple):
    """One series: the values of the family's labels, in order, and its number."""

    labels: tuple[str, ...]
    value: float


class Family(NamedTuple):
    """Series of one name. `counter`: they only grow; `name` is without `_total` then."""

    name: str
    help: str
    labels: tuple[str, ...]
    samples: list[Sample]
    counter: bool = False


Read = Callable[[Seen, float], Iterable[tuple[tuple[str, ...], object]]]


def families(loops: Iterable[tuple[str, Seen]], now: float) -> list[Family]:
    """All series of these loops at this moment (Unix seconds); names are unique. What is not known
    has no series."""
    seen = [(shown(name), one) for name, one in loops]
    found = []
    for name, about, labels, counter, read in _TABLE:
        samples = [
            Sample((loop, *map(shown, more)), float(as_number(value)))
            for loop, one in seen
            for more, value in read(one, now)
            if value is not None
        ]
        found.append(Family(name, about, ("loop", *labels), samples, counter))
    return found


def shown(label: str) -> str:
    """A label's value: clean, of one line, bounded; two long ones are still two."""
    text = clean(label)
    if len(text) <= LONGEST:
        return text
    mark = hashlib.blake2b(label.encode("utf-8", "replace"), digest_size=4).hexdigest()
    return f"{text[: LONGEST - 9]}~{mark}"


def _state(seen: Seen, _now: float) -> Iterator[tuple[tuple[str, ...], object]]:
    state = seen.state()[0]
    for name in STATES:
        yield (name,), 1.0 if name == state else 0.0


def _needs(seen: Seen, _now: float) -> Iterator[tuple[tuple[str, ...], object]]:
    yield (), 1.0 if urgency(seen) is Urgency.NEEDS_YOU else 0.0


def _since(seen: Seen, _now: float) -> Iterator[tuple[tuple[str, ...], object]]:
    yield (), epoch(seen.status.get("since"))


def _until(seen: Seen, _now: float) -> Iterator[tuple[tuple[str, ...], object]]:
    yield (), epoch(seen.status.get("until"))


def _heartbeat(seen: Seen, _now: float) -> Iterator[tuple[tuple[str, ...], object]]:
    yield (), epoch(seen.status.get("updated_at"))


def _age(seen: Seen, now: float) -> Iterator[tuple[tuple[str, ...], object]]:
    at = epoch(seen.status.get("updated_at"))
    yield (), None if at is None else max(0.0, now - at)


def _totals(key: str, label: str, value: str) -> Read:
    """Series of a list in `totals`: by `label`, of `value`."""

    def read(seen: Seen, _now: float) -> Iterator[tuple[tuple[str, ...], object]]:
        for one in map(as_dict, as_list(as_dict(seen.status.get("totals")).get(key))):
            yield (as_text(one.get(label)),), one.get(value)

    return read


def _times(seen: Seen) -> dict[str, float]:
    """Seconds by state, with what the supervisor has spent in the present one up to its last
    heartbeat; {} where nothing is counted."""
    totals = as_dict(seen.status.get("totals"))
    found = {
        as_text(one.get("state")): as_number(one.get("sec"))
        for one in map(as_dict, as_list(totals.get("time")))
    }
    heard, began = epoch(seen.status.get("updated_at")), epoch(totals.get("as_of"))
    state = as_text(totals.get("state"))
    if state and heard and began and not seen.status.get("exit"):
        found[state] = found.get(state, 0.0) + max(0.0, heard - began)
    return found


def _by_state(seen: Seen, _now: float) -> Iterator[tuple[tuple[str, ...], object]]:
    for state, sec in _times(seen).items():
        yield (state,), sec


def _waited(seen: Seen, _now: float) -> Iterator[tuple[tuple[str, ...], object]]:
    if found := _times(seen):
        for kind in WAITS:
            yield (kind,), found.get(kind, 0.0)


def _lost(seen: Seen, _now: float) -> Iterator[tuple[tuple[str, ...], object]]:
    found = _times(seen)
    for state, sec in found.items():
        if state != State.RUNNING.value:
            yield (state,), sec
    if found:
        yield ("unproductive",), as_number(as_dict(seen.status["totals"]).get("unproductive_sec"))


def _version(seen: Seen, _now: float) -> Iterator[tuple[tuple[str, ...], object]]:
    if version := as_text(seen.status.get("version")):
        yield (version,), 1.0


def _one(path: str) -> Read:
    """The number at a dotted path of `status.json`."""
    *above, last = path.split(".")

    def read(seen: Seen, _now: float) -> Iterator[tuple[tuple[str, ...], object]]:
        place: Mapping[str, Any] = seen.status
        for key in above:
            place = as_dict(place.get(key))
        yield (), place.get(last)

    return read


def _items(seen: Seen, _now: float) -> Iterator[tuple[tuple[str, ...], object]]:
    plan = as_dict(seen.status.get("plan"))
    if plan:
        done, total = as_number(plan.get("done")), as_number(plan.get("total"))
        yield ("done",), done
        yield ("open",), total - done


def _bytes(path: str) -> Read:
    """A figure in MiB, in bytes; 0 is not measured yet."""
    inner = _one(path)

    def read(seen: Seen, now: float) -> Iterator[tuple[tuple[str, ...], object]]:
        for labels, value in inner(seen, now):
            yield labels, as_number(value) * 2**20 or None

    return read


def _warnings(seen: Seen, _now: float) -> Iterator[tuple[tuple[str, ...], object]]:
    if seen.status:
        yield (), len(as_list(seen.status.get("warnings")))


_TABLE: tuple[tuple[str, str, tuple[str, ...], bool, Read], ...] = (
    ("csi_build_info", "The program that has the loop, or had it last.", ("version",), False, _version),
    ("csi_loop_state", "1 for the state that the loop is in, 0 for every other.", ("state",), False, _state),
    ("csi_loop_needs_person", "1 while the loop does not go on, or not well, without a person.", (), False, _needs),
    ("csi_loop_state_since_timestamp_seconds", "When the state began.", (), False, _since),
    ("csi_loop_wait_until_timestamp_seconds", "When the wait ends; no series while it waits for nothing.",
     (), False, _until),
    ("csi_heartbeat_timestamp_seconds", "When the supervisor last said that it lives.", (), False, _heartbeat),
    ("csi_heartbeat_age_seconds", "How long ago that was when this was written.", (), False, _age),
    ("csi_iteration", "Number of the last iteration.", (), False, _one("iteration")),
    ("csi_iterations", "Iterations that have ended.", ("verdict",), True, _totals("iterations", "verdict", "count")),
    ("csi_gate_runs", "Runs of gates that have ended.", ("result",), True, _totals("gates", "result", "count")),
    ("csi_agent_runs", "Agent runs that have ended.", ("cause",), True, _totals("runs", "cause", "count")),
    ("csi_tokens", "Tokens that agents have used, where known.", ("agent",), True,
     _totals("agents", "agent", "tokens")),
    ("csi_cost_usd", "Money that agents have cost, where known.", ("agent",), True,
     _totals("agents", "agent", "cost_usd")),
    ("csi_state_seconds", "Time in each state, and without a supervisor (down, ended).", ("state",), True,
     _by_state),
    ("csi_wait_seconds", "Time of that in which the loop waited.", ("kind",), True, _waited),
    ("csi_productive_seconds", "Time of agents at work that counts.", (), True, _one("totals.productive_sec")),
    ("csi_lost_seconds", "Time in which no agent did work that counts.", ("cause",), True,
     _lost),
    ("csi_goodput_ratio", "Productive time by the best possible (0 to 1).", (), False, _one("totals.goodput")),
    ("csi_plan_items", "Checkboxes of the plan.", ("status",), False, _items),
    ("csi_consecutive_errors", "Agent errors in a row that changed nothing.", (), False,
     _one("counters.consecutive_errors")),
    ("csi_iterations_without_change", "Iterations in a row that changed nothing.", (), False,
     _one("counters.no_change")),
    ("csi_warnings", "What could not be done for the person and is not over yet.", (), False, _warnings),
    ("csi_owed_files", "Files that the loop has changed and could not commit yet.", (), False, _one("owed.count")),
    ("csi_state_directory_bytes", "Size of the state directory.", (), False, _bytes("disk.state_mb")),
    ("csi_free_disk_bytes", "Free on its file system.", (), False, _bytes("disk.free_mb")),
    ("csi_pool_slots", "Agents that the supervisor of the loop may have at work; 0: no limit.", (), False,
     _one("pool.slots")),
    ("csi_pool_in_use", "Slots of that pool that are taken.", (), False, _one("pool.in_use")),
    ("csi_pool_waiting", "Runs that wait for a slot of it.", (), False, _one("pool.waiting")),
)  # fmt: skip
"""Name, help, labels after `loop`, whether it only grows, and where it is read."""
