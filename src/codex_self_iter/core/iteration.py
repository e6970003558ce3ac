"""Judging one iteration: what its runs said, what it changed, what follows.

`judge_run` looks at one finished run, `close` at the whole iteration. Policies of the failure
classes:

    class      counts for        then                                   next prompt / session
    agent      max_consecutive   backoff; exit 4 at the bound            says what was wrong
    limit      -                 wait until the reset, else backoff      messages are kept for it
    overload   -                 backoff                                 messages are kept for it
    network    -                 backoff                                 messages are kept for it
    auth       its own bound     state blocked, backoff; exit 4          messages are kept for it
    config     its own bound     state blocked, backoff; exit 4          messages are kept for it
    sandbox    its own bound     state blocked, backoff; exit 4          says what was refused
    context    -                 fresh session, at once the first time   messages are kept for it
    memory     -                 backoff                                 says what the limit is
    killed     -                 by us: go on; by others: backoff        kept if the run did not come to work
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from datetime import UTC, datetime
from typing import Any

from codex_self_iter.core import backoff, budget, stagnation, waits
from codex_self_iter.core.commands import Command, Journal, Log, Notify, ShareLimit
from codex_self_iter.core.control_block import (
    ControlBlock,
    ParseError,
    parse,
    promised,
    read_json_object,
    to_bool,
    to_text,
)
from codex_self_iter.core.events import Moment, RunEnded
from codex_self_iter.core.model import (
    EndCause,
    Failure,
    FailureClass,
    Role,
    RunOutcome,
    State,
    Usage,
    Verdict,
)
from codex_self_iter.core.policy import Policy
from codex_self_iter.core.state import Counters, Ended, Iteration, LoopState, Session, Wait, to_json

NEEDS_HUMAN = frozenset({FailureClass.AUTH, FailureClass.CONFIG, FailureClass.SANDBOX})
UNSEEN = frozenset(
    {
        FailureClass.LIMIT,
        FailureClass.OVERLOAD,
        FailureClass.NETWORK,
        FailureClass.AUTH,
        FailureClass.CONFIG,
        FailureClass.CONTEXT,
    }
)
"""Classes in which the agent did no work, so that its messages go into the next prompt again."""

IDENTICAL_FAILURES = 3
"""So many identical gate failures in a row escalate in the prompt and count as a circle."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finish:
    """The loop ends with this verdict."""

    state: State
    exit_code: int
    reason: str


# -- one run ---------------------------------------------------------------------------------------


def account_run(
    state: LoopState, event: RunEnded, policy: Policy, at: Moment
) -> tuple[LoopState, tuple[Command, ...]]:
    """Move the run from `open.run` to `open.ended`; add its usage; remember its session."""
    opened, outcome, report = state.open, event.outcome, event.report
    assert opened is not None
    assert opened.run is not None
    run = opened.run
    ended = Ended(
        run_id=run.run_id,
        role=run.role,
        agent=run.agent,
        label=run.label,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        cause=outcome.cause.value,
        duration_sec=round(outcome.duration_sec, 3),
        model=report.model,
    )
    spent = budget.add(state.spent, report.usage, outcome.duration_sec, at.wall)
    spent, texts = budget.notices(spent, policy.budget)
    opened = dataclasses.replace(
        opened,
        run=None,
        ended=(*opened.ended, ended),
        usage=_sum(opened.usage, report.usage),
        refused=tuple(dict.fromkeys((*opened.refused, *report.refused)))[:50],
        changed=_either(opened.changed, event.changed) if opened.ended else event.changed,
        changed_files=tuple(dict.fromkeys((*opened.changed_files, *event.changed_files))),
        head_after=event.head or opened.head_after,
        change_note=event.change_note,
        plan_open=event.plan_open,
        plan_total=event.plan_total,
    )
    state = dataclasses.replace(
        state,
        open=opened,
        spent=spent,
        sessions=_sessions(state, event),
        gate_seen=state.gate_seen if event.gate_files is None else dict(event.gate_files),
    )
    return state, tuple(Notify("budget", text) for text in texts)


def _sum(one: Usage | None, two: Usage | None) -> Usage | None:
    if one is None or two is None:
        return one or two
    costs = [usage.cost_usd for usage in (one, two) if usage.cost_usd is not None]
    return Usage(
        one.input_tokens + two.input_tokens,
        one.cached_input_tokens + two.cached_input_tokens,
        one.output_tokens + two.output_tokens,
        sum(costs) if costs else None,
    )


