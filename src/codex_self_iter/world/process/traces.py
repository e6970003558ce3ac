"""What an earlier supervisor left of a run, by recorded identity, recorder's name, marker and lock.

Blocking; the process host calls it in a worker thread."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import threading
import time
from collections.abc import Mapping

from codex_self_iter.core.runs import RunIdentity, RunSpec
from codex_self_iter.world.clock import uptime
from codex_self_iter.world.guarded import open_guarded
from codex_self_iter.world.pause import pause
from codex_self_iter.world.process import kill, proctable
from codex_self_iter.world.process.launcher import IDLE_NAME, NAME_PREFIX
from codex_self_iter.world.process.left import identity_in
from codex_self_iter.world.process.spawner import recorder_name
from codex_self_iter.world.process.watched import Report, read_report
from codex_self_iter.world.state.holder import try_lock

SAME_SEC = 0.5
"""A run begins after it was written down; clocks that are slewed are off by less than this."""
IN_FLIGHT_SEC = 10.0
"""How long a held lock may precede any visible process: its supervisor died while asking."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """What was found.

    Attributes:
        identity: of the run, None if nothing ever said who it is.
        recorder_alive, agent_alive: exactly these processes still run.
        leftovers: living pids of the run, the recorder apart.
        report: the recorder's `exit.json`, or None.
        started: False when there is no trace that the run ever began."""

    identity: RunIdentity | None
    recorder_alive: bool
    agent_alive: bool
    leftovers: frozenset[int]
    report: Report | None
    started: bool


def read_identity(spec: RunSpec) -> RunIdentity | None:
    """The recorder's `identity.json`, if it is whole and about this run."""
    identity = identity_in(spec.directory)
    return identity if identity is not None and identity.run_id == spec.run_id else None


def is_older(spec: RunSpec, asked_at: float) -> bool:
    """True for traces of a dead run that began before this one was asked for (wall time)."""
    identity, report = read_identity(spec), read_report(spec)
    began = [one.started_at for one in (identity, report) if one is not None]
    if not began or max(began) > asked_at - SAME_SEC:
        return False
    trace = _look(spec, identity)
    return not (trace.recorder_alive or trace.agent_alive or trace.leftovers)


def lock_is_held(path: str) -> bool:
    """True while any heir of the run lock lives."""
    with contextlib.suppress(OSError), open(open_guarded(path, os.O_RDWR), "r+b", 0) as file:
        return not try_lock(file.fileno())
    return False


def find_trace(spec: RunSpec, identity: RunIdentity | None) -> Trace:
    """Look for the run until the picture is whole; waits only while a spawn may be in flight."""
    give_up = time.monotonic() + IN_FLIGHT_SEC
    while True:
        trace = _look(spec, identity)
        in_flight = not trace.recorder_alive and not trace.agent_alive and not trace.leftovers
        if not in_flight or not lock_is_held(spec.run_lock_path) or time.monotonic() > give_up:
            return trace
        pause(0.05)


