"""What agents do: drawn as they start, under what the world has in force."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

from codex_self_iter.core.runs import RunSpec
from codex_self_iter.testing import Performance, VirtualClock, answer
from tests.simulation.world import MINUTE, Window, World

REFUSALS = {
    "blind": ("usage limit reached, please upgrade your plan", (3.0, 15.0)),
    "overload": ("API Error: 529 overloaded_error: Overloaded", (10.0, 60.0)),
    "network": ("error sending request: connection refused", (20.0, 90.0)),
}
LONGEST_RUN = 100.0
"""Minutes: an agent is asked for one step, and `command_timeout_sec` is two hours."""


class Cast:
    """What agents do."""

    def __init__(self, world: World, clock: VirtualClock) -> None:
        """`kinds` counts what they did."""
        self.world, self.clock, self.random = world, clock, world.random
        self.kinds: Counter[str] = Counter()
        self.number = 0

    def perform(self, spec: RunSpec) -> Performance:
        """See ScriptedMachine."""
        now, over = self.clock.awake(), self.clock.awake() >= self.world.horizon
        self.number += 1
        if "-gate-" in spec.run_id:
            return self._note(
                "gate", Performance(self.random.uniform(60, 240), "F\n", exit_code=int(not over))
            )
        if over:
            done = answer("", completed=True, summary="all done")
            return self._note("last", Performance(60.0, done))
        refusing = self.world.refusing(now)
        if refusing is not None:
            return self._refused(refusing)
        return self._work(now)

    def _note(self, kind: str, part: Performance, worked: float = 0.0) -> Performance:
        self.kinds[kind] += 1
        return dataclasses.replace(part, note=(kind, worked))

    def _refused(self, window: Window, after: float = 0.0) -> Performance:
        text, (low, high) = REFUSALS.get(window.kind, ("", (3.0, 15.0)))
        if window.kind == "limit":
            rest = window.end - self.clock.awake()
            rest += self.world.slept_between(self.clock.awake(), window.end)
            text = f"Claude usage limit reached|{math.ceil(self.clock.true_wall() + rest)}"
        seconds = after + self.random.uniform(low, high)
        part = Performance(seconds, stderr=f"{text}\n", exit_code=1, changes=after > 0)
        return self._note(
            f"cut by {window.kind}" if after else f"refused: {window.kind}", part, after
        )

    def _work(self, now: float) -> Performance:
        mix, pick = self.world.mix, self.random
        seconds = MINUTE * min(
            LONGEST_RUN, pick.lognormvariate(math.log(mix.run_minutes), mix.run_sigma)
        )
        text = answer(f"step {self.number}", summary=f"did step {self.number}")
        shares = {
            "transient": mix.transient,
            "silent": mix.silent,
            "hang": mix.hang,
            "false claim": mix.false_claim,
            "idle": mix.idle,
        }
        kind = pick.choices([*shares, "work"], [*shares.values(), 1.0 - sum(shares.values())])[0]
        if kind == "transient":
            return self._note(
                kind, Performance(pick.uniform(10, 90), stderr="assertion failed\n", exit_code=1)
            )
        cut = self.world.next_cut(now, now + seconds)
        if cut is not None:
            return self._refused(cut, cut.start - now)
        if kind == "silent":
            return self._note(kind, Performance(seconds))
        if kind == "hang":
            return self._note(kind, Performance(seconds, hangs_after=pick.uniform(0, seconds)))
        if kind == "false claim":
            text = answer(f"step {self.number}", completed=True, summary="all done, I think")
        return self._note(kind, Performance(seconds, text, changes=kind != "idle"), seconds)
