"""The verdict on an iteration: what its runs and gates amount to, and what follows.

Policies of the failure classes:

    class      counts for        then                                   next prompt / session
    agent      max_consecutive   backoff; exit 4 at the bound            says what was wrong
    limit      -                 wait until the reset, else backoff
               a guess           backoff; held from the second in a row
    overload   -                 backoff
    network    -                 backoff
    auth       PERSON_TRIES      state blocked, backoff; exit 4
    billing    PERSON_TRIES      state blocked, backoff; exit 4
    config     PERSON_TRIES      state blocked, backoff; exit 4
    sandbox    PERSON_TRIES      state blocked, backoff; exit 4          says what was refused
    context    -                 fresh session, at once the first time
    memory     -                 backoff                                 says what the limit is
    killed     -                 go on

The messages of an iteration that failed go into the next prompt as well, whatever the class, until
one with an answer had them. A run that others ended, most often the agent itself, is of class
agent."""

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
from codex_self_iter.core.state import Counters, Iteration, Last, LoopState, WaitKind
from codex_self_iter.core.terms import Moment, State, Verdict

PERSON_MUST_ACT = frozenset(map(FailureClass, ("auth", "billing", "config", "sandbox")))
PERSON_TRIES = 2
"""So many failures in a row that only a person can mend end the loop: one more try than the first,
because a login may be renewed, or a program replaced, in the very moment."""
UNTOLD = PERSON_MUST_ACT - {FailureClass.SANDBOX} | frozenset(
    map(FailureClass, ("limit", "overload", "network", "context"))
)
"""Classes in which the agent did no work, so that there is nothing to tell it."""

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


class Closing:
    """An iteration that is being closed, for as long as `close` works on it.

    What it leaves behind is collected in `changes` and `counters` and becomes the next state once,
    at the end: a state is large, and copies of it for every step were most of a verdict's cost."""

    def __init__(self, state: LoopState, opened: Iteration, policy: Policy, at: Moment) -> None:
        self.state, self.opened, self.policy, self.at = state, opened, policy, at
        self.counters = state.counters
        self.changes: dict[str, Any] = {}
        self.notes: tuple[Command, ...] = ()

    def leave(self, **changes: Any) -> None:
        """Leave these fields of the state behind."""
        self.changes.update(changes)

    def count(self, **changes: Any) -> None:
        """Leave these counters behind."""
        self.counters = dataclasses.replace(self.counters, **changes)

    def judge(self, verdict: Verdict, summary: str) -> None:
        """Leave this verdict behind."""
        opened, at, usage = self.opened, self.at, self.opened.usage
        self.changes["last"] = Last(
            iteration=opened.number,
            verdict=verdict,
            summary=summary,
            duration_sec=round(max(0.0, at.wall - opened.started_at), 3),
            ended_at=at.wall,
            tokens=usage.total_tokens if usage else None,
            cost_usd=usage.cost_usd if usage else None,
        )

    def cool_down(self, kind: WaitKind, base: float, reason: str) -> None:
        """Wait because a role sees nothing to do."""
        ceiling = max(base, self.policy.backoff_max_sec)
        length = backoff.exponential(1, base, ceiling, self.at.u)
        self.leave(wait=waits.make(kind, length, reason, self.at))
        self.count(cooldowns=self.counters.cooldowns + 1)


def close(state: LoopState, opened: Iteration, policy: Policy, at: Moment) -> Closed:
    """Give the verdict on an iteration; the state that follows has none open."""
    closing = Closing(state, opened, policy, at)
    failure = opened.failure
    finish = _answered(closing) if failure is None else _failed(closing, failure)
    goal = state.goal_set or closing.changes.get("goal", state.goal)
    left = closing.changes | {"open": None, "goal": goal, "goal_set": ""}
    after = dataclasses.replace(state, counters=closing.counters, **left)
    return Closed(after, finish, closing.notes)


# -- it failed -------------------------------------------------------------------------------------


def _failed(closing: Closing, failure: Failure) -> Finish | None:
    opened, kind, verdict = closing.opened, failure.kind, closing.opened.failure_verdict
    closing.judge(verdict, failure.message)
    closing.leave(carried=opened.messages)
    if kind not in UNTOLD and kind is not FailureClass.KILLED:
        closing.leave(feedback=f"The last iteration failed ({kind}): {failure.message}")
    if kind is FailureClass.KILLED and (verdict is Verdict.ABORTED or opened.orphaned):
        return None
    counters = closing.counters = _count_failure(closing.counters, kind)
    bound = closing.policy.max_consecutive_errors
    if bound and counters.agent_errors >= bound:
        text = f"{bound} agent errors in a row (max_consecutive_errors); the last: "
        return Finish(State.BLOCKED, 4, text + failure.message)
    if counters.auth_errors >= min(bound or PERSON_TRIES, PERSON_TRIES):
        return Finish(State.BLOCKED, 4, f"a person must act ({kind}): {_to_mend(failure)}")
    if kind is not FailureClass.CONTEXT or counters.failures > 1:
        _wait_for(closing, failure)
    return None