def _either(one: bool | None, two: bool | None) -> bool | None:
    """Changed by any run; unknown unless all are known."""
    if one or two:
        return True
    return None if one is None or two is None else False


def _sessions(state: LoopState, event: RunEnded) -> dict[str, Session]:
    """Sessions after this run: continued, begun, or forgotten when it was lost or too long."""
    assert state.open is not None
    assert state.open.run is not None
    run, report = state.open.run, event.report
    sessions = dict(state.sessions)
    failure = report.failure
    if failure is not None and failure.kind is FailureClass.CONTEXT:
        sessions.pop(run.agent, None)
        return sessions
    if not report.session_id:
        return sessions
    old = sessions.get(run.agent)
    if old is None or old.session_id != report.session_id:
        old = Session(report.session_id, 0, run.started_at, 0)
    tokens = report.usage.total_tokens if report.usage else 0
    sessions[run.agent] = dataclasses.replace(
        old,
        turns=old.turns + 1,
        tokens=old.tokens + tokens,
        thread_usage=report.thread_usage or old.thread_usage,
    )
    return sessions


def judge_run(state: LoopState, event: RunEnded, policy: Policy) -> tuple[LoopState, str]:
    """Judge the run that `account_run` has just closed.

    Returns the state and what comes next: "next_run" (another role), "verify", or "close".
    """
    opened = state.open
    assert opened is not None
    role = opened.ended[-1].role
    if state.ending is not None or event.outcome.cause is EndCause.REQUEST:
        reason = state.ending.reason if state.ending else "ended on request"
        return _failed(state, Failure(FailureClass.KILLED, reason), Verdict.ABORTED), "close"
    failure = event.report.failure
    if failure is None or (
        failure.kind is FailureClass.AGENT and event.outcome.cause is not EndCause.EXIT
    ):
        # What the host knows of the end says more than what an adapter can guess from the output.
        failure = _from_outcome(event.outcome) or failure
    if failure is not None:
        timed_out = event.outcome.cause in (EndCause.WALL_TIMEOUT, EndCause.IDLE_TIMEOUT)
        lost = event.outcome.cause is EndCause.LOST
        verdict = Verdict.TIMED_OUT if timed_out else Verdict.INTERRUPTED if lost else Verdict.ERROR
        if failure.kind is FailureClass.LIMIT:
            verdict = Verdict.LIMITED
        return _failed(state, failure, verdict), "close"
    try:
        if role is Role.PLANNER:
            return _planner(state, event)
        if role is Role.REVIEWER:
            return _reviewer(state, event)
        return _executor(state, event, policy)
    except ParseError as error:
        refused = f"; refused: {', '.join(opened.refused[:5])}" if opened.refused else ""
        return _failed(
            state, Failure(FailureClass.AGENT, f"{error}{refused}"), Verdict.ERROR
        ), "close"


def _failed(state: LoopState, failure: Failure, verdict: Verdict) -> LoopState:
    assert state.open is not None
    opened = dataclasses.replace(state.open, failure=failure, failure_verdict=verdict.value)
    return dataclasses.replace(state, open=opened)


def _from_outcome(outcome: RunOutcome) -> Failure | None:
    """What an adapter did not classify: time-outs, signals, exit codes."""
    texts = {
        EndCause.WALL_TIMEOUT: f"timed out after {outcome.duration_sec:.0f} s (command_timeout_sec)",
        EndCause.IDLE_TIMEOUT: f"ended after {outcome.duration_sec:.0f} s: no output, CPU use or file change "
        "for idle_timeout_sec",
        EndCause.SPAWN_FAILED: f"could not be started: {outcome.error}",
        EndCause.LOST: "vanished without a recorded exit status",
    }
    if outcome.cause is EndCause.MEMORY:
        return Failure(
            FailureClass.MEMORY, "ended: the agent's processes used more than memory_limit_mb"
        )
    if outcome.cause is EndCause.SPAWN_FAILED and outcome.argv0_missing:
        return Failure(FailureClass.CONFIG, texts[outcome.cause])
    if outcome.cause in texts:
        return Failure(FailureClass.AGENT, texts[outcome.cause])
    if outcome.signal is not None:
        return Failure(FailureClass.AGENT, f"the agent was ended by signal {outcome.signal}")
    if outcome.exit_code != 0:
        return Failure(FailureClass.AGENT, f"the agent exited with code {outcome.exit_code}")
    return None


