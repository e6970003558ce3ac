"""What an agent is asked: the inputs of its prompt, and the request to its adapter. Reads only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from codex_self_iter.agents.base import Request
from codex_self_iter.core import prompt as prompts
from codex_self_iter.core.account import session_key
from codex_self_iter.core.agent_report import FailureClass
from codex_self_iter.core.bounds import BRIEF
from codex_self_iter.core.control_block import SCHEMA, SCHEMA_WITH_NOTES
from codex_self_iter.core.fence import inside
from codex_self_iter.core.state import Message, OpenRun
from codex_self_iter.core.terms import Role
from codex_self_iter.core.text import both_ends
from codex_self_iter.supervisor import exporting, fencing
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.note_file import Notes

HISTORY_LINES = 500
"""So many lines of the journal, or twice as many, are looked through for those that a prompt shows."""
BRIEF_FEEDBACK = 2_000
"""Characters of what failed last, in a short prompt."""
BRIEF_MESSAGES = 16_000
"""Bytes that all messages share in a short prompt."""
SHORTENED = (
    "prompts were too long for the model: they name task and plan by their paths, cut long messages "
    "and show no history until task or plan is edited; shorten them, or choose a model with a larger "
    "context"
)
SCHEMAS = {Role.PLANNER: prompts.PLANNER_SCHEMA, Role.REVIEWER: prompts.REVIEWER_SCHEMA}


def inputs(
    ctx: Context, run: OpenRun, own: Mapping[str, str], notes: Notes
) -> prompts.PromptInputs:
    """Everything that the prompt of a run of the open iteration is built from.

    `own`: the person's own texts for its role."""
    opened = ctx.state.open
    assert opened is not None
    brief = ctx.state.counters.tries.get(FailureClass.CONTEXT.value, 0) >= BRIEF
    if brief:
        ctx.warnings.tell("prompt", SHORTENED)
    else:
        ctx.warnings.clear("prompt")
    return prompts.PromptInputs(
        role=run.role,
        iteration=opened.number,
        plan=ctx.plan.text,
        task=ctx.task.text,
        goal=opened.aim if run.role is Role.EXECUTOR else opened.goal,
        history=() if brief else _history(ctx),
        feedback=_feedback(ctx, brief),
        plan_file=plan_file(ctx),
        plan_in_place=in_place(ctx, run.agent),
        plan_path=str(ctx.paths.plan) if brief else "",
        task_path=str(ctx.paths.task) if brief and ctx.task.text else "",
        messages=_shown(ctx, opened.messages, brief),
        warnings=ctx.warnings.for_agent(),
        circling=prompts.circling_text(opened.goal) if opened.warned else "",
        promise=ctx.settings.completion_promise,
        gates=ctx.settings.verify.commands,
        item_checks=ctx.policy.item_checks,
        commit=ctx.settings.git.commit,
        planner=opened.planner,
        block=opened.block.to_json() if opened.block else None,
        gate_results=[gate.to_json() for gate in opened.gates],
        changed_files=opened.changed_files,
        notes=notes.shown(),
        take_notes=ctx.settings.notes.on,
        **own,
    )


def request(
    ctx: Context, run: OpenRun, text: str, path: str, directory: str, temporary: str
) -> Request:
    """The request for a run, whose prompt `text` is in the file `path`."""
    session = ctx.state.sessions.get(session_key(run.role, run.agent))
    hints = {
        Role.PLANNER: ctx.settings.planner_model_hint,
        Role.REVIEWER: ctx.settings.reviewer_model_hint,
    }
    return Request(
        prompt=text,
        prompt_path=path,
        workspace=str(ctx.paths.workspace),
        plan_path=str(ctx.paths.plan),
        directory=directory,
        role=run.role,
        session_id=run.session_id,
        schema=SCHEMAS.get(run.role) or (SCHEMA_WITH_NOTES if ctx.settings.notes.on else SCHEMA),
        commit_by_agent=ctx.settings.git.commit == "agent",
        environment=exporting.environment(ctx, ctx.state.iteration, run.run_id),
        model_hint=hints.get(run.role, ""),
        previous_thread_usage=session.thread_usage if session and run.session_id else None,
        temporary=temporary,
    )


def in_place(ctx: Context, agent: str) -> bool:
    """Whether the agent's fence opens the plan alone, and not its directory."""
    workspace, state, plan = map(str, (ctx.paths.workspace, ctx.paths.state_dir, ctx.paths.plan))
    apart = inside(plan, state) or not inside(plan, workspace)
    return apart and fencing.terms(ctx.settings, agent).level == "write"


def plan_file(ctx: Context) -> str:
    """Where the plan is, seen from the workspace; its whole path where it lies outside."""
    plan = ctx.paths.plan
    seen = os.path.relpath(plan, ctx.paths.workspace)
    outside = seen.startswith(os.pardir) and plan.parent != ctx.paths.state_dir
    return str(plan) if outside else seen


def _shown(ctx: Context, messages: tuple[Message, ...], brief: bool) -> list[str]:
    """The texts of messages; in a short prompt both ends of the long ones."""
    if not brief:
        return [message.text for message in messages]
    room = BRIEF_MESSAGES // max(1, len(messages))
    whole = f"\n[the whole message is in {ctx.store.path}/inbox/done/*-"
    return [
        both_ends(one.text, room)
        + (f"{whole}{one.name}]" if len(one.text.encode("utf-8", "replace")) > room else "")
        for one in messages
    ]


def _feedback(ctx: Context, brief: bool) -> str:
    """What failed last; of it little where prompts are short, and nothing until one has fitted."""
    state = ctx.state
    if not brief:
        return state.feedback
    return "" if state.counters.failures else state.feedback[:BRIEF_FEEDBACK]


def _history(ctx: Context) -> list[Mapping[str, Any]]:
    """The last iterations that came to work, with those that failed since the first of them."""
    wanted, count = ctx.settings.history_tail, ctx.settings.history_tail
    while True:
        lines = ctx.store.journal_tail(count)
        good = [index for index, line in enumerate(lines) if prompts.worked(line)][-wanted:]
        enough = not wanted or len(good) == wanted
        if enough or len(lines) < count or count >= HISTORY_LINES:
            return list(lines[good[0] if enough and good else 0 :])
        count *= 2
