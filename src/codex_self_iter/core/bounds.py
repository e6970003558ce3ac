"""How often, and for how long, each class of failure is tried: then a person is told, and the loop
ends with 4 or goes on with the next agent.

Failures are counted in a row, by class. An answer, or a run that worked (`failing`), starts all of
them anew; a failure of another class starts none anew, so that no mixture of them goes on for ever.
Runs that worked and did not answer are counted apart, up to a bound that is generous.
`agents.failure_table` shows these bounds beside what tells the classes apart."""

from __future__ import annotations

from collections.abc import Mapping

from codex_self_iter.core.agent_report import FailureClass
from codex_self_iter.core.policy import Policy
from codex_self_iter.core.state import Counters
from codex_self_iter.core.text import in_a_row

PERSON = frozenset(map(FailureClass, ("auth", "billing", "config", "sandbox")))
"""Only a person can mend these."""
OUTAGE = frozenset(map(FailureClass, ("limit", "overload", "network")))
"""These end by themselves, most of the time: counted together, as "outage"."""
WAITED = OUTAGE | {FailureClass.MISSING}
"""What is waited for; the agent has had no chance to work."""

PERSON_TRIES = 2
"""One more try than the first, because a login may be renewed, or a program replaced, in the very
moment."""
MISSING_SEC = 600.0
"""So long at least a program that was there is waited for: an update that takes longer is stuck."""
OUTAGE_TRIES = 10
"""An outage ends the loop when it has lasted `max_outage_sec` and has been tried so often: the wait
for one long limit is no reason."""
TOLD_AT = 3
"""The failure in a row at which a person is told of an outage, and the cooldown in a row at which
it is said that there is nothing to do."""
LONG_SEC = 6 * 3600.0
"""A wait for the end of a limit that is longer is told at once: a night or days without work."""
COOLDOWN_GROWTH = 8
"""A cooldown grows to so many times its length, or to `backoff_max_sec` if that is longer."""
HAND_OVER = 3
"""So many failures of one agent in a row, of whatever class, hand over to the next of its order."""
ASIDE_SEC = 3600.0
"""An agent that was replaced is tried again after so long."""

WORKED, WORKED_TRIES = "worked", 36
"""So many runs in a row that changed content and gave no answer are churn: three times the default
of `max_stagnation`. Progress of the plan starts them anew."""

BRIEF = 2
"""From this count of context failures on prompts are short: the session was a fresh one."""
TRIES: Mapping[FailureClass, int] = {
    FailureClass.CONTEXT: 3,  # as it was, in a fresh session, shortened
    FailureClass.MEMORY: 5,
    FailureClass.KILLED: 10,
}
"""Failures in a row, for the classes that nothing else bounds."""


def spent(kind: FailureClass, counters: Counters, policy: Policy) -> str:
    """The bound that a failure of this class has reached, in words; "" when there is room."""
    most, count = policy.max_consecutive_errors, counters.tries.get(key(kind), 0)
    if most and counters.tries.get(WORKED, 0) >= WORKED_TRIES:
        return f"{WORKED_TRIES} runs in a row changed content and gave no answer ({kind})"
    if kind is FailureClass.AGENT:
        reached = most and counters.agent_errors >= most
        return f"{in_a_row(most, 'agent error')} (max_consecutive_errors)" if reached else ""
    if kind in PERSON:
        reached = counters.auth_errors >= min(most or PERSON_TRIES, PERSON_TRIES)
        return f"a person must act ({kind})" if reached else ""
    if kind in OUTAGE:
        lasted, bound = counters.outage_sec, policy.max_outage_sec
        if not bound or lasted < bound or count < OUTAGE_TRIES:
            return ""
        return f"no answer for {lasted / 3600:.1f} h, {count} tries (max_outage_sec); {kind}"
    if kind is FailureClass.MISSING:
        lasted = counters.missing_sec
        reached = lasted >= MISSING_SEC and count >= PERSON_TRIES
        return f"a person must act ({kind} for {lasted / 60:.0f} min)" if reached else ""
    if count < TRIES[kind]:
        return ""
    if kind is FailureClass.CONTEXT:
        return "not even a shortened prompt fits in a fresh session (context)"
    return f"{count} times in a row ({kind})"


def key(kind: FailureClass) -> str:
    """Under which name a class is counted in `Counters.tries`."""
    return "outage" if kind in OUTAGE else kind.value


def said(kind: FailureClass) -> str:
    """The bound of a class, for the documentation."""
    if kind is FailureClass.AGENT:
        return "exit 4 after `max_consecutive_errors` in a row"
    if kind in PERSON:
        return f"exit 4 after {PERSON_TRIES} tries in a row"
    if kind in OUTAGE:
        return (
            f"told at the {TOLD_AT}rd in a row, or at once when the wait is longer than "
            f"{LONG_SEC / 3600:.0f} h; exit 4 after `max_outage_sec` (three days) without an answer "
            f"and {OUTAGE_TRIES} tries"
        )
    if kind is FailureClass.MISSING:
        return f"told at once; exit 4 after {MISSING_SEC / 60:.0f} minutes"
    if kind is FailureClass.CONTEXT:
        return "exit 4 with advice when the shortened prompt does not fit"
    return f"exit 4 after {TRIES[kind]} in a row"
