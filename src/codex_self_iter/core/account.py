"""Writing down a run that has ended: its end, its usage, its session."""

from __future__ import annotations

import dataclasses

from codex_self_iter.core import budget
from codex_self_iter.core.agent_report import FailureClass, Usage
from codex_self_iter.core.commands import Command, Notify
from codex_self_iter.core.events import RunEnded
from codex_self_iter.core.policy import BudgetPolicy
from codex_self_iter.core.runs import EndCause
from codex_self_iter.core.state import Ended, Iteration, LoopState, OpenRun, Session, Spent
from codex_self_iter.core.terms import Moment, Role


def closed(opened: Iteration, run: OpenRun, event: RunEnded) -> Iteration:
    """The open iteration once its `run` has ended."""
    outcome, report = event.outcome, event.report
    used = [usage for usage in (opened.usage, report.usage) if usage is not None]
    ended = Ended(
        run_id=run.run_id,
        role=run.role,
        agent=run.agent,
        label=run.label,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        cause=outcome.cause,
        duration_sec=round(outcome.duration_sec, 3),
        model=report.model,
        resumed=bool(run.session_id),
        started_at=outcome.started_at,
        usage=report.usage,
    )
    return dataclasses.replace(
        opened,
        run=None,
        ended=(*opened.ended, ended),
        usage=Usage.of(*used) if used else None,
        refused=tuple(dict.fromkeys((*opened.refused, *report.refused)))[:50],
        changed=_either(opened.changed, event.changed) if opened.ended else event.changed,
        changed_files=tuple(dict.fromkeys((*opened.changed_files, *event.changed_files))),
        head_after=event.head or opened.head_after,
        change_note=event.change_note,
        plan_open=event.plan_open,
        plan_total=event.plan_total,
        ticked=opened.ticked + event.ticked,
        ticked_marks=(*opened.ticked_marks, *event.ticked_marks),
    )


def vanished(opened: Iteration, run: OpenRun) -> Iteration:
    """The open iteration when its `run` has ended with the supervisor that had started it."""
    ended = Ended(
        *(run.run_id, run.role, run.agent, run.label),
        exit_code=None,
        signal=None,
        cause=EndCause.LOST,
        duration_sec=0.0,
        started_at=run.started_at,
    )
    return dataclasses.replace(opened, run=None, ended=(*opened.ended, ended), orphaned=True)


def spend(
    state: LoopState, event: RunEnded, bounds: BudgetPolicy, at: Moment
) -> tuple[Spent, tuple[Command, ...]]:
    """What is spent with this run, and which bounds are near."""
    spent = budget.add(state.spent, event.report.usage, event.outcome.duration_sec, at.wall)
    spent, texts = budget.notices(spent, bounds)
    return spent, tuple(Notify("budget", text) for text in texts)


def sessions(state: LoopState, run: OpenRun, event: RunEnded) -> dict[str, Session]:
    """Sessions after this run: continued, begun, or forgotten when it was lost or too long."""
    report, key = event.report, session_key(run.role, run.agent)
    known = dict(state.sessions)
    if report.failure is not None and report.failure.kind is FailureClass.CONTEXT:
        known.pop(key, None)
        return known
    if not report.session_id:
        return known
    old = known.get(key)
    if old is None or old.session_id != report.session_id:
        old = Session(report.session_id, 0, run.started_at, 0)
    tokens = report.usage.total_tokens if report.usage else 0
    known[key] = dataclasses.replace(
        old,
        turns=old.turns + 1,
        tokens=old.tokens + tokens,
        thread_usage=report.thread_usage or old.thread_usage,
    )
    return known


def session_key(role: Role, agent: str) -> str:
    """Under which name a thread is kept: planner and reviewer have conversations of their own."""
    return agent if role is Role.EXECUTOR else f"{agent}/{role}"


def _either(one: bool | None, two: bool | None) -> bool | None:
    """Changed by any run; unknown unless all are known."""
    if one or two:
        return True
    return None if one is None or two is None else False
