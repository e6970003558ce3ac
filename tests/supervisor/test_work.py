"""What a loop has under way: who waits for its end waits so long and no longer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from codex_self_iter.supervisor.work import READING_SEC, Work


def test_what_was_written_is_gone_through_for_some_seconds_after_a_request() -> None:
    now = [100.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    ctx: Any = SimpleNamespace(
        shared=SimpleNamespace(clock=clock), start=lambda *_: None, log=None, warnings=None
    )
    job: Any = lambda: None  # noqa: E731
    work = Work(ctx)
    work.begin("run", job)
    now[0] += 1_000.0
    assert not work.in_haste()  # nobody has asked for anything
    work.abort()
    now[0] += READING_SEC
    work.abort()  # the second request does not begin anew
    assert not work.in_haste()
    now[0] += 0.1
    assert work.in_haste()
    work.begin("the next", job)
    assert not work.in_haste()
    work.hurry()
    assert work.in_haste()
