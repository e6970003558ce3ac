"""What follows from an iteration that failed, by the class of its failure.

    class      bound             then                                   next prompt / session
    agent      max_consecutive   backoff                                says what was wrong
    limit      an outage         wait until the reset, else backoff
               a guess           backoff; held from the second in a row
    overload   an outage         backoff
    network    an outage         backoff
    missing    MISSING_SEC       backoff, told at once
    auth       PERSON_TRIES      state blocked, backoff
    billing    PERSON_TRIES      state blocked, backoff
    config     PERSON_TRIES      state blocked, backoff
    sandbox    PERSON_TRIES      state blocked, backoff                 says what was refused
    context    TRIES             at once                                fresh session, short prompt
    memory     TRIES             backoff                                says what the limit is
    killed     TRIES             backoff; none when we or a person ended it

At its bound (`bounds`) a loop ends with 4. Where another agent of the order can take the role, it
does so before: at once where only a person can mend the failure or an account is limited, else
after HAND_OVER failures in a row or at the bound. The one that it replaces is tried again when its
limit ends, or after ASIDE_SEC; it has shown that it works when it answers.

A run that changed content and failed as `agent`, `context`, `memory` or `killed` has worked:
nothing is counted, the next prompt says that the work is kept, and only WORKED_TRIES bounds how
often that may happen in a row; the waits grow all the same while such runs exit with an error. An
outage, and what a person must mend, are counted whatever changed (progress of the plan alone starts
an outage anew). The messages of an iteration that failed go into the next prompt, until one with an
answer had them."""

from __future__ import annotations

import dataclasses

from codex_self_iter.core import backoff, bounds, waits
from codex_self_iter.core.agent_report import Failure, FailureClass
from codex_self_iter.core.bounds import OUTAGE, PERSON, WAITED
from codex_self_iter.core.closing import Closing, Finish
from codex_self_iter.core.commands import Command, Log, Notify, ShareLimit
from codex_self_iter.core.policy import AgentPolicy, Policy
from codex_self_iter.core.runs import CALLED_OFF, EndCause
from codex_self_iter.core.state import Counters, Iteration, Wait, WaitKind
from codex_self_iter.core.terms import Role, State, Verdict

UNTOLD = (WAITED | PERSON | {FailureClass.CONTEXT, FailureClass.KILLED}) - {FailureClass.SANDBOX}
"""Classes in which the agent did no work, so that there is nothing to tell it."""


def failed(closing: Closing, failure: Failure) -> Finish | None:
    """What follows; the end, if there is one."""
    opened, kind = closing.opened, failure.kind
    closing.judge(opened.failure_verdict, failure.message)
    closing.leave(carried=opened.messages)
    _tell_agent(closing, failure)
    called_off = opened.failure_verdict is Verdict.ABORTED or opened.orphaned
    if kind is FailureClass.KILLED and called_off:
        return None
    _count(closing, kind, forward=closing.advance())
    if kind is FailureClass.LIMIT:
        return _limited(closing, failure)
    return _broken(closing, failure)


def account_of(policy: Policy, name: str) -> str:
    """The account of an agent."""
    known = (agent for agents in policy.agents.values() for agent in agents)
    return next((agent.account for agent in known if agent.name == name), name)


def anew(counters: Counters) -> Counters:
    """The counters once something has worked. A prompt that only fits when it is short stays
    short until a person changes what it is made of."""
    brief = counters.tries.get(FailureClass.CONTEXT.value, 0) >= bounds.BRIEF
    return dataclasses.replace(
        counters,
        failures=0,
        agent_errors=0,
        auth_errors=0,
        tries={FailureClass.CONTEXT.value: bounds.BRIEF} if brief else {},
        outage_sec=0.0,
        missing_sec=0.0,
    )


def _worked(opened: Iteration) -> bool:
    """True when it changed content by work: neither a refusal of a service or an account, nor the
    end of a run that did nothing, whose program wrote a file, nor what a planner wrote; and not
    ended by signals to our own processes: an agent that sends them would do so in every run."""
    failure, last = opened.failure, opened.ended[-1]
    refused = failure is not None and (failure.idle or failure.kind in WAITED | PERSON)
    at_work = last.role is not Role.PLANNER and last.cause not in CALLED_OFF
    return opened.changed is True and not refused and at_work


def _gave_up(opened: Iteration) -> bool:
    """True when the last run ended by itself, with an error: what it changed may be no more than a
    log of its program, so the waits grow."""
    last = opened.ended[-1]
    return last.cause is EndCause.EXIT and bool(last.exit_code)


