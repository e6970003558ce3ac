"""What a run leaves that the supervisor could not deal with: said, never passed over."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from codex_self_iter.core.runs import EndCause, RunOutcome, RunSpec
from codex_self_iter.supervisor.context import Context
from codex_self_iter.world.process import proctable

_LEFT = "left processes"


class Remains:
    """The remains of one loop's runs."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._left: tuple[str, ...] = ()

    async def run(self, spec: RunSpec, in_haste: Callable[[], bool] = lambda: False) -> RunOutcome:
        """Run it to its end; whoever cancels that waits until nothing of it is left."""
        handle = await self._ctx.shared.host.start(spec)
        try:
            outcome = await handle.wait()
        except BaseException:
            with anyio.CancelScope(shield=True):
                grace = 0.0 if in_haste() else None
                self.tell(await handle.end(EndCause.REQUEST, grace_sec=grace))
            raise
        self.tell(outcome)
        return outcome

    def tell(self, outcome: RunOutcome) -> None:
        """Warn of processes that could not be ended, until they are gone, and of damaged files."""
        warnings = self._ctx.warnings
        for number, trouble in enumerate(outcome.troubles):
            warnings.tell(f"files of {outcome.run_id} {number}", f"{outcome.run_id}: {trouble}")
        self._left = tuple(
            who for who in dict.fromkeys((*self._left, *outcome.left)) if _lives(who)
        )
        if self._left:
            who = ", ".join(self._left)
            why = "left by a run, and the supervisor has no power to end them"
            warnings.tell(_LEFT, f"{who}: {why}. The next run starts beside them", agent=True)
        else:
            warnings.clear(_LEFT)


def _lives(who: str) -> bool:
    """True while the process lives that `RunOutcome.left` names so, or nobody knows."""
    pid, _, name = who.partition(" ")
    if not pid.isdecimal() or not proctable.LINUX:
        return True
    found = proctable.read(pid)
    return found is not None and found.living and name == f"({found.name})"
