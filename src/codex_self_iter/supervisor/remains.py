"""What a run leaves that the supervisor could not deal with: said, never passed over."""

from __future__ import annotations

from codex_self_iter.core.runs import RunOutcome
from codex_self_iter.supervisor.context import Context
from codex_self_iter.world.process import proctable

_LEFT = "left processes"


class Remains:
    """The remains of one loop's runs."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._left: tuple[str, ...] = ()

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