def _to_mend(failure: Failure) -> str:
    """What a person can do goes first: a long message may be cut."""
    return f"{failure.mend}; {failure.message}" if failure.mend else failure.message


def _count_failure(counters: Counters, kind: FailureClass) -> Counters:
    return dataclasses.replace(
        counters,
        failures=counters.failures + 1,
        agent_errors=counters.agent_errors + (kind is FailureClass.AGENT),
        auth_errors=counters.auth_errors + 1 if kind in PERSON_MUST_ACT else 0,
        confirmations=0,
    )


def _wait_for(closing: Closing, failure: Failure) -> None:
    """How long to wait after a failure, and whom to tell."""
    policy, at, text = closing.policy, closing.at, failure.message
    base, ceiling = policy.backoff_base_sec, policy.backoff_max_sec
    length = backoff.exponential(closing.counters.failures, base, ceiling, at.u)
    note: Command
    account = _account(closing)
    last = closing.state.last
    probed = last is not None and last.verdict is Verdict.LIMITED
    if failure.kind is FailureClass.LIMIT and failure.guessed and not probed:
        # Free text alone: the next run must say it again before it holds the loop and its account.
        closing.leave(wait=waits.make(WaitKind.LIMIT, length, text, at))
        return
    if failure.kind is FailureClass.LIMIT:
        # A reset that has passed already was a wrong one: relying on it again would burn a run
        # every few seconds.
        if failure.reset_at is not None and failure.reset_at > at.wall:
            length = backoff.limit_wait(failure.reset_at, at.wall, at.u)
        wait = waits.make(WaitKind.LIMIT, length, text, at)
        note = ShareLimit(account, wait)
    elif failure.kind in PERSON_MUST_ACT:
        wait = waits.make(WaitKind.AUTH, length, text, at)
        note = Notify("blocked", f"{failure.kind}: {_to_mend(failure)}")
    else:
        closing.leave(wait=waits.make(WaitKind.ERROR, length, text, at))
        return
    # The account is out of use until then; another agent of the order may take over meanwhile.
    closing.leave(limits={**closing.state.limits, account: wait})
    closing.notes = (note,)
    if not _others(closing, account):
        closing.leave(wait=wait)


def _account(closing: Closing) -> str:
    """The account of the agent that ran last."""
    name = closing.opened.ended[-1].agent
    known = (agent for agents in closing.policy.agents.values() for agent in agents)
    return next((agent.account for agent in known if agent.name == name), name)


def _others(closing: Closing, account: str) -> bool:
    """True when another agent may take the role now."""
    limits = closing.changes["limits"]
    return any(
        agent.account != account
        and (agent.account not in limits or waits.rest(limits[agent.account], closing.at) <= 0)
        for agent in closing.policy.agents[closing.opened.ended[-1].role]
    )


# -- it was answered -------------------------------------------------------------------------------


def _answered(closing: Closing) -> Finish | None:
    opened = closing.opened
    closing.count(failures=0, agent_errors=0, auth_errors=0)
    closing.leave(feedback="", carried=())
    if opened.planner is not None and opened.planner.stop:
        plan = opened.planner
        reason = plan.rationale or plan.objective or "the planner sees nothing to do"
        closing.cool_down(WaitKind.PLANNER_STOP, closing.policy.planner_stop_backoff_sec, reason)
        closing.judge(Verdict.PLANNER_STOP, reason)
        return None
    block = opened.block or ControlBlock()
    _next_goal(closing, block)
    if opened.changed is not None:
        closing.count(no_change=0 if opened.changed else closing.counters.no_change + 1)
    unmet = _unmet(opened, closing.policy)
    _gate_feedback(closing, unmet)
    agreed = opened.reviewer is None or not opened.reviewer.go_on
    if opened.claim and not unmet and agreed:
        return _proven(closing, block)
    closing.count(confirmations=0)
    if block.stop:
        return _stopped(closing, block, unmet)
    _go_on(closing, block)
    return _circles(closing)


