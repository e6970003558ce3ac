"""Whether we are inside a run: what an agent started may not steer the loop that started the agent."""

from __future__ import annotations

import os

from codex_self_iter.world.process import proctable
from codex_self_iter.world.process.launcher import NAME_PREFIX


def inside_a_run() -> bool:
    """True below an agent or a gate of ours.

    Many programs hand only a few variables on to what they start, so the marker is looked for in
    everyone above us; and the recorder of a run is above all that the run started, also above what
    emptied its environment and left its session."""
    table = proctable.scan()
    return any(
        table[pid].name.startswith(NAME_PREFIX)
        or proctable.environment_value(pid, proctable.MARKER)
        for pid in proctable.ancestors(table, os.getpid())
    )