def _tell_agent(closing: Closing, failure: Failure) -> None:
    """Say in the next prompt what went wrong, and that work was not in vain."""
    opened, kind = closing.opened, failure.kind
    text = "" if kind in UNTOLD else f"The last iteration failed ({kind}): {failure.message}"
    if opened.changed:
        some = ", ".join(opened.changed_files[:20])
        named = f" ({some})" if some else ""
        kept = (
            f"The work is kept: what it had changed is in the workspace{named}. Look at it first and "
            "go on from there"
        )
        last = opened.ended[-1]
        if kind is FailureClass.AGENT and last.cause is EndCause.EXIT and last.exit_code == 0:
            text = f"The answer of the last run could not be read: {failure.message}\n{kept}."
        else:
            text = (
                f"The last run was cut short ({kind}): {failure.message}\n{kept}; take smaller "
                "steps if it was cut short by time or size."
            )
    if text:
        closing.leave(feedback=text)


def _count(closing: Closing, kind: FailureClass, *, forward: bool) -> None:
    """Count the failure; of a run that worked only that there was one. `forward`: it came beyond
    all before."""
    opened, worked = closing.opened, _worked(closing.opened)
    fresh = worked or (forward and kind in OUTAGE)
    counters = anew(closing.counters) if fresh else closing.counters
    gave_up = kind is FailureClass.AGENT and worked and not forward and _gave_up(opened)
    failures = (closing.counters if gave_up else counters).failures + 1
    tries, outage = dict(counters.tries), counters.outage_sec
    if forward:
        closing.leave(goals=())
    elif worked:
        tries[bounds.WORKED] = closing.counters.tries.get(bounds.WORKED, 0) + 1
    if not worked and kind is not FailureClass.AGENT and kind not in PERSON:
        name = bounds.key(kind)
        count = tries.get(name, 0)
        tries[name] = count + 1
        if kind is FailureClass.CONTEXT:
            # One that was resumed says nothing of a fresh one, which would be the same once more.
            resumed = opened.ended[-1].resumed
            tries[name] = max(count, 1) if resumed else max(count + 1, bounds.BRIEF)
        if kind in OUTAGE:
            outage += sum(run.duration_sec for run in opened.ended)
    closing.counters = dataclasses.replace(
        counters,
        failures=failures,
        agent_errors=counters.agent_errors + (kind is FailureClass.AGENT and not worked),
        auth_errors=counters.auth_errors + 1 if kind in PERSON else 0,
        confirmations=0,
        no_change=0 if worked or forward else counters.no_change,
        tries=tries,
        outage_sec=outage,
    )


# -- who goes on -----------------------------------------------------------------------------------


def _limited(closing: Closing, failure: Failure) -> Finish | None:
    """Wait for the account, or let another agent work meanwhile."""
    at, last = closing.at, closing.state.last
    length = _backoff(closing, closing.counters.failures)
    probed = last is not None and last.verdict is Verdict.LIMITED
    other = _stand_in(closing, later=False)
    if other is None and (why := _reached(closing, failure)):
        return why
    if failure.guessed and not probed:
        # Free text alone: the next run must say it again before it holds the loop and its account.
        _wait(closing, waits.make(WaitKind.LIMIT, length, failure.message, at))
        return None
    # A reset that has passed already was a wrong one: relying on it again would burn a run every
    # few seconds.
    if failure.reset_at is not None and failure.reset_at > at.wall:
        length = backoff.limit_wait(failure.reset_at, at.wall, at.u)
    wait = waits.make(WaitKind.LIMIT, length, failure.message, at)
    account = _account(closing)
    closing.leave(limits={**closing.state.limits, account: wait})
    closing.notes = (*closing.notes, ShareLimit(account, wait))
    if other is None:
        _wait(closing, _first_free(closing))
        _tell_outage(closing, failure)
    else:
        closing.notes = (*closing.notes, _handed_over(closing, other, failure))
    return None


def _broken(closing: Closing, failure: Failure) -> Finish | None:
    """Every other class: hand over, end, or try again."""
    kind, counters = failure.kind, closing.counters
    known = closing.state.limits.get(_account(closing))
    aside = known is not None and known.kind is not WaitKind.LIMIT
    end = _reached(closing, failure)
    if kind in PERSON or aside or end or counters.failures >= bounds.HAND_OVER:
        other = _stand_in(closing, later=kind in PERSON)
        if other is not None:
            _set_aside(closing, failure, other, again=aside)
            return None
    told = kind in PERSON and known is not None and known.kind is WaitKind.AUTH
    if end is not None:
        return dataclasses.replace(end, told=told)
    if kind is FailureClass.CONTEXT:
        return None  # the next one is another one: a fresh session, or a shorter prompt
    if kind in PERSON:
        length = _backoff(closing, counters.auth_errors)
        wait = waits.make(WaitKind.AUTH, length, to_mend(failure), closing.at)
        closing.leave(limits={**closing.state.limits, _account(closing): wait})
        wait = _first_free(closing)
        if not told:
            text = f"{kind}: {to_mend(failure)}; unless that is done, the loop ends"
            closing.notes = (*closing.notes, Notify("blocked", text, _cause(closing, failure)))
    else:
        length = _backoff(closing, counters.failures)
        wait = waits.make(WaitKind.ERROR, length, failure.message, closing.at)
    _wait(closing, wait)
    if kind in WAITED:
        _tell_outage(closing, failure)
    return None