def _next_goal(closing: Closing, block: ControlBlock) -> None:
    state, review = closing.state, closing.opened.reviewer
    goal = (review.next_focus.strip() if review else "") or block.next_goal or state.goal
    goals = (*state.goals, stagnation.mark(goal))[-stagnation.HISTORY :]
    closing.leave(goal=goal, goals=goals)


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


def _gate_feedback(closing: Closing, unmet: list[str]) -> None:
    """Put what failed into the next prompt; count identical failures."""
    if not unmet:
        closing.count(gate_repeats=0, gate_print="")
        return
    opened, counters = closing.opened, closing.counters
    failed = (gate for gate in opened.gates if not gate.ok)
    outputs = "\n\n".join(f"$ {gate.command}\n{gate.output}" for gate in failed)
    text = re.sub(r"\d+(\.\d+)?", "#", "\n".join(unmet) + outputs)
    mark = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    repeats = counters.gate_repeats + 1 if mark == counters.gate_print else 1
    head = "Completion was claimed but is not proven" if opened.claim else "Verification failed"
    feedback = f"{head}: {'; '.join(unmet)}."
    if repeats >= IDENTICAL_FAILURES:
        feedback += (
            f"\nThis is the same failure for the {repeats}th time in a row. What was tried so far "
            "does not work: find the cause before changing anything, and take another way."
        )
    closing.count(gate_repeats=repeats, gate_print=mark)
    closing.leave(feedback=f"{feedback}\n\n{outputs}".strip())


def _proven(closing: Closing, block: ControlBlock) -> Finish | None:
    confirmations = closing.counters.confirmations + 1
    closing.count(confirmations=confirmations)
    left = closing.policy.confirmations - confirmations + 1
    if left <= 0:
        closing.judge(Verdict.COMPLETED, block.summary)
        return Finish(State.COMPLETED, 0, block.reason or block.summary or "completed")
    closing.judge(Verdict.AWAITING_CONFIRMATION, block.summary)
    closing.leave(
        feedback="Completion was claimed and every gate passed. Check everything again with fresh "
        f"eyes: {left} more iteration(s) must agree. Claim completion only if nothing is missing."
    )
    return None


def _stopped(closing: Closing, block: ControlBlock, unmet: list[str]) -> Finish:
    closing.judge(Verdict.STOP, block.summary)
    reason = block.reason or block.summary or "the agent asked to stop"
    if unmet:
        text = f"the agent stopped ({reason}), but: {'; '.join(unmet)}"
        return Finish(State.BLOCKED, 4, text)
    return Finish(State.STOPPED, 0, f"the agent stopped: {reason}")


def _go_on(closing: Closing, block: ControlBlock) -> None:
    """The verdict and the wait of an iteration that ends nothing."""
    opened, policy, review = closing.opened, closing.policy, closing.opened.reviewer
    if not opened.claim and review is not None and not review.go_on:
        reason = review.reason or "the reviewer sees nothing more to do"
        closing.judge(Verdict.CONTINUE_FALSE, block.summary)
        closing.cool_down(WaitKind.CONTINUE_FALSE, policy.continue_false_backoff_sec, reason)
        return
    verdict = Verdict.NO_CHANGE if opened.changed is False else Verdict.CONTINUE
    closing.judge(Verdict.CLAIM_REJECTED if opened.claim else verdict, block.summary)
    closing.count(cooldowns=0)
    over, at, wait = closing.counters.no_change - policy.no_change_gate + 1, closing.at, None
    if opened.changed is False and policy.no_change_gate >= 1 and over >= 1:
        base, ceiling = policy.no_change_backoff_sec, policy.backoff_max_sec
        length = backoff.exponential(over, base, ceiling, at.u)
        wait = waits.make(WaitKind.NO_CHANGE, length, "the last iteration changed nothing", at)
    closing.leave(wait=wait)


def _circles(closing: Closing) -> Finish | None:
    """Warn a loop that goes in circles once, then give up."""
    counters, bound = closing.counters, closing.policy.max_stagnation
    if bound < 1:
        closing.leave(warned=False)
        return None
    goals: tuple[str, ...] = closing.changes["goals"]
    found = stagnation.circle(goals, counters.no_change, counters.gate_repeats)
    if found.length >= bound and closing.opened.warned:
        what = f"{found.what} for {found.length} iterations (max_stagnation = {bound})"
        text = f"going in circles: {what}; the goal: {closing.changes['goal']}"
        return Finish(State.STAGNATED, 3, text)
    warned = found.length >= max(1, bound - 1)
    closing.leave(warned=warned)
    if warned:
        closing.notes = (Log("loop.circling", {"what": found.what, "length": found.length}),)
    return None
