"""The verdict on an iteration: what its runs and gates amount to, and what follows.

Policies of the failure classes:

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
from typing import Any

from codex_self_iter.core import backoff, stagnation, waits
from codex_self_iter.core.agent_report import Failure, FailureClass
from codex_self_iter.core.commands import Command, Log, Notify, ShareLimit
from codex_self_iter.core.control_block import ControlBlock
from codex_self_iter.core.evidence import GateResult
from codex_self_iter.core.policy import Policy
from codex_self_iter.core.runs import EndCause
from codex_self_iter.core.state import Counters, Iteration, Last, LoopState, WaitKind
from codex_self_iter.core.terms import Moment, State, Verdict

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


@dataclasses.dataclass(frozen=True, slots=True)
class Closed:
    """What the verdict leads to: the state after it, an end if there is one, and what to tell."""

    state: LoopState
    finish: Finish | None = None
    notes: tuple[Command, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Closing:
    """An iteration that is being closed; `state` becomes what it leaves behind."""

    state: LoopState
    opened: Iteration
    policy: Policy
    at: Moment

    def having(self, **changes: Any) -> Closing:
        """The same with a changed state."""
        return dataclasses.replace(self, state=dataclasses.replace(self.state, **changes))

    def counting(self, **changes: Any) -> Closing:
        """The same with changed counters."""
        return self.having(counters=dataclasses.replace(self.state.counters, **changes))

    def judged(self, verdict: Verdict, summary: str) -> Closing:
        """The same with this verdict."""
        opened, at, usage = self.opened, self.at, self.opened.usage
        last = Last(
            iteration=opened.number,
            verdict=verdict,
            summary=summary,
            duration_sec=round(max(0.0, at.wall - opened.started_at), 3),
            ended_at=at.wall,
            tokens=usage.total_tokens if usage else None,
            cost_usd=usage.cost_usd if usage else None,
        )
        return self.having(last=last)

    def cooldown(self, kind: WaitKind, base: float, reason: str) -> Closing:
        """The same with a wait because a role sees nothing to do."""
        ceiling = max(base, self.policy.backoff_max_sec)
        length = backoff.exponential(1, base, ceiling, self.at.u)
        waiting = self.having(wait=waits.make(kind, length, reason, self.at))
        return waiting.counting(cooldowns=self.state.counters.cooldowns + 1)


def close(closing: Closing) -> Closed:
    """Give the verdict on an iteration; the state that follows has none open."""
    failure = closing.opened.failure
    closed = _answered(closing) if failure is None else _failed(closing, failure)
    goal = closed.state.goal_set or closed.state.goal
    state = dataclasses.replace(closed.state, open=None, goal=goal, goal_set="")
    return dataclasses.replace(closed, state=state)


# -- it failed -------------------------------------------------------------------------------------


def _failed(closing: Closing, failure: Failure) -> Closed:
    opened, kind, verdict = closing.opened, failure.kind, closing.opened.failure_verdict
    closing = closing.judged(verdict, failure.message)
    closing = closing.having(carried=opened.messages if _unseen(opened, kind, verdict) else ())
    if kind not in UNSEEN and kind is not FailureClass.KILLED:
        feedback = f"The last iteration failed ({kind}): {failure.message}"
        closing = closing.having(feedback=feedback)
    if kind is FailureClass.KILLED and (verdict is Verdict.ABORTED or opened.orphaned):
        return Closed(closing.state)
    counters = _count_failure(closing.state.counters, kind)
    closing = closing.having(counters=counters)
    bound = closing.policy.max_consecutive_errors
    if bound and counters.agent_errors >= bound:
        text = (
            f"{bound} agent errors in a row (max_consecutive_errors); the last: {failure.message}"
        )
        return Closed(closing.state, Finish(State.BLOCKED, 4, text))
    if bound and counters.auth_errors >= bound:
        text = f"a person must act ({kind}): {failure.message}"
        return Closed(closing.state, Finish(State.BLOCKED, 4, text))
    if kind is FailureClass.CONTEXT and counters.failures == 1:
        return Closed(closing.state)
    return _failure_wait(closing, failure)


def _unseen(opened: Iteration, kind: FailureClass, verdict: Verdict) -> bool:
    """True when the iteration's messages were for nothing: no run came so far as to work on them."""
    last = opened.ended[-1]
    called_off = last.cause is EndCause.REQUEST and last.duration_sec == 0.0
    never_ran = called_off or last.cause is EndCause.SPAWN_FAILED
    return kind in UNSEEN or verdict is Verdict.INTERRUPTED or never_ran