def _executor(state: LoopState, event: RunEnded, policy: Policy) -> tuple[LoopState, str]:
    answer = event.report.answer
    block = parse(answer, event.prompt)
    claim = block.completed or promised(policy.completion_promise, answer, block, event.prompt)
    assert state.open is not None
    opened = dataclasses.replace(state.open, block=block, claim=claim, gate_flaw=_gate_flaw(state))
    state = dataclasses.replace(state, open=opened)
    if policy.verify_commands and (claim or block.stop or policy.verify_every_iteration):
        return state, "verify"
    return state, "next_run" if policy.mode == "roles" else "close"


def _gate_flaw(state: LoopState) -> str:
    """Say which gate files differ from how the person left them."""
    baseline, seen = state.gate_baseline, state.gate_seen
    if baseline is None or seen is None:
        return ""
    changed = sorted(
        path for path in baseline.keys() | seen.keys() if baseline.get(path) != seen.get(path)
    )
    return f"gate files were changed by the agent: {', '.join(changed[:10])}" if changed else ""


def _planner(state: LoopState, event: RunEnded) -> tuple[LoopState, str]:
    data = read_json_object(event.report.answer, "objective")
    stop = to_bool(data.get("stop"))
    if stop is None:
        raise ParseError('the planner\'s "stop" must be true or false')
    texts = ("objective", "execution_prompt", "done_if", "rationale")
    plan = {key: to_text(data.get(key)) for key in texts} | {"stop": stop}
    assert state.open is not None
    state = dataclasses.replace(state, open=dataclasses.replace(state.open, planner=plan))
    return state, "close" if stop else "next_run"


def _reviewer(state: LoopState, event: RunEnded) -> tuple[LoopState, str]:
    data = read_json_object(event.report.answer, "continue")
    go_on = to_bool(data.get("continue"))
    if go_on is None:
        raise ParseError('the reviewer\'s "continue" must be true or false')
    confidence = data.get("confidence")
    review: dict[str, Any] = {key: to_text(data.get(key)) for key in ("next_focus", "reason")}
    review |= {
        "confidence": confidence if isinstance(confidence, int | float) else to_text(confidence)
    }
    review |= {"continue": go_on}
    assert state.open is not None
    return dataclasses.replace(
        state, open=dataclasses.replace(state.open, reviewer=review)
    ), "close"


def interrupted(state: LoopState) -> LoopState:
    """The open run ended with the last supervisor: close its iteration as interrupted."""
    opened = state.open
    assert opened is not None
    assert opened.run is not None
    run = opened.run
    ended = Ended(run.run_id, run.role, run.agent, run.label, None, None, EndCause.LOST.value, 0.0)
    opened = dataclasses.replace(opened, run=None, ended=(*opened.ended, ended), orphaned=True)
    failure = Failure(FailureClass.KILLED, "the run ended with the supervisor that had started it")
    # Nobody looked at the gate files when it ended: what differs from now on is taken as the
    # agent's doing.
    state = dataclasses.replace(state, open=opened, gate_seen=None)
    return _failed(state, failure, Verdict.INTERRUPTED)


def called_off(state: LoopState, reason: str) -> LoopState:
    """A person ended the open iteration after its run: its answer is not judged."""
    return _failed(state, Failure(FailureClass.KILLED, reason), Verdict.ABORTED)


# -- the whole iteration ---------------------------------------------------------------------------


def close(
    state: LoopState, policy: Policy, at: Moment
) -> tuple[LoopState, Finish | None, tuple[Command, ...]]:
    """Give the verdict on the open iteration: the state without it, an end if there is one, and
    what to tell.
    """
    opened = state.open
    assert opened is not None
    if opened.failure is not None:
        state, finish, notes = _close_failed(state, opened, opened.failure, policy, at)
    else:
        state, finish, notes = _close_answered(state, opened, policy, at)
    goal = state.goal_set or state.goal
    return dataclasses.replace(state, open=None, goal=goal, goal_set=""), finish, notes


