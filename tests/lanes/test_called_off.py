"""What a stop calls off while it is being decided."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from codex_self_iter.core.lanes import Event, Lane, Lanes, LaneState
from codex_self_iter.lanes.crew import Crew

LANE = Lane("1", "item", 1, "item", "- [ ] item", LaneState.MAKING, 0.0)
pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("what", ["make", "work"])
async def test_what_is_written_down_is_done_though_who_asked_for_it_is_called_off(
    what: str,
) -> None:
    """Else a lane was written down as at work, and nobody worked."""
    written, on, done = anyio.Event(), anyio.Event(), anyio.Event()

    async def decide(_: Event) -> None:
        written.set()
        await on.wait()
        done.set()

    async with anyio.create_task_group() as tasks:
        ctx: Any = SimpleNamespace(start=lambda _, function: tasks.start_soon(function))
        nothing: Any = None
        state = Lanes(lanes=(LANE,))
        crew = Crew(ctx, nothing, nothing, nothing, lambda: state, decide)
        crew.stop = cast(Any, object())

        async def call_off() -> None:
            await written.wait()
            scope.cancel()

        with anyio.CancelScope() as scope:
            tasks.start_soon(call_off)
            await getattr(crew, what)(LANE.id)
        assert scope.cancelled_caught
        on.set()
    assert done.is_set()
