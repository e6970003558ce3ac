"""Warnings are told once, shown until they are over, and bounded."""

from __future__ import annotations

import structlog
from structlog.testing import LogCapture

from codex_self_iter.supervisor.warnings import LONGEST, MOST, Warnings


def _warnings() -> tuple[Warnings, LogCapture]:
    capture = LogCapture()
    return Warnings(structlog.wrap_logger(None, processors=[capture])), capture


def test_the_same_words_are_logged_once_and_others_take_their_place() -> None:
    warnings, log = _warnings()
    for text in ("a hook refused it", "a hook refused it", "another hook"):
        warnings.tell("commit", text)
    assert list(warnings) == ["another hook"]
    assert [entry["text"] for entry in log.entries] == ["a hook refused it", "another hook"]
    warnings.clear("commit")
    warnings.clear("commit")
    assert list(warnings) == []
    warnings.tell("commit", "another hook")
    assert len(log.entries) == 3


def test_an_agent_hears_what_it_can_mend() -> None:
    warnings, _ = _warnings()
    warnings.tell("disk", "nobody but a person can mend this")
    warnings.tell("hook", "LINT-SAYS-NO", agent=True)
    assert warnings.for_agent() == ("LINT-SAYS-NO",)


def test_they_are_bounded_and_what_is_dropped_is_counted() -> None:
    warnings, _ = _warnings()
    for number in range(MOST + 7):
        warnings.tell(str(number), f"number {number} " + "x" * LONGEST)
    assert len(list(warnings)) == MOST
    assert warnings.dropped == 7
    assert list(warnings)[-1].startswith(f"number {MOST + 6} ")
    assert all(len(text) == LONGEST for text in warnings)
