"""Blocking calls beside the event loop, also where the system has no thread to give just now.

At the limit of processes (a fork bomb of an agent, `TasksMax`) no thread can be started. That ends
runs, by their own limits, and then there is room again: so a call waits for its thread, and the
supervisor stands."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PATIENCE_SEC = 600.0
"""How long a call waits for a thread; longer than a run that holds all of them may last."""
_AGAIN_SEC = 0.1


async def run_sync(
    function: Callable[[*Ts], T],
    *args: *Ts,
    limiter: anyio.CapacityLimiter | None = None,
    abandon_on_cancel: bool = False,
) -> T:
    """Call `function(*args)` in a worker thread and return what it returns.

    Raises what it raises, and RuntimeError when no thread could be had for PATIENCE_SEC."""
    begun = False

    def call() -> T:
        nonlocal begun
        begun = True
        return function(*args)

    give_up = anyio.current_time() + PATIENCE_SEC
    while True:
        try:
            return await anyio.to_thread.run_sync(
                call, limiter=limiter, abandon_on_cancel=abandon_on_cancel
            )
        except RuntimeError:
            if begun or anyio.current_time() > give_up:
                raise
        await anyio.sleep(_AGAIN_SEC)


def can_be_had(count: int) -> bool:
    """True if so many threads could be started at once just now. Takes less than a millisecond."""
    gate = threading.Event()
    try:
        for _ in range(count):
            threading.Thread(target=gate.wait, name="csi-probe", daemon=True).start()
    except RuntimeError:
        return False
    finally:
        gate.set()
    return True
