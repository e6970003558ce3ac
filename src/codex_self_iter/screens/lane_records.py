"""Reading the lanes of a loop: the scheduler's state, its journal, the loop of one lane, and what
git says of its work. Nothing here writes."""

from __future__ import annotations

import os

from codex_self_iter.core.evidence import gate_end
from codex_self_iter.core.foreign import as_dict, as_list, as_text
from codex_self_iter.core.lanes import Lane, Lanes, LaneState, from_json
from codex_self_iter.core.text import clean, clean_block
from codex_self_iter.errors import StorageError, UsageError
from codex_self_iter.screens import records
from codex_self_iter.screens.loops import Target, read_status
from codex_self_iter.views.lane_rows import ref as named
from codex_self_iter.views.timeline import Record
from codex_self_iter.world.bounded import run as run_bounded
from codex_self_iter.world.guarded import open_guarded, parse_object, read_guarded
from codex_self_iter.world.state.lane_files import is_lane

STATE, JOURNAL = "lanes.json", "logs/lanes.jsonl"
MAX_STATE = 64 * 1024 * 1024
MAX_JOURNAL = 4 * 1024 * 1024
"""Bytes at the end of the journal of lanes that are read."""
ITERATIONS = 5
GIT_TIMEOUT_SEC = 20
MOST_COMMITS = "30"


def read(loop: Target) -> Lanes:
    """The lanes of a loop. Raises UsageError where there are none, or nobody can read them."""
    path = os.path.join(loop.state_dir, STATE)
    try:
        data = read_guarded(path, MAX_STATE + 1)
    except FileNotFoundError:
        raise UsageError(
            f"{clean(loop.name)} has no lanes ({path} is not there); "
            "'codex-self-iter run --lanes 3' works on three items of the plan at once"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from None
    value = parse_object(data) if len(data) <= MAX_STATE else None
    if value is None:
        raise UsageError(f"{path} cannot be read as JSON; the next start says what it does with it")
    try:
        return from_json(value)
    except ValueError as error:
        raise UsageError(f"{path} cannot be read: {clean(str(error), 300)}") from None


def journal(state_dir: str) -> list[Record]:
    """What has happened to the lanes, oldest first; of a long journal its end. Never raises."""
    try:
        with open(open_guarded(os.path.join(state_dir, JOURNAL)), "rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - MAX_JOURNAL)
            file.seek(start)
            lines = file.read(MAX_JOURNAL).split(b"\n")
    except OSError:
        return []
    found = map(parse_object, lines[1:] if start else lines)
    return [one for one in found if one is not None]


def own_dir(state_dir: str, lane: str) -> str:
    """The state directory of a lane's own loop; "" for what is no lane."""
    return f"{state_dir}/lanes/{lane}/state" if is_lane(lane) else ""


def goal(state_dir: str, lane: str) -> str:
    """What the loop of a lane does now; "" where that is not known."""
    own = own_dir(state_dir, lane)
    return as_text(read_status(own).get("goal")) if own else ""


def iterations(state_dir: str, lane: str, count: int = ITERATIONS) -> list[Record]:
    """The last ones of a lane's loop, oldest first. Never raises."""
    own = own_dir(state_dir, lane)
    try:
        return records.newest(own, count) if own else []
    except StorageError:
        return []


def gates(lane: Lane, done: list[Record]) -> str:
    """What the last gates in a lane's work tree said; "" where none has run. `done`: the iterations
    of its loop, oldest first."""
    last = as_dict(done[-1]) if done else {}
    found = [as_dict(one) for one in as_list(last.get("gates"))]
    red = [one for one in found if not one.get("ok")]
    if red:
        return f"red: {as_text(red[0].get('command'))} {gate_end(red[0])}"
    proven = lane.state in (LaneState.READY, LaneState.LANDING, LaneState.LANDED)
    return "green" if found else "none" if proven else ""


def work(loop: Target, lane: Lane, target: str) -> tuple[str, str]:
    """The commits of a lane, one a line, and what they change, as git tells them; "" where nobody
    knows them. `target`: full name of the branch."""
    tip = _commit(lane.place, "HEAD") if os.path.isdir(lane.place) else ""
    tip = tip or _commit(loop.workspace, ref(loop, lane)) or lane.tip
    base = lane.base
    if not lane.landed and target:  # what it was given of the target meanwhile is none of its work
        base = _git(loop.workspace, "merge-base", target, tip) if tip else ""
    if not (tip.isalnum() and base.isalnum()):
        return "", ""
    one = ("log", "--oneline", "--no-decorate", "-n", MOST_COMMITS, f"{base}..{tip}", "--")
    other = ("diff", "--no-ext-diff", "--stat=100", base, tip, "--")
    return _git(loop.workspace, *one), _git(loop.workspace, *other)


def ref(loop: Target, lane: Lane) -> str:
    """What keeps the commits of a lane."""
    return named(lane.id, os.path.realpath(loop.state_dir))


def _commit(directory: str, name: str) -> str:
    return _git(directory, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")


def _git(directory: str, *args: str) -> str:
    argv = ["git", "-C", directory, "--no-optional-locks", *args]
    try:
        done = run_bounded(argv, timeout_sec=GIT_TIMEOUT_SEC)
    except OSError:
        return ""
    return clean_block(done.stdout.decode("utf-8", "replace")).rstrip() if done.ok else ""
