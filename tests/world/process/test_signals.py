"""What the thread that waits for signals makes of them."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from codex_self_iter.world.process import signals

SOMEBODY = 2**22 + 7
"""No process has it."""


def test_only_a_twin_of_the_same_sender_at_the_same_moment_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    term, interrupt = signal.SIGTERM, signal.SIGINT
    sent = [  # when, what, by whom, how: 0 is kill(), positive is the kernel (Ctrl-C)
        (0.0, term, SOMEBODY, 0),
        (0.001, term, SOMEBODY, 0),  # the twin
        (0.002, term, SOMEBODY + 1, 0),
        (0.003, interrupt, SOMEBODY + 1, 0),
        (0.5, interrupt, SOMEBODY + 1, 0),
        (0.6, interrupt, 0, 128),
        (0.601, interrupt, 0, 128),
    ]
    times = iter([moment for moment, *_ in sent])
    waiting = iter(sent)

    def wait(_: object) -> SimpleNamespace:
        for _, number, pid, code in waiting:
            us = os.getuid()
            return SimpleNamespace(si_signo=number, si_pid=pid, si_code=code, si_uid=us)
        raise EOFError

    heard: list[int] = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: None)
    monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=lambda: next(times)))
    monkeypatch.setattr(signal, "sigwaitinfo", wait)
    waiter = object.__new__(signals._Waiter)
    waiter._numbers, waiter._closing = {term, interrupt}, False
    waiter._tell = lambda received: heard.append(received.number)
    with pytest.raises(EOFError):
        waiter._wait()
    assert heard == [term, term, interrupt, interrupt, interrupt, interrupt]