def _set_aside(closing: Closing, failure: Failure, other: AgentPolicy, *, again: bool) -> None:
    """Let another agent stand in for the one that failed. `again`: it did so before, has not
    answered since, and its person was told."""
    person = failure.kind in PERSON
    kind = WaitKind.AUTH if person else WaitKind.ERROR
    wait = waits.make(kind, bounds.ASIDE_SEC, to_mend(failure), closing.at)
    closing.leave(limits={**closing.state.limits, _account(closing): wait})
    notes: tuple[Command, ...] = (_handed_over(closing, other, failure),)
    if not again:
        closing.counters = anew(closing.counters)
        name = closing.opened.ended[-1].agent
        text = f"{name} fails ({failure.kind}): {to_mend(failure)}; {other.name} stands in for it"
        notes = (Notify("blocked" if person else "outage", text, _cause(closing, failure)), *notes)
    closing.notes = (*closing.notes, *notes)


def _handed_over(closing: Closing, other: AgentPolicy, failure: Failure) -> Log:
    wait: Wait = closing.changes["limits"][_account(closing)]
    name, kind = closing.opened.ended[-1].agent, failure.kind.value
    fields = {"agent": name, "to": other.name, "failure_class": kind, "seconds": round(wait.length)}
    return Log("agent.handed_over", fields)


def _stand_in(closing: Closing, *, later: bool) -> AgentPolicy | None:
    """Another agent that may take the role now; with `later` also one whose limit will end."""
    account, limits = _account(closing), closing.state.limits
    for agent in closing.policy.agents[closing.opened.ended[-1].role]:
        wait = limits.get(agent.account)
        free = wait is None or waits.rest(wait, closing.at) <= 0
        passes = later and wait is not None and wait.kind is WaitKind.LIMIT
        if agent.account != account and (free or passes):
            return agent
    return None


def _first_free(closing: Closing) -> Wait:
    """The wait of the agent that may take the role first, when none may now."""
    limits: dict[str, Wait] = closing.changes["limits"]
    agents = closing.policy.agents[closing.opened.ended[-1].role]
    held = [limits[agent.account] for agent in agents if agent.account in limits]
    return min(held, key=lambda wait: waits.rest(wait, closing.at))


def _account(closing: Closing) -> str:
    """The account of the agent that ran last."""
    return account_of(closing.policy, closing.opened.ended[-1].agent)


# -- how long, and who is told ---------------------------------------------------------------------


def _reached(closing: Closing, failure: Failure) -> Finish | None:
    """The end, when the class's bound is reached."""
    why = bounds.spent(failure.kind, closing.counters, closing.policy)
    return Finish(State.BLOCKED, 4, f"{why}: {to_mend(failure)}") if why else None


def _backoff(closing: Closing, count: int) -> float:
    policy = closing.policy
    return backoff.exponential(count, policy.backoff_base_sec, policy.backoff_max_sec, closing.at.u)


def _wait(closing: Closing, wait: Wait) -> None:
    """Wait; in an outage that is a part of it."""
    closing.leave(wait=wait)
    failure = closing.opened.failure
    if failure is None or failure.kind not in WAITED:
        return
    if failure.kind is FailureClass.MISSING:
        closing.count(missing_sec=closing.counters.missing_sec + wait.length)
    else:
        closing.count(outage_sec=closing.counters.outage_sec + wait.length)


def _tell_outage(closing: Closing, failure: Failure) -> None:
    """Say that something does not pass as soon as it should: a long wait at once, else once."""
    policy, count = closing.policy, closing.counters.tries.get(bounds.key(failure.kind), 0)
    length = closing.changes["wait"].length
    long, missing = length > bounds.LONG_SEC, failure.kind is FailureClass.MISSING
    if not long and count != (1 if missing else bounds.TOLD_AT):
        return
    often = f", {count} times in a row" if count > 1 else ""
    text = f"{failure.kind}{often}: {failure.message}; it is tried again"
    if long:
        text += f" in {length / 3600:.0f} h"
    elif missing:
        text += f" for {bounds.MISSING_SEC / 60:.0f} minutes at least, then the loop ends"
    elif policy.max_outage_sec:
        text += f" for {policy.max_outage_sec / 3600:.0f} h at least, then the loop ends"
    closing.notes = (*closing.notes, Notify("outage", text, _cause(closing, failure)))


def _cause(closing: Closing, failure: Failure) -> str:
    """What all loops that use this account have in common then."""
    return f"{failure.kind.value} of {_account(closing)}"


def to_mend(failure: Failure) -> str:
    """What a person can do goes first: a long message may be cut."""
    return f"{failure.mend}; {failure.message}" if failure.mend else failure.message
