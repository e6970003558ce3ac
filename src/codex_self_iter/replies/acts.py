"""What a reply does: the same as the command of its name."""

from __future__ import annotations

import re
import time

from codex_self_iter.core.reply import Do
from codex_self_iter.core.text import age, money
from codex_self_iter.errors import CodexSelfIterError
from codex_self_iter.screens import steering
from codex_self_iter.screens.loops import Target
from codex_self_iter.screens.sources import show
from codex_self_iter.views.rows import Row

MOST_LISTED = 20


def act(do: Do, targets: dict[str, Target]) -> str:
    """Do it; what the sender is told. `targets`: the loops by state directory."""
    if do.kind == "status":
        every = [targets[loop.state_dir] for loop in do.loops]
        several = ["Loops:"] if len(every) > 1 else []  # an answer to this is for none of them
        lines = [line(show(one.name, one).row, time.time()) for one in every[:MOST_LISTED]]
        left = len(every) - len(lines)
        return "\n".join([*several, *lines, *([f"and {left} more"] if left else [])])
    target = targets[do.loops[0].state_dir]
    at = steering.aim(target)
    try:
        match do.kind:
            case "pause":
                said = steering.pause(at)
            case "resume":
                said = steering.resume(at)
            case "stop":
                said = steering.stop(at)
            case _:
                said = steering.steer(at, do.text)
    except CodexSelfIterError as error:
        said = f"That did not work: {error}"
    for place in (target.state_dir, target.workspace):  # shorter, and nobody else's business
        said = said.replace(f"{place}/", "")
    said = re.sub(r"^Wrote \S+\. | \(pid \d+\)", "", said)
    return f"{target.name}: {said}"


def line(row: Row, now: float) -> str:
    """A loop in a sentence or two."""
    lasted = f" for {age(now - row.since)}" if row.since else ""
    plan = f", plan {row.done} of {row.total}" if row.total else ""
    cost = f", {money(row.cost_usd)}" if row.cost_usd else ""
    doing = f" {row.doing}." if row.doing else ""
    return f"{row.name}: {row.state}{lasted}, iteration {row.iteration}{plan}{cost}.{doing}"