def _last(opened: Iteration, verdict: Verdict, summary: str, at: Moment) -> dict[str, Any]:
    return {
        "iteration": opened.number,
        "verdict": verdict.value,
        "summary": summary,
        "duration_sec": round(max(0.0, at.wall - opened.started_at), 3),
        "ended_at": at.wall,
        "tokens": opened.usage.total_tokens if opened.usage else None,
        "cost_usd": opened.usage.cost_usd if opened.usage else None,
    }


def _close_failed(
    state: LoopState, opened: Iteration, failure: Failure, policy: Policy, at: Moment
) -> tuple[LoopState, Finish | None, tuple[Command, ...]]:
    verdict = Verdict(opened.failure_verdict)
    kind = failure.kind
    state = dataclasses.replace(
        state,
        last=_last(opened, verdict, failure.message, at),
        carried=opened.messages if _unseen(opened, kind, verdict) else (),
        feedback=state.feedback
        if kind in UNSEEN or kind is FailureClass.KILLED
        else _failure_feedback(failure),
    )
    if kind is FailureClass.KILLED and (verdict is Verdict.ABORTED or opened.orphaned):
        return state, None, ()
    counters = _count_failure(state.counters, kind)
    state = dataclasses.replace(state, counters=counters)
    bound = policy.max_consecutive_errors
    if bound and counters.agent_errors >= bound:
        text = (
            f"{bound} agent errors in a row (max_consecutive_errors); the last: {failure.message}"
        )
        return state, Finish(State.BLOCKED, 4, text), ()
    if bound and counters.auth_errors >= bound:
        text = f"a person must act ({kind}): {failure.message}"
        return state, Finish(State.BLOCKED, 4, text), ()
    return _failure_wait(state, opened, failure, policy, at)


def _unseen(opened: Iteration, kind: FailureClass, verdict: Verdict) -> bool:
    """True when the iteration's messages were for nothing: no run came so far as to work on
    them.
    """
    last = opened.ended[-1]
    called_off = last.cause == EndCause.REQUEST and last.duration_sec == 0.0
    never_ran = called_off or last.cause == EndCause.SPAWN_FAILED
    return kind in UNSEEN or verdict is Verdict.INTERRUPTED or never_ran


def _count_failure(counters: Counters, kind: FailureClass) -> Counters:
    return dataclasses.replace(
        counters,
        failures=counters.failures + 1,
        agent_errors=counters.agent_errors + (kind is FailureClass.AGENT),
        auth_errors=counters.auth_errors + 1 if kind in NEEDS_HUMAN else 0,
        confirmations=0,
    )


def _failure_wait(
    state: LoopState, opened: Iteration, failure: Failure, policy: Policy, at: Moment
) -> tuple[LoopState, Finish | None, tuple[Command, ...]]:
    """How long to wait after a failure, and whom to tell."""
    count = state.counters.failures
    length = backoff.exponential(count, policy.backoff_base_sec, policy.backoff_max_sec, at.u)
    notes: list[Command] = []
    kind, account = "error", opened.ended[-1].agent
    account = next(
        (
            agent.account
            for agents in policy.agents.values()
            for agent in agents
            if agent.name == account
        ),
        account,
    )
    if failure.kind is FailureClass.CONTEXT and count == 1:
        return state, None, tuple(notes)
    if failure.kind is FailureClass.LIMIT:
        kind = "limit"
        # A reset that has passed already was a wrong one: relying on it again would burn a run
        # every few seconds.
        if failure.reset_at is not None and failure.reset_at > at.wall:
            length = backoff.limit_wait(failure.reset_at, at.wall, at.u)
    elif failure.kind in NEEDS_HUMAN:
        kind = "auth"
        notes.append(Notify("blocked", f"{failure.kind}: {failure.message}"))
    wait = waits.make(kind, length, failure.message, at)
    if kind in ("limit", "auth"):
        # The account is out of use until then; another agent of the order may take over meanwhile.
        state = dataclasses.replace(state, limits={**state.limits, account: wait})
        if kind == "limit":
            notes.append(ShareLimit(account, wait))
        others = any(
            agent.account != account and waits.rest(state.limits[agent.account], at) <= 0
            if agent.account in state.limits
            else agent.account != account
            for agent in policy.agents[opened.ended[-1].role]
        )
        if others:
            return state, None, tuple(notes)
    return dataclasses.replace(state, wait=wait), None, tuple(notes)