def _count_failure(counters: Counters, kind: FailureClass) -> Counters:
    return dataclasses.replace(
        counters,
        failures=counters.failures + 1,
        agent_errors=counters.agent_errors + (kind is FailureClass.AGENT),
        auth_errors=counters.auth_errors + 1 if kind in NEEDS_HUMAN else 0,
        confirmations=0,
    )


def _failure_wait(closing: Closing, failure: Failure) -> Closed:
    """How long to wait after a failure, and whom to tell."""
    policy, at, count = closing.policy, closing.at, closing.state.counters.failures
    length = backoff.exponential(count, policy.backoff_base_sec, policy.backoff_max_sec, at.u)
    if failure.kind is FailureClass.LIMIT:
        # A reset that has passed already was a wrong one: relying on it again would burn a run
        # every few seconds.
        if failure.reset_at is not None and failure.reset_at > at.wall:
            length = backoff.limit_wait(failure.reset_at, at.wall, at.u)
        wait = waits.make(WaitKind.LIMIT, length, failure.message, at)
    elif failure.kind in NEEDS_HUMAN:
        wait = waits.make(WaitKind.AUTH, length, failure.message, at)
    else:
        wait = waits.make(WaitKind.ERROR, length, failure.message, at)
        return Closed(closing.having(wait=wait).state)
    # The account is out of use until then; another agent of the order may take over meanwhile.
    account = _account(closing)
    closing = closing.having(limits={**closing.state.limits, account: wait})
    note: Command = (
        ShareLimit(account, wait)
        if wait.kind is WaitKind.LIMIT
        else Notify("blocked", f"{failure.kind}: {failure.message}")
    )
    if not _others(closing, account):
        closing = closing.having(wait=wait)
    return Closed(closing.state, notes=(note,))


def _account(closing: Closing) -> str:
    """The account of the agent that ran last."""
    name = closing.opened.ended[-1].agent
    known = (agent for agents in closing.policy.agents.values() for agent in agents)
    return next((agent.account for agent in known if agent.name == name), name)


def _others(closing: Closing, account: str) -> bool:
    """True when another agent may take the role now."""
    limits = closing.state.limits
    return any(
        agent.account != account
        and (agent.account not in limits or waits.rest(limits[agent.account], closing.at) <= 0)
        for agent in closing.policy.agents[closing.opened.ended[-1].role]
    )


# -- it was answered -------------------------------------------------------------------------------


def _answered(closing: Closing) -> Closed:
    closing = closing.counting(failures=0, agent_errors=0, auth_errors=0)
    closing = closing.having(feedback="", carried=())
    opened = closing.opened
    if opened.planner is not None and opened.planner.stop:
        plan = opened.planner
        reason = plan.rationale or plan.objective or "the planner sees nothing to do"
        base = closing.policy.planner_stop_backoff_sec
        closing = closing.cooldown(WaitKind.PLANNER_STOP, base, reason)
        return Closed(closing.judged(Verdict.PLANNER_STOP, reason).state)
    block = opened.block or ControlBlock()
    closing = _next_goal(closing, block)
    if opened.changed is not None:
        no_change = 0 if opened.changed else closing.state.counters.no_change + 1
        closing = closing.counting(no_change=no_change)
    unmet = _unmet(opened, closing.policy)
    closing = _gate_feedback(closing, unmet)
    agreed = opened.reviewer is None or not opened.reviewer.go_on
    if opened.claim and not unmet and agreed:
        return _proven(closing, block)
    closing = closing.counting(confirmations=0)
    if block.stop:
        return _stopped(closing, block, unmet)
    return _circles(_go_on(closing, block))


def _next_goal(closing: Closing, block: ControlBlock) -> Closing:
    state, review = closing.state, closing.opened.reviewer
    goal = (review.next_focus.strip() if review else "") or block.next_goal or state.goal
    goals = (*state.goals, stagnation.normalise(goal))[-stagnation.HISTORY :]
    return closing.having(goal=goal, goals=goals)


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


def _gate_end(gate: GateResult) -> str:
    if gate.flaw:
        return f"could not run: {gate.flaw}"
    return "timed out" if gate.timed_out else f"exited with code {gate.exit_code}"


