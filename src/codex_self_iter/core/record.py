"""The journal line of an iteration."""

from __future__ import annotations

from typing import Any

from codex_self_iter.core.commands import Journal
from codex_self_iter.core.control_block import ControlBlock
from codex_self_iter.core.evidence import GateResult
from codex_self_iter.core.state import Ended, Iteration, LoopState, plain, to_json
from codex_self_iter.core.terms import Moment, Role
from codex_self_iter.core.text import iso


def journal_record(opened: Iteration, after: LoopState, at: Moment) -> Journal:
    """The line of an iteration that was `opened` and is closed in `after`."""
    answers = {"planner": opened.planner, "reviewer": opened.reviewer}
    notes = list(opened.block.notes) if opened.block else []
    kept = to_json(after) | {"preparing": False, "unkept": notes}
    record: dict[str, Any] = {
        "ts": iso(at.wall),
        "iteration": opened.number,
        "phase": str(opened.ended[-1].role if opened.ended else Role.EXECUTOR),
        "state": after.state.value,
        "goal_in": opened.goal,
        **_answered(opened, after),
        "started_at": iso(opened.started_at),
        "duration_sec": opened.lasted(at),
        **_ended(opened),
        "usage": opened.usage.to_json() if opened.usage else None,
        "cost_usd": opened.usage.cost_usd if opened.usage else None,
        "notes": notes,
        "gates": [_gate(gate, after) for gate in opened.gates],
        "gate_flaw": opened.gate_flaw,
        "changed_files": list(opened.changed_files[:200]),
        "changed_count": len(opened.changed_files),
        "change_note": opened.change_note,
        "ticked": list(opened.done_marks),
        "head_before": opened.head_before,
        "head_after": opened.head_after,
        "commit": opened.commit,
        "checkpoint": opened.checkpoint,
        "keep_error": opened.keep_error,
        "owed": kept["owed"] if after.owed else None,
        "refused": list(opened.refused),
        "messages": plain(opened.messages),
        "events": plain(opened.events),
        "roles": {role: plain(answer) for role, answer in answers.items() if answer},
        "runs": [_run(run) for run in opened.ended],
        "warned": opened.warned,
        "counters": kept["counters"],
        "wait": kept["wait"],
        "after": kept,
    }
    return Journal(record)


def _gate(gate: GateResult, after: LoopState) -> dict[str, Any]:
    """A gate's end, and whether it had failed before the loop's first run; None: not known."""
    before = after.at_start.get(gate.command)
    return gate.to_json() | {
        "red_at_start": None if before is None else not before,
        "started_at": _time(gate.started_at),
    }


def _run(run: Ended) -> dict[str, Any]:
    """A run's end; its usage as the line's."""
    usage = run.usage.to_json() if run.usage else None
    told: dict[str, Any] = plain(run)
    return told | {"started_at": _time(run.started_at), "usage": usage}


def _time(at: float) -> str | None:
    return iso(at) if at else None


def _answered(opened: Iteration, after: LoopState) -> dict[str, Any]:
    """What the agent said, and what it was taken for."""
    block, failure = opened.block or ControlBlock(), opened.failure
    return {
        "summary": block.summary,
        "reason": block.reason or (failure.message if failure else ""),
        "evidence": list(block.evidence),
        "next_goal": after.goal,
        "has_new_changes": opened.changed,
        "completed": block.completed,
        "stop": block.stop,
        "verdict": after.last.verdict.value if after.last else "",
        "claimed": opened.claim,
        "unproven": after.last.unproven if after.last else "",
    }


def _ended(opened: Iteration) -> dict[str, Any]:
    """How the last run ended, and what failed."""
    run, failure = opened.ended[-1] if opened.ended else None, opened.failure
    return {
        "agent": run.agent if run else "",
        "model": run.model if run else "",
        "exit_code": run.exit_code if run else None,
        "signal": run.signal if run else None,
        "cause": run.cause.value if run else "",
        "error": failure.message if failure else "",
        "failure_class": failure.kind.value if failure else "",
    }
