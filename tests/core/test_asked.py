"""What the shell asks of a state."""

from __future__ import annotations

import dataclasses

import pytest

from codex_self_iter.core import asked
from codex_self_iter.core.commands import Exit, Persist
from codex_self_iter.core.events import Steer
from codex_self_iter.core.state import (
    Ending,
    EndingKind,
    Iteration,
    LoopState,
    OpenRun,
    Wait,
    WaitKind,
)
from codex_self_iter.core.terms import Role, State

WAIT = Wait(WaitKind.ERROR, 100.0, 60.0, "later", 50.0, "boot")
EXIT = Exit(0, State.COMPLETED, "proven")
RUN = OpenRun("1", Role.EXECUTOR, "codex", "", 1, "1-executor", 0.0)
IDLE = LoopState("loop")
READING = dataclasses.replace(IDLE, open=Iteration(1, "goal", 0.0))
RUNNING = dataclasses.replace(IDLE, open=Iteration(1, "goal", 0.0, run=RUN))
VERIFYING = dataclasses.replace(READING, state=State.VERIFYING)


def test_a_wait_is_told_while_the_state_is_named_after_it() -> None:
    waiting = dataclasses.replace(IDLE, state=State.BACKOFF, wait=WAIT)
    assert asked.told_wait(waiting) is asked.deciding_wait(waiting) is WAIT
    assert asked.told_wait(dataclasses.replace(waiting, state=State.PAUSED)) is None
    assert asked.deciding_wait(dataclasses.replace(waiting, paused=True)) is None
    assert asked.deciding_wait(dataclasses.replace(waiting, blocked_by={"disk": "full"})) is None


def test_a_loop_leaves_when_it_is_stopping_or_its_end_is_decided() -> None:
    assert not asked.leaving(IDLE, [Persist()])
    assert asked.leaving(IDLE, [Persist(), EXIT])
    assert asked.leaving(dataclasses.replace(IDLE, ending=Ending(EndingKind.STOP, "")), [])
    assert not asked.leaving(dataclasses.replace(IDLE, ending=Ending(EndingKind.STEER, "")), [])


def test_an_end_that_could_not_be_saved_needs_a_person() -> None:
    assert asked.admitted(EXIT, lost=False) is EXIT
    assert asked.admitted(EXIT, lost=True).code == 4


def test_others_come_back_from_a_limit_later_but_not_much() -> None:
    assert asked.spread(WAIT, 0.0) == WAIT
    later = asked.spread(WAIT, 1.0)
    assert (later.until, later.up_until, later.length) == (107.0, 57.0, 67.0)
    assert asked.spread(dataclasses.replace(WAIT, length=1e6), 1.0).until == 130.0


@pytest.mark.parametrize(
    ("state", "fresh", "urgent", "told"),
    [
        (IDLE, True, (), Steer(False, ())),
        (IDLE, False, ("a",), None),
        (READING, False, ("a",), None),
        (RUNNING, False, (), None),
        (RUNNING, False, ("a",), Steer(True, ("a",))),
        (VERIFYING, False, ("a",), Steer(True, ("a",))),
    ],
)
def test_urgent_messages_are_told_again_while_something_works(
    state: LoopState, fresh: bool, urgent: tuple[str, ...], told: Steer | None
) -> None:
    assert asked.steered(state, fresh=fresh, urgent=urgent) == told