class Strays:
    """Ends what works in a workspace although no record of it is left.

    This ring needs no file: the state directory, and with it the run's name, lock and recorded
    identity, may have been deleted, or the loop may have been given another one. Many loops that
    start together share their looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looked = -math.inf
        self._places: set[str] = set()

    def end(self, workspace: str, keep: str, asked: float) -> int:
        """End the processes of all runs in this workspace but those of the run `keep`; how many.

        Blocking. Only for the holder of the workspace's lock; `asked` is the monotonic time of the
        question: an older look does not answer it."""
        with self._lock:
            if self._looked < asked:
                self._looked = time.monotonic()
                table = proctable.scan()
                self._places = {_recorders_place(proc) for proc in table.values()} | {
                    proctable.environment_value(pid, proctable.PLACE_MARKER) for pid in table
                }
        if workspace not in self._places:
            return 0

        def strays(table: Mapping[int, proctable.Proc]) -> set[int]:
            found = proctable.marked(table, workspace, variable=proctable.PLACE_MARKER)
            found |= _recorded(table, workspace, recorder_name(keep) if keep else "")
            found -= proctable.marked(table, keep) if keep else set()
            # an agent may have started this supervisor
            return found - proctable.ancestors(table, os.getpid())

        ended, _ = kill.exterminate(strays)
        return len(ended)


def _recorders_place(proc: proctable.Proc) -> str:
    """Where the run of a recorder works; "" for any other process."""
    if not proc.name.startswith(NAME_PREFIX) or proc.name == IDLE_NAME or not proc.living:
        return ""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{proc.pid}/cwd")
    return ""


def _recorded(table: Mapping[int, proctable.Proc], workspace: str, but: str) -> set[int]:
    """What recorders of runs in this workspace have below them, but for the one of that name.

    It may have emptied its environment; the recorder ends by itself when it is gone."""
    recorders = {
        proc.pid
        for proc in table.values()
        if proc.name != but and _recorders_place(proc) == workspace
    }
    below = proctable.descendants(proctable.offspring(table), recorders)
    return {pid for pid in below if table[pid].living}


def _look(spec: RunSpec, identity: RunIdentity | None) -> Trace:
    identity = identity or read_identity(spec)
    report = read_report(spec)
    if identity is not None and identity.boot_id != proctable.boot_id():
        # another boot: nothing can be alive
        return Trace(identity, False, False, frozenset(), report, True)
    # Marker and lock find what has a trace of this run in itself, whoever its parent is now; the
    # recorded identity finds those that emptied their environment and closed the lock, as long as
    # one of the two is alive to be their ancestor. One of them alone would miss an escape.
    table = proctable.scan()
    found = proctable.marked(table, spec.run_id) | proctable.lock_heirs(table, spec.run_lock_path)
    identity = identity or _guess(spec, table, found)
    recorder = agent = False
    if identity is not None:
        recorder = proctable.alive(table, identity.recorder_pid, identity.recorder_start)
        agent = proctable.alive(table, identity.agent_pid, identity.agent_start)
        identity = _true_start(identity) if agent else identity
        found |= {identity.recorder_pid} if recorder else set()
        found |= {identity.agent_pid} if agent else set()
    found |= proctable.descendants(proctable.offspring(table), found)
    found -= {os.getpid(), identity.recorder_pid if identity else 0}
    found = {pid for pid in found if table[pid].living}
    started = identity is not None or report is not None or bool(found)
    return Trace(identity, recorder, agent, frozenset(found), report, started)


def _true_start(identity: RunIdentity) -> RunIdentity:
    """The identity with a start that the kernel confirms.

    A run cannot be older than its process, suspend included. If its own monotonic stamp says so,
    then that clock is not the one it was stamped with, and a limit counted from it would end a
    healthy run or never end a hung one."""
    if not proctable.LINUX or not identity.agent_start:
        return identity
    age = uptime() - identity.agent_start * proctable.TICK
    told = time.monotonic() - identity.started_monotonic
    if age < 0 or -1.0 <= told <= age + 1.0:
        return identity
    return dataclasses.replace(identity, started_monotonic=time.monotonic() - age)


def _guess(
    spec: RunSpec, table: Mapping[int, proctable.Proc], found: set[int]
) -> RunIdentity | None:
    """An identity from what lives: recorder by its name, agent as its oldest marked child."""
    name = recorder_name(spec.run_id)
    recorder = next((proc for proc in table.values() if proc.name == name and proc.living), None)
    kin = [table[pid] for pid in found if recorder is None or table[pid].parent == recorder.pid]
    agent = min(kin, key=lambda proc: proc.start, default=None)
    if recorder is None and agent is None:
        return None
    age = uptime() - (agent or recorder or next(iter(table.values()))).start * proctable.TICK
    return RunIdentity(
        run_id=spec.run_id,
        boot_id=proctable.boot_id(),
        recorder_pid=recorder.pid if recorder else 0,
        recorder_start=recorder.start if recorder else 0,
        agent_pid=agent.pid if agent else 0,
        agent_start=agent.start if agent else 0,
        started_at=time.time() - age,
        started_monotonic=time.monotonic() - age,
    )