def _failure_feedback(failure: Failure) -> str:
    return f"The last iteration failed ({failure.kind}): {failure.message}"


def _close_answered(
    state: LoopState, opened: Iteration, policy: Policy, at: Moment
) -> tuple[LoopState, Finish | None, tuple[Command, ...]]:
    counters = dataclasses.replace(state.counters, failures=0, agent_errors=0, auth_errors=0)
    state = dataclasses.replace(state, counters=counters, feedback="", carried=())
    if opened.planner is not None and opened.planner.get("stop"):
        return _close_planner_stop(state, opened, policy, at)
    block = opened.block or ControlBlock()
    state = _next_goal(state, opened, block)
    state = _count_progress(state, opened)
    unmet = _unmet(opened, policy)
    state = _gate_feedback(state, opened, unmet)
    agreed = opened.reviewer is None or not opened.reviewer.get("continue")
    if opened.claim and not unmet and agreed:
        return _close_proven(state, opened, block, policy, at)
    state = dataclasses.replace(
        state, counters=dataclasses.replace(state.counters, confirmations=0)
    )
    if block.stop:
        return _close_stop(state, opened, block, unmet, at)
    state, verdict, wait = _go_on(state, opened, agreed, policy, at)
    state = dataclasses.replace(state, wait=wait, last=_last(opened, verdict, block.summary, at))
    return _circles(state, opened, policy)


def _next_goal(state: LoopState, opened: Iteration, block: ControlBlock) -> LoopState:
    focus = str((opened.reviewer or {}).get("next_focus") or "").strip()
    goal = focus or block.next_goal or state.goal
    goals = (*state.goals, stagnation.normalise(goal))[-stagnation.HISTORY :]
    return dataclasses.replace(state, goal=goal, goals=goals)


def _count_progress(state: LoopState, opened: Iteration) -> LoopState:
    if opened.changed is None:
        return state
    no_change = 0 if opened.changed else state.counters.no_change + 1
    return dataclasses.replace(
        state, counters=dataclasses.replace(state.counters, no_change=no_change)
    )


def _unmet(opened: Iteration, policy: Policy) -> list[str]:
    """Everything that stands against believing that the work is done."""
    unmet = [f"`{gate.command}` {_gate_end(gate)}" for gate in opened.gates if not gate.ok]
    if policy.verify_commands and not opened.gates_ran:
        unmet.append("the gates did not run")
    if opened.claim and opened.gate_flaw:
        unmet.append(opened.gate_flaw)
    if opened.claim and policy.require_plan_done and opened.plan_open:
        unmet.append(f"{opened.plan_open} of {opened.plan_total} plan items are still open")
    return unmet if opened.gates_ran or opened.claim else []


def _gate_end(gate: Any) -> str:
    if gate.flaw:
        return f"could not run: {gate.flaw}"
    return "timed out" if gate.timed_out else f"exited with code {gate.exit_code}"


def _gate_feedback(state: LoopState, opened: Iteration, unmet: list[str]) -> LoopState:
    """Put what failed into the next prompt; count identical failures."""
    if not unmet:
        counters = dataclasses.replace(state.counters, gate_repeats=0, gate_print="")
        return dataclasses.replace(state, counters=counters)
    outputs = "\n\n".join(
        f"$ {gate.command}\n{gate.output}" for gate in opened.gates if not gate.ok
    )
    text = re.sub(r"\d+(\.\d+)?", "#", "\n".join(unmet) + outputs)
    mark = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    repeats = state.counters.gate_repeats + 1 if mark == state.counters.gate_print else 1
    counters = dataclasses.replace(state.counters, gate_repeats=repeats, gate_print=mark)
    head = "Completion was claimed but is not proven" if opened.claim else "Verification failed"
    feedback = f"{head}: {'; '.join(unmet)}."
    if repeats >= IDENTICAL_FAILURES:
        feedback += (
            f"\nThis is the same failure for the {repeats}th time in a row. What was tried so far does not work: "
            "find the cause before changing anything, and take another way."
        )
    return dataclasses.replace(
        state, counters=counters, feedback=f"{feedback}\n\n{outputs}".strip()
    )