def _gate_feedback(closing: Closing, unmet: list[str]) -> Closing:
    """Put what failed into the next prompt; count identical failures."""
    if not unmet:
        return closing.counting(gate_repeats=0, gate_print="")
    opened, counters = closing.opened, closing.state.counters
    outputs = "\n\n".join(
        f"$ {gate.command}\n{gate.output}" for gate in opened.gates if not gate.ok
    )
    text = re.sub(r"\d+(\.\d+)?", "#", "\n".join(unmet) + outputs)
    mark = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    repeats = counters.gate_repeats + 1 if mark == counters.gate_print else 1
    head = "Completion was claimed but is not proven" if opened.claim else "Verification failed"
    feedback = f"{head}: {'; '.join(unmet)}."
    if repeats >= IDENTICAL_FAILURES:
        feedback += (
            f"\nThis is the same failure for the {repeats}th time in a row. What was tried so far does not work: "
            "find the cause before changing anything, and take another way."
        )
    closing = closing.counting(gate_repeats=repeats, gate_print=mark)
    return closing.having(feedback=f"{feedback}\n\n{outputs}".strip())


def _proven(closing: Closing, block: ControlBlock) -> Closed:
    confirmations = closing.state.counters.confirmations + 1
    closing = closing.counting(confirmations=confirmations)
    left = closing.policy.confirmations - confirmations + 1
    if left <= 0:
        closing = closing.judged(Verdict.COMPLETED, block.summary)
        reason = block.reason or block.summary or "completed"
        return Closed(closing.state, Finish(State.COMPLETED, 0, reason))
    feedback = (
        "Completion was claimed and every gate passed. Check everything again with fresh eyes: "
        f"{left} more iteration(s) must agree. Claim completion only if nothing is missing."
    )
    closing = closing.judged(Verdict.AWAITING_CONFIRMATION, block.summary)
    return Closed(closing.having(feedback=feedback).state)


def _stopped(closing: Closing, block: ControlBlock, unmet: list[str]) -> Closed:
    reason = block.reason or block.summary or "the agent asked to stop"
    finish = Finish(State.STOPPED, 0, f"the agent stopped: {reason}")
    if unmet:
        text = f"the agent stopped ({reason}), but: {'; '.join(unmet)}"
        finish = Finish(State.BLOCKED, 4, text)
    return Closed(closing.judged(Verdict.STOP, block.summary).state, finish)


def _go_on(closing: Closing, block: ControlBlock) -> Closing:
    """The verdict and the wait of an iteration that ends nothing."""
    opened, policy, review = closing.opened, closing.policy, closing.opened.reviewer
    if not opened.claim and review is not None and not review.go_on:
        reason = review.reason or "the reviewer sees nothing more to do"
        base = policy.continue_false_backoff_sec
        closing = closing.judged(Verdict.CONTINUE_FALSE, block.summary)
        return closing.cooldown(WaitKind.CONTINUE_FALSE, base, reason)
    verdict = Verdict.NO_CHANGE if opened.changed is False else Verdict.CONTINUE
    closing = closing.judged(Verdict.CLAIM_REJECTED if opened.claim else verdict, block.summary)
    closing = closing.counting(cooldowns=0)
    over = closing.state.counters.no_change - policy.no_change_gate + 1
    if opened.changed is not False or policy.no_change_gate < 1 or over < 1:
        return closing.having(wait=None)
    at = closing.at
    length = backoff.exponential(over, policy.no_change_backoff_sec, policy.backoff_max_sec, at.u)
    reason = "the last iteration changed nothing"
    return closing.having(wait=waits.make(WaitKind.NO_CHANGE, length, reason, at))


def _circles(closing: Closing) -> Closed:
    """Warn a loop that goes in circles once, then give up."""
    state, bound = closing.state, closing.policy.max_stagnation
    if bound < 1:
        return Closed(closing.having(warned=False).state)
    found = stagnation.circle(state.goals, state.counters.no_change, state.counters.gate_repeats)
    if found.length >= bound and closing.opened.warned:
        text = f"going in circles: {found.what} for {found.length} iterations (max_stagnation = {bound})"
        return Closed(state, Finish(State.STAGNATED, 3, f"{text}; the goal: {state.goal[:200]}"))
    warned = found.length >= max(1, bound - 1)
    notes = (Log("loop.circling", {"what": found.what, "length": found.length}),) if warned else ()
    return Closed(closing.having(warned=warned).state, notes=notes)
