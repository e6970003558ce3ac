"""What a run begins with: its iteration, its name, its session, the messages that it is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from codex_self_iter.core.account import session_key
from codex_self_iter.core.events import Prepared
from codex_self_iter.core.policy import AgentPolicy
from codex_self_iter.core.state import Iteration, LoopState, Message, OpenRun
from codex_self_iter.core.terms import Moment, Role, Verdict

RULES = ":ignore"
"""Among gate files no path, but the rules by which git ignores files: marks of each, sorted."""


def given(opened: Iteration, more: tuple[Message, ...]) -> Iteration:
    """The iteration with these messages, too. The same file may be in the inbox still; another one of
    its name is another message."""
    known = opened.messages
    fresh = (one for one in more if not any(one.same_file(old) for old in known))
    return dataclasses.replace(opened, messages=(*known, *fresh))


def begun(
    state: LoopState, event: Prepared, role: Role, agent: AgentPolicy, at: Moment
) -> tuple[LoopState, Iteration, OpenRun]:
    """The state with this run in its iteration, which is opened if none is."""
    opened = state.open or Iteration(
        number=state.iteration + 1,
        goal=state.goal,
        started_at=at.wall,
        boot_id=at.boot_id,
        up=at.up,
        messages=state.carried,
        head_before=event.head,
        warned=state.warned,
    )
    run = _run(state, opened, role, agent, at)
    opened = dataclasses.replace(
        given(opened, event.messages), run=run, events=(*opened.events, *state.events)
    )
    state = dataclasses.replace(
        state,
        open=opened,
        wait=None,
        iteration=opened.number,
        run_iterations=state.run_iterations + (state.open is None),
        carried=(),
        events=(),
        warned=False,
    )
    return gates_found(state, event.gate_files), opened, run


def gates_taken(state: LoopState, files: Mapping[str, str]) -> LoopState | None:
    """The state with these gate files taken as they are now; None when nobody guards any of them."""
    baseline, seen = state.gate_baseline or {}, state.gate_seen
    taken = {path: mark for path, mark in files.items() if path in baseline}
    if not taken:
        return None
    seen = None if seen is None else seen | taken
    return dataclasses.replace(state, gate_baseline=baseline | taken, gate_seen=seen)


def gates_found(state: LoopState, files: Mapping[str, str]) -> LoopState:
    """Gate files as the person left them: a change made while no agent worked is the person's."""
    before = state.gate_seen
    baseline = dict(files) if state.gate_baseline is None else dict(state.gate_baseline)
    if before is not None:
        for path in before.keys() | files.keys():
            if before.get(path) != files.get(path):
                baseline[path] = files.get(path, "")
    return dataclasses.replace(state, gate_baseline=baseline, gate_seen=dict(files))


def first_results(state: LoopState, event: Prepared) -> dict[str, bool]:
    """What the gates said before the loop's first run: what a later start finds, the loop itself may
    have left. After a completion it begins anew."""
    over = state.last is not None and state.last.verdict is Verdict.COMPLETED
    return {**event.at_start, **({} if over and event.at_start else state.at_start)}


def _run(
    state: LoopState, opened: Iteration, role: Role, agent: AgentPolicy, at: Moment
) -> OpenRun:
    attempt = 1 + sum(ended.role is role for ended in opened.ended)
    label = f"{opened.number:06d}-{role}" + (f"-{attempt}" if attempt > 1 else "")
    return OpenRun(
        run_id=f"{state.loop_id}-{label}",
        role=role,
        agent=agent.name,
        account=agent.account,
        attempt=attempt,
        label=label,
        started_at=at.wall,
        session_id=_session(state, role, agent, at),
    )


def _session(state: LoopState, role: Role, agent: AgentPolicy, at: Moment) -> str:
    """The thread to resume, or "" for a fresh one."""
    session, rules = state.sessions.get(session_key(role, agent.name)), agent.session
    if session is None or not rules.resume:
        return ""
    too_long = (
        (rules.max_turns and session.turns >= rules.max_turns)
        or (rules.max_tokens and session.tokens >= rules.max_tokens)
        or (rules.max_sec and at.wall - session.started_at >= rules.max_sec)
    )
    return "" if too_long else session.session_id
