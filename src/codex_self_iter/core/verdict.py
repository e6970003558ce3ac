"""The verdict on an iteration: what its runs and gates amount to, and what follows.

What follows from a failure is in `failing`; here is what follows from an answer."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence

from codex_self_iter.core import backoff, waits
from codex_self_iter.core.closing import Closed, Closing, Finish
from codex_self_iter.core.commands import Notify
from codex_self_iter.core.control_block import ControlBlock
from codex_self_iter.core.evidence import GateResult, gate_end
from codex_self_iter.core.failing import account_of, anew, failed
from codex_self_iter.core.policy import Policy
from codex_self_iter.core.state import Iteration, LoopState, Wait, WaitKind
from codex_self_iter.core.terms import Moment, State, Verdict
from codex_self_iter.core.text import both_ends, listed
from codex_self_iter.core.totals import with_iteration

IDENTICAL_FAILURES = 3
"""So many identical gate failures in a row escalate in the prompt and count as a circle."""
OUTPUT_BYTES = 20_000
"""Of the gates' output in the next prompt; those that failed share it. More than a few kilobytes of
one there are not (`supervisor.gates`)."""
NAMED = 10
"""Items of the plan that are named where they were taken out."""


def close(state: LoopState, opened: Iteration, policy: Policy, at: Moment) -> Closed:
    """Give the verdict on an iteration; the state that follows has none open."""
    closing = Closing(state, opened, policy, at)
    failure = opened.failure
    finish = _answered(closing) if failure is None else failed(closing, failure)
    if failure is not None and policy.item_checks:
        closing.remember_ticks()
    goal = state.goal_set or closing.changes.get("goal", state.goal)
    given, causes = closing.changes["last"].verdict.value, (run.cause for run in opened.ended)
    totals = with_iteration(state.totals, given, causes, opened.gates)
    left = closing.changes | {"open": None, "goal": goal, "goal_set": "", "totals": totals}
    after = dataclasses.replace(state, counters=closing.counters, **left)
    return Closed(after, finish, closing.notes)


def _answered(closing: Closing) -> Finish | None:
    opened = closing.opened
    closing.counters = anew(closing.counters)
    closing.leave(feedback="", carried=(), limits=_working(closing))
    if opened.planner is not None and opened.planner.stop:
        plan = opened.planner
        reason = plan.rationale or plan.objective or "the planner sees nothing to do"
        closing.cool_down(WaitKind.PLANNER_STOP, closing.policy.planner_stop_backoff_sec, reason)
        closing.judge(Verdict.PLANNER_STOP, reason)
        return None
    block = opened.block or ControlBlock()
    review = opened.reviewer
    goal = (review.next_focus.strip() if review else "") or block.next_goal or closing.state.goal
    forward = closing.advance()
    closing.ask(goal, forward=forward)
    unmet = _unmet(opened, closing.policy, closing.state.dropped.items)
    _gate_feedback(closing, unmet)
    closing.wander(forward=forward)
    agreed = opened.reviewer is None or not opened.reviewer.go_on
    if opened.claim and not unmet and agreed:
        return _proven(closing, block)
    closing.count(confirmations=0)
    if block.stop:
        return _stopped(closing, block, unmet)
    _go_on(closing, block, unmet)
    return closing.circles()


def _working(closing: Closing) -> dict[str, Wait]:
    """The limits without those of the agents that have just answered: they need not stand aside."""
    agents = {account_of(closing.policy, run.agent) for run in closing.opened.ended}
    return {
        account: wait
        for account, wait in closing.state.limits.items()
        if wait.kind is WaitKind.LIMIT or account not in agents
    }


def _unmet(opened: Iteration, policy: Policy, dropped: Sequence[str]) -> list[str]:
    """Everything that stands against believing that the work is done."""
    unmet = [_failed(gate) for gate in opened.gates if not gate.ok]
    if policy.verify_commands and not opened.gates_ran:
        unmet.append("the gates did not run")
    if opened.claim and opened.gate_flaw:
        unmet.append(opened.gate_flaw)
    if opened.claim and policy.require_plan_done and opened.plan_open:
        unmet.append(f"{opened.plan_open} of {opened.plan_total} plan items are still open")
    if opened.claim and policy.require_plan_done and dropped:
        unmet.append(_dropped(dropped))
    return unmet if opened.gates_ran or opened.claim else []


def _failed(gate: GateResult) -> str:
    end = f"`{gate.command}` {gate_end(gate.to_json())}"
    if not gate.items:
        return end
    named = listed([repr(title[:200]) for title in gate.items], NAMED)
    return "; ".join(filter(None, [f"the check of {named}: {end}", gate.tick]))


def _dropped(items: Sequence[str]) -> str:
    named = "; ".join(item[:200] for item in items[:NAMED])
    more = "; …" if len(items) > NAMED else ""
    return (
        f"{len(items)} open plan item(s) were removed, not ticked: {named}{more} (put them back, "
        "or tick them when they are done)"
    )


def _gate_feedback(closing: Closing, unmet: list[str]) -> None:
    """Put what failed into the next prompt; count identical failures."""
    if not unmet:
        closing.count(gate_repeats=0, gate_print="")
        return
    opened, counters = closing.opened, closing.counters
    failed = [gate for gate in opened.gates if not gate.ok]
    share = OUTPUT_BYTES // max(1, len(failed))
    outputs = "\n\n".join(f"$ {gate.command}\n{both_ends(gate.output, share)}" for gate in failed)
    text = re.sub(r"\d+(\.\d+)?", "#", "\n".join(unmet) + outputs)
    mark = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    repeats = counters.gate_repeats + 1 if mark == counters.gate_print else 1
    head = "Completion was claimed but is not proven" if opened.claim else "Verification failed"
    feedback = f"{head}: {'; '.join(unmet)}."
    if repeats >= IDENTICAL_FAILURES:
        feedback += (
            f"\nThis is the same failure for the {_ordinal(repeats)} time in a row. What was tried so far "
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
    agree = f"{left} more iteration(s) must agree"
    closing.judge(Verdict.AWAITING_CONFIRMATION, block.summary, agree)
    closing.leave(
        feedback="Completion was claimed and every gate passed. Check everything again with fresh "
        f"eyes: {agree}. Claim completion only if nothing is missing."
    )
    return None


def _stopped(closing: Closing, block: ControlBlock, unmet: list[str]) -> Finish:
    against = "; ".join(unmet)
    closing.judge(Verdict.STOP, block.summary, against)
    reason = block.reason or block.summary or "the agent asked to stop"
    if unmet:
        text = f"the agent stopped ({reason}), but: {against}"
        return Finish(State.BLOCKED, 4, text)
    text = f"the agent stopped: {reason}"
    closing.notes = (*closing.notes, Notify("agent_stopped", text))
    return Finish(State.STOPPED, 0, text)


def _go_on(closing: Closing, block: ControlBlock, unmet: list[str]) -> None:
    """The verdict and the wait of an iteration that ends nothing."""
    opened, policy, review = closing.opened, closing.policy, closing.opened.reviewer
    if not opened.claim and review is not None and not review.go_on:
        reason = review.reason or "the reviewer sees nothing more to do"
        closing.judge(Verdict.CONTINUE_FALSE, block.summary, "; ".join(unmet))
        closing.cool_down(WaitKind.CONTINUE_FALSE, policy.continue_false_backoff_sec, reason)
        return
    verdict = Verdict.NO_CHANGE if opened.changed is False else Verdict.CONTINUE
    if opened.claim and review is not None and review.go_on:
        unmet = [*unmet, f"the reviewer does not agree: {review.reason or 'no reason given'}"]
    verdict = Verdict.CLAIM_REJECTED if opened.claim else verdict
    closing.judge(verdict, block.summary, "; ".join(unmet))
    closing.count(cooldowns=0)
    over, at, wait = closing.counters.no_change - policy.no_change_gate + 1, closing.at, None
    if opened.changed is False and policy.no_change_gate >= 1 and over >= 1:
        base = policy.no_change_backoff_sec
        length = backoff.exponential(over, base, max(base, policy.backoff_max_sec), at.u)
        wait = waits.make(WaitKind.NO_CHANGE, length, "the last iteration changed nothing", at)
    closing.leave(wait=wait)


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10)
    return f"{number}{ending or 'th'}"
