"""A loop with lanes, as the supervisor has it in the place of a plain one."""

from __future__ import annotations

from anyio.abc import ObjectReceiveStream

from codex_self_iter.core import events as ev
from codex_self_iter.lanes.conductor import Conductor
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.loop import Loop
from codex_self_iter.supervisor.rounds import Rounds


class LanesLoop(Loop):
    """Runs the lanes of one plan from start to end."""

    def begun(self, ctx: Context, events: ObjectReceiveStream[ev.Event]) -> Rounds:
        """What it does is done by lanes."""
        return Conductor(ctx, events)

    def living(self) -> list[Rounds]:
        """With the loops of its lanes."""
        found = super().living()
        if isinstance(self.rounds, Conductor):
            found += [one for loop in self.rounds.loops for one in loop.living()]
        return found