def _close_proven(
    state: LoopState, opened: Iteration, block: ControlBlock, policy: Policy, at: Moment
) -> tuple[LoopState, Finish | None, tuple[Command, ...]]:
    counters = dataclasses.replace(state.counters, confirmations=state.counters.confirmations + 1)
    state = dataclasses.replace(state, counters=counters)
    if counters.confirmations > policy.confirmations:
        state = dataclasses.replace(state, last=_last(opened, Verdict.COMPLETED, block.summary, at))
        return state, Finish(State.COMPLETED, 0, block.reason or block.summary or "completed"), ()
    left = policy.confirmations - counters.confirmations + 1
    state = dataclasses.replace(
        state,
        last=_last(opened, Verdict.AWAITING_CONFIRMATION, block.summary, at),
        feedback=f"Completion was claimed and every gate passed. Check everything again with fresh eyes: "
        f"{left} more iteration(s) must agree. Claim completion only if nothing is missing.",
    )
    return state, None, ()


def _close_stop(
    state: LoopState, opened: Iteration, block: ControlBlock, unmet: list[str], at: Moment
) -> tuple[LoopState, Finish | None, tuple[Command, ...]]:
    state = dataclasses.replace(state, last=_last(opened, Verdict.STOP, block.summary, at))
    reason = block.reason or block.summary or "the agent asked to stop"
    if unmet:
        return (
            state,
            Finish(State.BLOCKED, 4, f"the agent stopped ({reason}), but: {'; '.join(unmet)}"),
            (),
        )
    return state, Finish(State.STOPPED, 0, f"the agent stopped: {reason}"), ()


def _close_planner_stop(
    state: LoopState, opened: Iteration, policy: Policy, at: Moment
) -> tuple[LoopState, Finish | None, tuple[Command, ...]]:
    plan = opened.planner or {}
    reason = str(plan.get("rationale") or plan.get("objective") or "the planner sees nothing to do")
    state, wait = _cooldown(
        state, "planner_stop", policy.planner_stop_backoff_sec, reason, policy, at
    )
    state = dataclasses.replace(
        state, wait=wait, last=_last(opened, Verdict.PLANNER_STOP, reason, at)
    )
    return state, None, ()


def _cooldown(
    state: LoopState, kind: str, base: float, reason: str, policy: Policy, at: Moment
) -> tuple[LoopState, Wait]:
    count = state.counters.cooldowns + 1
    state = dataclasses.replace(
        state, counters=dataclasses.replace(state.counters, cooldowns=count)
    )
    length = backoff.exponential(1, base, max(base, policy.backoff_max_sec), at.u)
    return state, waits.make(kind, length, reason, at)


def _go_on(
    state: LoopState, opened: Iteration, agreed: bool, policy: Policy, at: Moment
) -> tuple[LoopState, Verdict, Wait | None]:
    """The verdict and the wait of an iteration that ends nothing."""
    if opened.claim:
        verdict = Verdict.CLAIM_REJECTED
    elif opened.reviewer is not None and agreed:
        reason = str(opened.reviewer.get("reason") or "the reviewer sees nothing more to do")
        state, wait = _cooldown(
            state, "continue_false", policy.continue_false_backoff_sec, reason, policy, at
        )
        return state, Verdict.CONTINUE_FALSE, wait
    else:
        verdict = Verdict.NO_CHANGE if opened.changed is False else Verdict.CONTINUE
    state = dataclasses.replace(state, counters=dataclasses.replace(state.counters, cooldowns=0))
    over = state.counters.no_change - policy.no_change_gate + 1
    if opened.changed is not False or policy.no_change_gate < 1 or over < 1:
        return state, verdict, None
    length = backoff.exponential(over, policy.no_change_backoff_sec, policy.backoff_max_sec, at.u)
    return state, verdict, waits.make("no_change", length, "the last iteration changed nothing", at)


def _circles(
    state: LoopState, opened: Iteration, policy: Policy
) -> tuple[LoopState, Finish | None, tuple[Command, ...]]:
    """Warn a loop that goes in circles once, then give up."""
    bound = policy.max_stagnation
    if bound < 1:
        return dataclasses.replace(state, warned=False), None, ()
    found = stagnation.circle(state.goals, state.counters.no_change, state.counters.gate_repeats)
    if found.length >= bound and opened.warned:
        text = f"going in circles: {found.what} for {found.length} iterations (max_stagnation = {bound})"
        return state, Finish(State.STAGNATED, 3, f"{text}; the goal: {state.goal[:200]}"), ()
    warned = found.length >= max(1, bound - 1)
    notes = (Log("loop.circling", {"what": found.what, "length": found.length}),) if warned else ()
    return dataclasses.replace(state, warned=warned), None, notes


