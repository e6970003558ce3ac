"""Questions that the shell asks about a state, so that it need not decide anything itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from codex_self_iter.core import waits
from codex_self_iter.core.commands import Command, Exit
from codex_self_iter.core.events import Steer
from codex_self_iter.core.policy import Policy
from codex_self_iter.core.state import EndingKind, LoopState, OpenRun, Step, Wait
from codex_self_iter.core.terms import State

INCOMPLETE_CODE = 4
WAITING = frozenset(waits.STATES.values())


def told_wait(state: LoopState) -> Wait | None:
    """The wait that the state's name speaks of."""
    return state.wait if state.state in WAITING else None


def deciding_wait(state: LoopState) -> Wait | None:
    """The wait whose end lets the loop go on; None while something else holds it as well."""
    return None if state.paused or state.blocked_by else state.wait


def spread(wait: Wait, u: float) -> Wait:
    """A wait that ends a little later, by a random `u`: they must not come back as a herd."""
    by = u * min(30.0, 0.1 * wait.length + 1.0)
    return dataclasses.replace(
        wait, until=wait.until + by, up_until=wait.up_until + by, length=wait.length + by
    )


def leaving(state: LoopState, undone: Iterable[Command]) -> bool:
    """True when the loop is to end, so that it cannot wait for a disk for ever."""
    stopping = state.ending is not None and state.ending.kind is EndingKind.STOP
    return stopping or any(isinstance(command, Exit) for command in undone)


def admitted(end: Exit, *, lost: bool) -> Exit:
    """An end of which something could not be saved needs a person."""
    if not lost:
        return end
    reason = f"{end.reason}; not all of it could be saved"
    return dataclasses.replace(end, code=INCOMPLETE_CODE, reason=reason)


def working(state: LoopState) -> bool:
    """True while something that the loop started may change files: they are not a person's edits
    then, as far as anybody can tell."""
    opened = state.open
    return opened is not None and (opened.run is not None or opened.step is not Step.RUN)


def steerable(state: LoopState, event: Steer, policy: Policy) -> OpenRun | None:
    """The run whose turn is to be given the messages, so that it need not be ended for them; None:
    its agent takes none, or has refused these."""
    run = state.open.run if state.open else None
    if run is None or event.refused:
        return None
    agents = policy.agents.get(run.role, ())
    return run if any(agent.steers for agent in agents if agent.name == run.agent) else None


def steered(state: LoopState, *, fresh: bool, urgent: tuple[str, ...]) -> Steer | None:
    """What waiting messages mean: `fresh` ones are there, `urgent` names want to be heard at once.

    One that came while the inputs were being read was too early to end the run that started
    without it, so the urgent are told again for as long as something works."""
    working = state.open is not None and (
        state.open.run is not None or state.state is State.VERIFYING
    )
    return Steer(bool(urgent), urgent) if fresh or (urgent and working) else None
