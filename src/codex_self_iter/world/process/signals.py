"""Signals with their senders: an agent that "cleans up" must not end the loop that looks after it.

A handler is not told who has sent a signal; `sigwaitinfo` is. So the signals are blocked in all
threads (before any is started) but for the moment in which a child is forked, and
one thread waits for them. At once it looks up the sender's ancestors: `kill` and `pkill` are gone a
moment later. Where the system cannot tell, nobody is known; a sender that was faster is `gone`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import NamedTuple

import anyio

from codex_self_iter.world.process import proctable

_NAMED = "USR1 USR2 XCPU PWR ALRM VTALRM PROF IO STKFLT"
_REAL_TIME = range(getattr(signal, "SIGRTMIN", 0), getattr(signal, "SIGRTMAX", -1) + 1)
STRAY = (
    *(getattr(signal, f"SIG{name}") for name in _NAMED.split() if hasattr(signal, f"SIG{name}")),
    *_REAL_TIME,
)
"""What batch systems, log rotation, limits, timers and power supplies send: it asks us for nothing,
and unheard it would end us without a word and leave the agent at work. What stays is what a defect
raises (SIGSEGV…; systemd's watchdog sends SIGABRT), and SIGKILL."""
HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, *STRAY)
"""What is listened for."""
GENERATIONS = 64
"""So many ancestors are looked at."""
SWITCH_SEC = 0.0005
"""So long another thread may keep the interpreter from the one that looks for a sender (5 ms by
default): a `pkill` that has just sent us its signal is gone in less."""
TWIN_SEC = 0.05
"""The same signal from the same process, so soon after the first, is one request: `timeout` sends
it to the program and then to the program's group."""


class Received(NamedTuple):
    """A signal, and the pids of its sender and the sender's ancestors, nearest first; none when it
    was the kernel (a terminal's Ctrl-C) or cannot be told. `run_id`: the run that one of them
    belongs to, or "". `gone`: it was a process of our user, and is no more."""

    number: int
    lineage: tuple[int, ...] = ()
    run_id: str = ""
    gone: bool = False


def name_of(number: int) -> str:
    """SIGTERM, SIGRTMIN+3."""
    if number in _REAL_TIME[1:-1]:
        return f"SIGRTMIN+{number - _REAL_TIME.start}"
    return signal.Signals(number).name


def lineage(pid: int) -> tuple[int, ...]:
    """A process and its ancestors below init, zombies included; () when it is gone."""
    found: list[int] = []
    while pid > 1 and len(found) < GENERATIONS and (process := proctable.read(pid)):
        found.append(pid)
        pid = process.parent
    return tuple(found)


@contextlib.contextmanager
def masked(how: int, numbers: Iterable[int]) -> Iterator[None]:
    """SIG_BLOCK: this thread, and those that it starts, leave these signals to `listen`.
    SIG_UNBLOCK: a child that is forked here hears them."""
    before = signal.pthread_sigmask(how, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.asynccontextmanager
async def listen(numbers: set[int]) -> AsyncIterator[AsyncIterator[Received]]:
    """Hear these signals while the block lasts; afterwards they are ignored: a good end that is
    being written must not turn into a bad one."""
    send, receive = anyio.create_memory_object_stream[Received](64)
    loop = asyncio.get_running_loop()

    def heard(received: Received) -> None:
        with contextlib.suppress(anyio.WouldBlock, anyio.ClosedResourceError):
            send.send_nowait(received)

    def tell(received: Received) -> None:
        loop.call_soon_threadsafe(heard, received)

    for number in numbers:  # for threads that block nothing, and for systems without sigwaitinfo
        loop.add_signal_handler(number, heard, Received(number))
    with masked(signal.SIG_BLOCK, numbers), send, receive:
        waiter = _Waiter(numbers, tell)
        try:
            yield receive
        finally:
            waiter.close()
            for number in numbers:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)


class _Waiter:
    """The thread that waits for the signals."""

    def __init__(self, numbers: set[int], tell: Callable[[Received], object]) -> None:
        self._numbers, self._tell = numbers, tell
        self._closing = False
        self._thread: threading.Thread | None = None
        if hasattr(signal, "sigwaitinfo"):
            sys.setswitchinterval(SWITCH_SEC)
            self._thread = threading.Thread(target=self._wait, name="csi-signals", daemon=True)
            self._thread.start()
        else:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    def _wait(self) -> None:
        # Where we may, we come before the sender: it exists for as long as it waits for us.
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        last, at = (0, 0), float("-inf")
        while True:
            info = signal.sigwaitinfo(self._numbers)
            this, before, at = (info.si_signo, info.si_pid), at, time.monotonic()
            twin = info.si_code <= 0 and this == last and at - before < TWIN_SEC
            twin = twin and info.si_signo != signal.SIGHUP  # the file may have changed in between
            last = this
            if twin and not self._closing:
                continue
            # SI_USER, SI_QUEUE, SI_TKILL are not positive; for others the field is no pid
            found = lineage(info.si_pid) if info.si_code <= 0 else ()
            known = found or info.si_code > 0 or info.si_pid <= 1 or info.si_uid != os.getuid()
            if self._closing:
                return
            runs = (proctable.environment_value(pid, proctable.MARKER) for pid in found)
            run_id = next(filter(None, runs), "")
            self._tell(Received(info.si_signo, found, run_id, gone=not known))

    def close(self) -> None:
        """End the thread, by a signal of its own; it is not waited for."""
        self._closing = True
        if self._thread is not None and self._thread.ident is not None:
            with contextlib.suppress(OSError):  # it has just ended
                signal.pthread_kill(self._thread.ident, min(self._numbers))


def same_run(received: Received, pids: set[int], run_ids: str) -> bool:
    """True when the sender descends from us or from one of `pids`, or belongs to a run whose id
    begins with `run_ids`."""
    ours = os.getpid() in received.lineage[1:] or bool(pids & set(received.lineage))
    return ours or received.run_id.startswith(run_ids)
