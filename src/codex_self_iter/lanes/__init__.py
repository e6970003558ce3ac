"""Lanes in the world: a work tree and a loop for each, and the queue that lands them.

`core.lane_machine` decides; here it is done. What a lane's agent does is a loop like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codex_self_iter.settings import Settings
    from codex_self_iter.supervisor.loop import Loop
    from codex_self_iter.supervisor.shared import Shared


def loop_for(shared: Shared, settings: Settings, **more: Any) -> Loop:
    """The loop for these settings, called as `Loop` is: with lanes, where it is to have some."""
    if settings.lanes.max > 1:
        from codex_self_iter.lanes.lanes_loop import LanesLoop  # a start without is spared it

        return LanesLoop(shared, settings, **more)
    from codex_self_iter.supervisor.loop import Loop

    return Loop(shared, settings, **more)
