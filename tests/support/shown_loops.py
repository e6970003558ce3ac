"""A loop in every state that a screen can meet: its `status.json`, and a state directory for it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from codex_self_iter.core.text import iso
from codex_self_iter.screens.loops import Target
from codex_self_iter.views.summary import Life, Seen
from codex_self_iter.world import registry
from codex_self_iter.world.state.durable import encode_lines
from codex_self_iter.world.state.holder import boot_id

NOW = 1_893_456_000.0
"""2030-01-01 00:00 UTC: "now" where nothing is on disk."""
GOAL = "Make the parser accept comments"


class Case(NamedTuple):
    """A status, and what the file cannot say. `state`: the word for it; `urgency`: what it is
    called among all loops."""

    state: str
    urgency: str
    status: dict[str, Any]
    alive: bool = True
    stale_sec: float = 1.0
    orphan: int = 0
    flaw: str = ""


def base(now: float = NOW, workspace: str = "/srv/app", name: str = "app") -> dict[str, Any]:
    """Every field, of a loop in the middle of iteration 12."""
    state_dir = f"{workspace}/.codex-self-iter"
    return {
        "schema": 1, "version": "0.1.0", "pid": 4240, "boot_id": boot_id(), "name": name,
        "workspace": workspace, "state_dir": state_dir, "state": "running",
        "since": iso(now - 725), "until": None, "reason": "", "updated_at": iso(now - 1),
        "started_at": iso(now - 7200), "iteration": 12, "goal": GOAL, "mode": "goal",
        "agent": "codex",
        "run": {
            "run_id": "r-12", "role": "executor", "agent": "codex", "pid": 4242,
            "recorder_pid": 4241, "started_at": iso(now - 700),
            "deadline_at": iso(now + 6500), "directory": f"{state_dir}/logs/runs/000012-executor",
            "waiting_for": None, "retrying": None, "age_sec": 700.0, "cpu_percent": 35.2,
            "cpu_sec": 88.0, "memory_mb": 180.4, "processes": 4, "last_output_at": iso(now - 3),
            "idle_sec": 3.0, "output_bytes": 1_200_000,
        },
        "wait": None,
        "last": {
            "iteration": 11, "verdict": "continue", "summary": "Added the lexer",
            "duration_sec": 250.0, "ended_at": iso(now - 730), "tokens": 12_300, "cost_usd": 0.12,
            "failure_class": "", "unproven": "",
        },
        "recent": [
            {"iteration": 10, "verdict": "error", "failure_class": "crash",
             "summary": "no control block", "unproven": "", "gates_failed": [],
             "duration_sec": 61.0, "tokens": 900, "cost_usd": None},
            {"iteration": 11, "verdict": "continue", "failure_class": "",
             "summary": "Added the lexer", "unproven": "", "gates_failed": [],
             "duration_sec": 250.0, "tokens": 12_300, "cost_usd": 0.12},
        ],
        "counters": {
            "consecutive_errors": 0, "failures": 0, "no_change": 0, "same_goal": 1,
            "confirmations": 0, "gate_failures": 0, "iterations_this_run": 12,
        },
        "usage": {"tokens": 1_234_567, "cost_usd": 3.4, "unpriced_tokens": 0, "hours": 2.12},
        "totals": {
            "iterations": [{"verdict": "continue", "count": 9}, {"verdict": "error", "count": 2}],
            "gates": [{"result": "passed", "count": 8}, {"result": "failed", "count": 1}],
            "runs": [{"cause": "exit", "count": 11}],
            "agents": [{"agent": "codex", "tokens": 1_234_567, "cost_usd": 3.4}],
            "time": [{"state": "running", "sec": 6000.0}, {"state": "backoff", "sec": 30.0}],
            "state": "running", "as_of": iso(now - 725), "productive_sec": 5400.0,
            "unproductive_sec": 600.0, "goodput": 0.8955,
        },
        "lanes": None,
        "pool": {"slots": 2, "in_use": 1, "waiting": 0},
        "owed": None,
        "plan": {"done": 8, "total": 12, "last_ticked": "Write the lexer",
                 "path": f"{workspace}/plan.md"},
        "notes": 0,
        "disk": {"state_mb": 120.0, "free_mb": 40_000.0, "git_mb": 60.0, "git_loose": 12},
        "warnings": [], "log": f"{state_dir}/logs/supervisor.log",
        "stop_file": f"{state_dir}/STOP", "global_stop_file": f"{workspace}/.codex-stop",
        "pause_file": f"{state_dir}/PAUSE", "exit": None,
        "config": None,
    }  # fmt: skip


def lanes(now: float = NOW, *, why: str = "", held: str = "") -> dict[str, Any]:
    """The field of a loop with three lanes; `why`: the last one needs a person for this reason."""
    states = {"3": "landing", "4": "working", "5": "needs you" if why else "ready"}
    return {
        "most": 3, "target": "refs/heads/main", "held": held, "landing": ["3"], "landed": 2,
        "left": 7, "lanes": [
            {"lane": lane, "number": int(lane), "item": f"Write part {lane}", "state": state,
             "since": iso(now - 300), "why": why if state == "needs you" else "",
             "place": f"/srv/lanes/{lane}", "returns": 0,
             "state_dir": f"/srv/app/.codex-self-iter/lanes/{lane}/state"}
            for lane, state in states.items()
        ],
    }  # fmt: skip


def cases(now: float = NOW, workspace: str = "/srv/app") -> dict[str, Case]:
    """By name; every state of docs/status.md, and what else a screen can meet."""
    usual = base(now, workspace)

    def live(state: str, urgency: str, **more: Any) -> Case:
        status = usual | {"state": state, "run": None} | more
        return Case(state, urgency, status)

    def waits(state: str, urgency: str, kind: str, reason: str, sec: float) -> Case:
        until = iso(now + sec)
        wait = {"kind": kind, "until": until, "length_sec": 3600.0, "reason": reason}
        return live(state, urgency, until=until, reason=reason, wait=wait)

    def ended(state: str, urgency: str, code: int, reason: str, **more: Any) -> Case:
        end = {"code": code, "state": state, "reason": reason, "at": iso(now - 60)}
        whole = {"reason": reason, "exit": end, "updated_at": iso(now - 60), **more}
        one = live(state, urgency, **whole)
        return one._replace(alive=False, stale_sec=60.0)

    run, last = usual["run"], usual["last"]
    counters = usual["counters"]
    old = {"updated_at": iso(now - 300)}
    owed = {"count": 2, "iteration": 9, "files": ["a.py", "b.py"], "why": "the hook refuses: no",
            "mendable": True}  # fmt: skip
    return {
        "starting": live("starting", "working", iteration=0, goal="", reason="reads its state"),
        "running": Case("running", "working", usual),
        "pool": Case("running", "working", usual | {"run": run | {"waiting_for": "a slot of the pool"}}),
        "verifying": live("verifying", "working", reason="gates of iteration 12"),
        "backoff": waits("backoff", "waiting", "error", "no control block", 40),
        "cooldown": waits("cooldown", "waiting", "no_change", "nothing has changed", 300),
        "limited": waits("limited", "waiting", "limit", "codex: usage limit", 5000),
        "paused": live("paused", "paused", reason="PAUSE is there; 'codex-self-iter resume' goes on"),
        "stopping": live("stopping", "working", reason="a STOP file"),
        "completed": ended("completed", "done", 0, "Every item of the plan is ticked (12 of 12).",
                           plan=usual["plan"] | {"done": 12}),
        "stopped": ended("stopped", "done", 0, "a STOP file"),
        "stagnated": ended("stagnated", "needs you", 3, "the same goal 6 times"),
        "blocked": ended("blocked", "needs you", 4, "the budget of $5 is spent"),
        "login": waits("blocked", "needs you", "auth", "codex is not logged in: codex login", 600),
        "disk": live("blocked", "needs you", reason="only 80 MB are free; 200 MB must be"),
        "crashed": ended("crashed", "needs you", 1, "KeyError: 'x'"),
        "asks": ended("stopped", "needs you", 0, "the agent stopped: which database?",
                      last=last | {"verdict": "stop"}),
        "gone": Case("gone", "needs you", usual | old, alive=False, stale_sec=300.0),
        "orphan": Case("orphan", "needs you", usual | old, alive=False, stale_sec=300.0, orphan=4242),
        "late": Case("not responding", "needs you", usual | old, stale_sec=300.0),
        "quiet": Case("running", "stuck?", usual | {"run": run | {"idle_sec": 840.0}}),
        "errors": Case("running", "stuck?",
                       usual | {"counters": counters | {"consecutive_errors": 3, "same_goal": 4}}),
        "once": Case("running", "working", usual | {"counters": counters | {"consecutive_errors": 1}}),
        "retrying": Case("running", "stuck?", usual | {"run": run | {"retrying": "attempt 4 of 10"}}),
        "owed": Case("running", "working", usual | {"owed": owed, "warnings": ["no room on /tmp"]}),
        "lanes": Case("running", "working", usual | {"run": None, "lanes": lanes(now)}),
        "lane": Case("running", "needs you",
                     usual | {"run": None, "lanes": lanes(now, why="its loop has stagnated")}),
        "held": Case("running", "working",
                     usual | {"run": None, "lanes": lanes(now, held="main has changes of yours")}),
        "new": Case("not started", "not started", {}, alive=False, stale_sec=-1.0),
        "newer": Case("unreadable", "needs you", usual | {"schema": 2, "version": "9.0.0"},
                      flaw="status.json is of a newer form"),
        "torn": Case("unreadable", "needs you", {}, alive=False, stale_sec=-1.0,
                     flaw="status.json cannot be read as JSON"),
        "foreign": Case("running", "working",
                        usual | {"goal": "\x1b]0;owned\x07\x1b[31mred\r\nnext\x9b5mline\u202erow",
                                 "plan": 3, "run": "x", "usage": [], "counters": None}),
    }  # fmt: skip


def seen(case: Case, name: str = "app", workspace: str = "/srv/app") -> Seen:
    """A case as `look` would have seen it."""
    stale = case.stale_sec if case.stale_sec >= 0 else None
    life = Life(case.alive, stale, 4240 if case.status else 0, case.orphan)
    state_dir = f"{workspace}/.codex-self-iter"
    return Seen(name, workspace, state_dir, case.status, life, flaw=case.flaw)


def record(number: int, at: float = NOW, **more: Any) -> dict[str, Any]:
    """A journal line of an iteration that ended at `at`."""
    return {
        "ts": iso(at), "iteration": number, "phase": "executor", "state": "running",
        "goal_in": GOAL, "summary": f"Step {number} is done", "reason": "", "evidence": [],
        "next_goal": "Go on", "has_new_changes": True, "completed": False, "stop": False,
        "verdict": "continue", "unproven": "", "started_at": iso(at - 60), "duration_sec": 60.0,
        "agent": "codex", "model": "gpt", "exit_code": 0, "error": "", "failure_class": "",
        "usage": {"total_tokens": 1000}, "cost_usd": 0.01, "gates": [],
        "changed_files": ["a.py"], "changed_count": 1, "ticked": [], "commit": "",
        "checkpoint": "", "wait": None, **more,
    }  # fmt: skip


GATE = {"command": "pytest -q", "ok": False, "exit_code": 1, "duration_sec": 3.0,
        "output": "1 failed", "items": []}  # fmt: skip


@contextmanager
def on_disk(
    directory: Path, name: str, case: Case, records: int = 3, now: float | None = None
) -> Iterator[Target]:
    """The same as files: a workspace with plan, journal and output below `directory`, known to the
    registry (set XDG_STATE_HOME before), its lock held by this process where it lives."""
    workspace = directory / name
    state_dir = workspace / ".codex-self-iter"
    run = state_dir / "logs" / "runs" / "000012-executor"
    run.mkdir(parents=True)
    (workspace / "plan.md").write_text(
        "- [x] Write the lexer\n- [ ] Write the parser\n- [ ] Test\n"
    )
    (run / "stdout.log").write_text("Reads the grammar\nWrites the parser\n")
    prompts = state_dir / "prompts"
    prompts.mkdir()
    (prompts / "000012-executor.md").write_text("# The prompt\nGo on\n")
    moved = json.loads(json.dumps(case.status).replace("/srv/app", str(workspace)))
    if moved:
        moved["name"] = name
        (state_dir / "status.json").write_bytes(encode_lines(moved))
    elif case.flaw:
        (state_dir / "status.json").write_text("{torn")
    last = (time.time() if now is None else now) - 730
    lines = [
        record(12 - back, last - 600 * (back - 1), gates=[GATE] * (back == 1))
        for back in range(records, 0, -1)
    ]
    (state_dir / "logs" / "iterations.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines)
    )
    registry.register(name, str(workspace), str(state_dir))
    with (state_dir / "loop.lock").open("w") as lock:
        if case.alive:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.write(json.dumps({"pid": os.getpid()}) + "\n")
            lock.flush()
        yield Target(name, str(workspace), str(state_dir))
