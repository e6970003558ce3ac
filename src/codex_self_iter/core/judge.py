"""Judging one run that has ended: what it said, whether it failed, and what is to come next."""

from __future__ import annotations

import dataclasses
import enum
import re
from typing import Any

from codex_self_iter.core.agent_report import AgentReport, Failure, FailureClass, not_started
from codex_self_iter.core.control_block import (
    Unreadable,
    parse,
    promised,
    read_json_object,
    to_bool,
    to_text,
)
from codex_self_iter.core.events import RunEnded
from codex_self_iter.core.opening import RULES
from codex_self_iter.core.policy import Policy
from codex_self_iter.core.runs import CALLED_OFF, EndCause, RunOutcome
from codex_self_iter.core.state import (
    Ending,
    EndingKind,
    Iteration,
    LoopState,
    PlannerAnswer,
    Review,
)
from codex_self_iter.core.terms import Mode, Role, Verdict

_OWN_FILE = re.compile(
    r"\.log(\.\d+)?$|history[^/]*$"
    r"|(^|/)\.(aider|claude|codex|copilot|cursor|gemini|opencode|qwen)[^/]*(/|$)"
)


class Next(enum.Enum):
    """What follows a run."""

    RUN = enum.auto()
    """The next role's."""
    VERIFY = enum.auto()
    CLOSE = enum.auto()


Judged = tuple[Iteration, Next]


def judge_run(state: LoopState, opened: Iteration, event: RunEnded, policy: Policy) -> Judged:
    """Judge the run that was closed last in `opened`."""
    cause = event.outcome.cause
    if state.ending is not None and cause in CALLED_OFF and not event.report.answered:
        return called_off(opened, state.ending), Next.CLOSE
    if cause is EndCause.CRASHED and not event.report.answered:
        return _aborted(
            opened, "it was ended, because its loop or supervisor had failed"
        ), Next.CLOSE
    failure = event.report.failure
    if failure is not None and _worked(failure, event):
        # What a run that did work says last is no CLI's refusal.
        agents = dataclasses.replace(failure, kind=FailureClass.AGENT, guessed=False, mend="")
        failure = None if event.outcome.ok else agents
    # What the agent has answered counts, whatever became of its process.
    if not event.report.answered and (
        failure is None
        or cause in CALLED_OFF
        or (failure.kind is FailureClass.AGENT and cause not in (EndCause.EXIT, EndCause.LINGERED))
    ):
        # What the host knows of the end says more than what an adapter can guess from the output.
        failure = _from_outcome(event.outcome) or failure
    if failure is not None:
        return _failed(opened, failure, _verdict(failure, cause)), Next.CLOSE
    role = opened.ended[-1].role
    if role is Role.PLANNER:
        judged = _planner(opened, event)
    elif role is Role.REVIEWER:
        judged = _reviewer(opened, event)
    else:
        judged = _executor(state, opened, event, policy)
    if isinstance(judged, Unreadable):
        if event.report.cut:
            judged = Unreadable(
                f"{judged.why}; the answer is too large: a control block is looked for in its last "
                f"{event.report.cut // 1024} KiB alone, make it shorter"
            )
        refused = f"; refused: {', '.join(opened.refused[:5])}" if opened.refused else ""
        failure = Failure(FailureClass.AGENT, f"{judged.why}{refused}")
        return _failed(opened, failure, Verdict.ERROR), Next.CLOSE
    return judged


def _worked(failure: Failure, event: RunEnded) -> bool:
    """True when a class was guessed of a run that did work; of memory any run may die. A log or
    history that a program keeps of itself is none."""
    guess = failure.guessed and failure.kind is not FailureClass.MEMORY
    own = bool(event.changed_files) and all(map(_OWN_FILE.search, event.changed_files))
    return guess and bool(event.changed) and not (failure.idle or own)


def called_off(opened: Iteration, ending: Ending) -> Iteration:
    """A person ended the iteration before it had its answer. How a loop was stopped, and how it goes
    on, is the reason of its end."""
    reason = "the loop was stopped" if ending.kind is EndingKind.STOP else ending.reason
    return _aborted(opened, reason)


def _aborted(opened: Iteration, reason: str) -> Iteration:
    return _failed(opened, Failure(FailureClass.KILLED, reason), Verdict.ABORTED)


def interrupted(opened: Iteration) -> Iteration:
    """The last run ended with the supervisor that had started it."""
    failure = Failure(FailureClass.KILLED, "the run ended with the supervisor that had started it")
    return _failed(opened, failure, Verdict.INTERRUPTED)


def _failed(opened: Iteration, failure: Failure, verdict: Verdict) -> Iteration:
    return dataclasses.replace(opened, failure=failure, failure_verdict=verdict)