# -- the journal line ------------------------------------------------------------------------------


def iso(wall: float) -> str:
    """UTC time stamp with milliseconds."""
    try:
        return (
            datetime.fromtimestamp(wall, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )
    except (OverflowError, ValueError, OSError):
        return "1970-01-01T00:00:00.000Z"


def journal_record(before: LoopState, after: LoopState, at: Moment) -> Journal:
    """The journal line of the iteration that is open in `before` and closed in `after`."""
    opened = before.open
    assert opened is not None
    block = opened.block or ControlBlock()
    failure = opened.failure
    last_run = opened.ended[-1] if opened.ended else None
    record: dict[str, Any] = {
        "ts": iso(at.wall),
        "iteration": opened.number,
        "phase": str(last_run.role if last_run else Role.EXECUTOR),
        "state": after.state.value,
        "goal_in": opened.goal,
        "summary": block.summary,
        "reason": block.reason or (failure.message if failure else ""),
        "evidence": list(block.evidence),
        "next_goal": after.goal,
        "has_new_changes": opened.changed,
        "completed": block.completed,
        "stop": block.stop,
        "verdict": (after.last or {}).get("verdict", ""),
        "claimed": opened.claim,
        "started_at": iso(opened.started_at),
        "duration_sec": round(max(0.0, at.wall - opened.started_at), 3),
        "agent": last_run.agent if last_run else "",
        "model": last_run.model if last_run else "",
        "exit_code": last_run.exit_code if last_run else None,
        "signal": last_run.signal if last_run else None,
        "cause": last_run.cause if last_run else "",
        "error": failure.message if failure else "",
        "failure_class": failure.kind.value if failure else "",
        "usage": opened.usage.to_json() if opened.usage else None,
        "cost_usd": opened.usage.cost_usd if opened.usage else None,
        "gates": [gate.to_json() for gate in opened.gates],
        "gate_flaw": opened.gate_flaw,
        "changed_files": list(opened.changed_files[:200]),
        "changed_count": len(opened.changed_files),
        "change_note": opened.change_note,
        "head_before": opened.head_before,
        "head_after": opened.head_after,
        "commit": opened.commit,
        "checkpoint": opened.checkpoint,
        "keep_error": opened.keep_error,
        "refused": list(opened.refused),
        "messages": [dataclasses.asdict(message) for message in opened.messages],
        "events": list(opened.events),
        "roles": {
            key: value
            for key, value in (("planner", opened.planner), ("reviewer", opened.reviewer))
            if value
        },
        "runs": [dataclasses.asdict(ended) for ended in opened.ended],
        "warned": opened.warned,
        "counters": dataclasses.asdict(after.counters),
        "wait": dataclasses.asdict(after.wait) if after.wait else None,
        "after": to_json(dataclasses.replace(after, preparing=False)),
    }
    return Journal(record)


# -- starting again --------------------------------------------------------------------------------


def forget_circles(state: LoopState) -> LoopState:
    """A person changed what is asked: old goals and counts say nothing about the new."""
    counters = dataclasses.replace(
        state.counters, no_change=0, gate_repeats=0, gate_print="", cooldowns=0, confirmations=0
    )
    return dataclasses.replace(state, counters=counters, goals=(), warned=False)


def after_restart(state: LoopState, at: Moment) -> LoopState:
    """What a new supervisor takes over: all but what belonged to the old process or to an end that
    was reported.

    Waits keep what is left of them. After an end that a person has seen (stagnated, blocked,
    completed) the counters start again; after a stop or a crash they do not."""
    seen = state.exit_code is not None and state.state is not State.STOPPED
    state = dataclasses.replace(
        state,
        state=State.STARTING,
        since=at.wall,
        reason="",
        preparing=False,
        after_iteration=None,
        ending=None,
        blocked_by={},
        run_iterations=0,
        exit_code=None,
        wait=None if seen or state.wait is None else waits.reanchored(state.wait, at),
        limits={
            account: waits.reanchored(wait, at)
            for account, wait in state.limits.items()
            if wait.kind == "limit" or not seen
        },
    )
    if seen:
        state = dataclasses.replace(forget_circles(state), counters=Counters())
    return state
