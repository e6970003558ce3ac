"""What a stop calls off while it is being decided."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from codex_self_iter.core.lanes import Event, Idle
from codex_self_iter.lanes.conductor import Conductor

pytestmark = pytest.mark.anyio


async def test_what_is_written_down_is_done_though_who_asked_for_it_is_called_off() -> None:
    """Else a lane was written down as at work, and nobody worked."""
    written, on, done = anyio.Event(), anyio.Event(), anyio.Event()

    async def decide(_: Event) -> None:
        written.set()
        await on.wait()
        done.set()

    async with anyio.create_task_group() as tasks:
        start = SimpleNamespace(start=lambda _, function: tasks.start_soon(function))
        conductor = cast(Any, SimpleNamespace(ctx=start, _decide=decide))

        async def call_off() -> None:
            await written.wait()
            scope.cancel()

        with anyio.CancelScope() as scope:
            tasks.start_soon(call_off)
            await Conductor._decided(conductor, Idle("1"))
        assert scope.cancelled_caught
        on.set()
    assert done.is_set()