def _verdict(failure: Failure, cause: EndCause) -> Verdict:
    if failure.kind is FailureClass.LIMIT:
        return Verdict.LIMITED
    if cause in (EndCause.WALL_TIMEOUT, EndCause.IDLE_TIMEOUT):
        return Verdict.TIMED_OUT
    return Verdict.INTERRUPTED if cause is EndCause.LOST else Verdict.ERROR


def _from_outcome(outcome: RunOutcome) -> Failure | None:
    """What an adapter did not classify: time-outs, signals, exit codes."""
    kind = FailureClass.AGENT
    if outcome.cause is EndCause.WALL_TIMEOUT:
        text = f"timed out after {outcome.duration_sec:.0f} s (command_timeout_sec)"
    elif outcome.cause is EndCause.IDLE_TIMEOUT:
        text = (
            f"ended after {outcome.duration_sec:.0f} s: no output, CPU use or file change "
            "for idle_timeout_sec"
        )
    elif outcome.cause is EndCause.MEMORY:
        kind = FailureClass.MEMORY
        text = "ended: the agent's processes used more than memory_limit_mb"
    elif outcome.cause is EndCause.SPAWN_FAILED:
        return not_started(outcome)
    elif outcome.cause is EndCause.REQUEST:
        text = "ended by a signal to its recorder that nobody here asked for"
    elif outcome.cause is EndCause.LOST:
        text = "vanished without a recorded exit status"
    elif outcome.signal is not None:
        text = f"the agent was ended by signal {outcome.signal}"
    elif outcome.exit_code != 0:
        text = f"the agent exited with code {outcome.exit_code}"
    else:
        return None
    return Failure(kind, text)


def _executor(
    state: LoopState, opened: Iteration, event: RunEnded, policy: Policy
) -> Judged | Unreadable:
    answer, word = event.report.answer, policy.completion_promise
    block = parse(answer, event.prompt)
    if isinstance(block, Unreadable):
        # The block may stand in a message before the last one, and the word may do without.
        block = parse(event.report.said or answer, event.prompt, word)
    if isinstance(block, Unreadable):
        return block
    claim = block.completed or promised(word, answer, block, event.prompt)
    opened = dataclasses.replace(opened, block=block, claim=claim, gate_flaw=_gate_flaw(state))
    if asks_gates(opened, policy) or (event.plan_checks and (claim or opened.ticked_marks)):
        return opened, Next.VERIFY
    return opened, Next.RUN if policy.mode is Mode.ROLES else Next.CLOSE


def asks_gates(opened: Iteration, policy: Policy) -> bool:
    """Whether the gates are due after the answer of the executor."""
    stop = opened.block is not None and opened.block.stop
    asked = opened.claim or stop or policy.verify_every_iteration
    return bool(policy.verify_commands) and asked


def changed_gate_files(state: LoopState) -> list[str]:
    """The gate files that differ from how the person left them."""
    baseline, seen = state.gate_baseline, state.gate_seen
    if baseline is None or seen is None:
        return []
    return sorted(
        path
        for path in (baseline.keys() | seen.keys()) - {RULES}
        if baseline.get(path) != seen.get(path)
    )


def _gate_flaw(state: LoopState) -> str:
    changed = changed_gate_files(state)
    return f"gate files were changed by the agent: {', '.join(changed[:10])}" if changed else ""


def _object(report: AgentReport, required: str) -> dict[str, Any] | Unreadable:
    data = read_json_object(report.answer, required)
    if isinstance(data, Unreadable) and report.said:
        return read_json_object(report.said, required)
    return data


def _planner(opened: Iteration, event: RunEnded) -> Judged | Unreadable:
    data = _object(event.report, "objective")
    if isinstance(data, Unreadable):
        return data
    stop = to_bool(data.get("stop"))
    if stop is None:
        return Unreadable('the planner\'s "stop" must be true or false')
    plan = PlannerAnswer(
        objective=to_text(data.get("objective")),
        execution_prompt=to_text(data.get("execution_prompt")),
        done_if=to_text(data.get("done_if")),
        rationale=to_text(data.get("rationale")),
        stop=stop,
    )
    return dataclasses.replace(opened, planner=plan), Next.CLOSE if stop else Next.RUN


def _reviewer(opened: Iteration, event: RunEnded) -> Judged | Unreadable:
    data = _object(event.report, "continue")
    if isinstance(data, Unreadable):
        return data
    go_on = to_bool(data.get("continue"))
    if go_on is None:
        return Unreadable('the reviewer\'s "continue" must be true or false')
    confidence = data.get("confidence")
    review = Review(
        next_focus=to_text(data.get("next_focus")),
        reason=to_text(data.get("reason")),
        confidence=confidence if isinstance(confidence, int | float) else to_text(confidence),
        go_on=go_on,
    )
    return dataclasses.replace(opened, reviewer=review), Next.CLOSE
