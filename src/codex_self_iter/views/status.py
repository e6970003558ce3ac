"""What people see: the content of `status.json`, built from the state and the monitor. Pure."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from codex_self_iter import __version__
from codex_self_iter.core import asked, waits
from codex_self_iter.core.runs import RunIdentity, RunSample
from codex_self_iter.core.state import LoopState, Wait
from codex_self_iter.core.terms import Moment, State
from codex_self_iter.core.text import iso

RECENT = 5
SAMPLED = (
    "age_sec", "cpu_percent", "cpu_sec", "memory_mb", "processes", "last_output_at", "idle_sec",
    "output_bytes",
)  # fmt: skip
"""Of a run: null until the monitor has looked for the first time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What the status needs beside the state: facts of this process and of the present."""

    pid: int
    workspace: str
    state_dir: str
    name: str
    mode: str
    agent: str
    started_at: float
    log: str
    plan: tuple[int, int, str | None] = (0, 0, None)
    plan_path: str = ""
    identity: RunIdentity | None = None
    sample: RunSample | None = None
    wall_limit_sec: float = 0.0
    waiting_for: str = ""
    retrying: str = ""
    held_by: str = ""
    recent: Sequence[Mapping[str, Any]] = ()
    state_mb: float = 0.0
    free_mb: float = 0.0
    stored: tuple[int, float] | None = None
    """Of the repository: loose objects, and MiB of all objects."""
    notes: int = 0
    pool: tuple[int, int, int] = (0, 0, 0)
    """Slots (0: no limit), how many are taken, how many runs wait for one."""
    warnings: Sequence[str] = ()
    lanes: Mapping[str, Any] | None = None
    stop_file: str = ""
    global_stop_file: str = ""
    pause_file: str = ""
    config: str = ""


def _run(state: LoopState, facts: Facts, at: Moment) -> dict[str, Any] | None:
    run = state.open.run if state.open else None
    if run is None or state.finished:
        return None
    identity, sample = facts.identity, facts.sample
    started = identity.started_at if identity else run.started_at
    seen: dict[str, Any] = {
        "run_id": run.run_id,
        "role": run.role.value,
        "agent": run.agent,
        "pid": identity.agent_pid if identity else None,
        "recorder_pid": identity.recorder_pid if identity else None,
        "started_at": iso(started),
        "deadline_at": None,
        "directory": f"{facts.state_dir}/logs/runs/{run.label}",
        "waiting_for": facts.waiting_for or None,
        "retrying": facts.retrying or None,
    }
    if sample is None:
        return seen | dict.fromkeys(SAMPLED)
    if facts.wall_limit_sec:
        seen["deadline_at"] = iso(at.wall - sample.age_sec + facts.wall_limit_sec)
    return seen | {
        "age_sec": round(sample.age_sec, 1),
        "cpu_percent": round(sample.cpu_percent, 1),
        "cpu_sec": round(sample.cpu_sec, 2),
        "memory_mb": round(sample.memory_bytes / 2**20, 1),
        "processes": sample.processes,
        "last_output_at": iso(sample.last_output_at) if sample.last_output_at else None,
        "idle_sec": round(sample.idle_sec, 1),
        "output_bytes": sample.output_bytes,
    }


def _exit(state: LoopState, at: Moment) -> dict[str, Any] | None:
    if state.exit_code is None:
        return None
    return {
        "code": state.exit_code,
        "state": state.state.value,
        "reason": state.reason,
        "at": iso(at.wall),
    }


def _recent(line: Mapping[str, Any]) -> dict[str, Any]:
    usage, gates = line.get("usage") or {}, line.get("gates") or ()
    return {
        "iteration": line.get("iteration"),
        "verdict": line.get("verdict"),
        "failure_class": line.get("failure_class") or "",
        "summary": str(line.get("summary") or line.get("error") or "")[:300],
        "unproven": str(line.get("unproven") or "")[:300],
        "gates_failed": [gate.get("command") for gate in gates if not gate.get("ok", True)][:3],
        "duration_sec": line.get("duration_sec"),
        "tokens": usage.get("total_tokens"),
        "cost_usd": line.get("cost_usd"),
    }


def _totals(state: LoopState) -> dict[str, Any]:
    """What was done in all, up to the beginning of this state: it moves with no heartbeat."""
    totals = state.totals
    goodput = totals.goodput
    agents = [
        {"agent": name, "tokens": count, "cost_usd": round(totals.cost_usd.get(name, 0.0), 4)}
        for name, count in totals.tokens.items()
    ]
    return {
        "iterations": [{"verdict": key, "count": n} for key, n in totals.iterations.items()],
        "gates": [{"result": key, "count": n} for key, n in totals.gates.items()],
        "runs": [{"cause": key, "count": n} for key, n in totals.runs.items()],
        "agents": agents,
        "time": [{"state": key, "sec": sec} for key, sec in totals.seconds.items()],
        "state": state.kept_as,
        "as_of": iso(totals.wall),
        "productive_sec": totals.productive_sec,
        "unproductive_sec": totals.unproductive_sec,
        "goodput": None if goodput is None else round(goodput, 4),
    }


def _pool(facts: Facts, *, at_work: bool) -> dict[str, int | None]:
    """The pool, in numbers that move with this loop only: heartbeats of the others are cheap."""
    slots, in_use, waiting = facts.pool
    moving = {"in_use": in_use, "waiting": waiting}
    return {"slots": slots, **(moving if at_work else dict.fromkeys(moving))}


def _coarse(value: float) -> float:
    """Three digits: the last ones of a disk change all the time and say nothing."""
    return float(f"{value:.3g}")


def _reason(state: LoopState, facts: Facts) -> str:
    """Why it is in this state, and what a person has asked for that is still to come."""
    if state.finished:
        return state.reason
    reason = facts.waiting_for or state.reason
    if state.state is State.PAUSED and facts.pause_file:
        reason = f"{facts.pause_file.rpartition('/')[2]} is there; 'codex-self-iter resume' goes on"
    if state.state in (State.RUNNING, State.VERIFYING):
        if state.after_iteration is not None:
            reason += "; stops after this iteration"
        elif state.paused:
            reason += "; pauses after it"
    return reason


def status(state: LoopState, facts: Facts, at: Moment) -> dict[str, Any]:
    """The content of `status.json`."""
    wait = None if state.blocked_by or state.finished else asked.told_wait(state)
    done, total, ticked = facts.plan
    plan = {"done": done, "total": total, "last_ticked": ticked, "path": facts.plan_path}
    last = None
    if state.last:
        last = dataclasses.asdict(state.last) | {"ended_at": iso(state.last.ended_at)}
    run = state.open.run if state.open else None
    return {
        "schema": 1,
        "version": __version__,
        "pid": facts.pid,
        "boot_id": at.boot_id,
        "name": facts.name,
        "workspace": facts.workspace,
        "state_dir": facts.state_dir,
        "state": State.BLOCKED.value if facts.held_by else state.state.value,
        "since": iso(state.since),
        "until": iso(_until(wait, at)) if wait else None,
        "reason": facts.held_by or _reason(state, facts),
        "updated_at": iso(at.wall),
        "started_at": iso(facts.started_at),
        "iteration": state.iteration,
        "goal": state.open.aim if state.open else state.goal,
        "mode": facts.mode,
        "agent": run.agent if run else facts.agent,
        "run": _run(state, facts, at),
        "wait": {
            "kind": wait.kind,
            "until": iso(_until(wait, at)),
            "length_sec": round(wait.length, 3),
            "reason": wait.reason,
        }
        if wait
        else None,
        "last": last,
        "recent": [_recent(line) for line in facts.recent[-RECENT:]],
        "counters": {
            "consecutive_errors": state.counters.agent_errors,
            "failures": state.counters.failures,
            "no_change": state.counters.no_change,
            "same_goal": _same_goal(state.goals),
            "confirmations": state.counters.confirmations,
            "gate_failures": state.counters.gate_repeats,
            "iterations_this_run": state.run_iterations,
        },
        "usage": {
            "tokens": state.spent.tokens,
            "cost_usd": round(state.spent.cost_usd, 4),
            "unpriced_tokens": state.spent.unpriced_tokens,
            "hours": round(state.spent.hours, 3),
        },
        "totals": _totals(state),
        "lanes": facts.lanes,
        "owed": dataclasses.asdict(state.owed) if state.owed else None,
        "plan": plan if total else None,
        "pool": _pool(facts, at_work=run is not None),
        "notes": facts.notes,
        "disk": {
            "state_mb": round(facts.state_mb, 1),
            "free_mb": _coarse(facts.free_mb),
            "git_mb": round(facts.stored[1], 1) if facts.stored else None,
            "git_loose": facts.stored[0] if facts.stored else None,
        },
        "warnings": list(facts.warnings),
        "log": facts.log,
        "stop_file": facts.stop_file,
        "global_stop_file": facts.global_stop_file,
        "pause_file": facts.pause_file,
        "config": facts.config or None,
        "exit": _exit(state, at),
    }


def _until(wait: Wait, at: Moment) -> float:
    """The end of a wait by the wall clock as it goes now: somebody may have set it since."""
    now = at.wall + waits.rest(wait, at)
    return wait.until if abs(now - wait.until) < 1.0 else now


def _same_goal(goals: Sequence[str]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda goal: goal == goals[-1], reversed(goals)))
