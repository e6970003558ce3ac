"""What happens whatever the supervisor does: drawn from the seed before anything runs."""

from __future__ import annotations

import dataclasses
import heapq
import math
import random
from collections.abc import Iterator

DAY = 86_400.0
MINUTE = 60.0


@dataclasses.dataclass(frozen=True)
class Mix:
    """How much goes wrong. `x_day`: events a day; shares are of agent runs; pairs are ranges in
    minutes."""

    run_minutes: float = 24.0
    run_sigma: float = 0.7
    transient: float = 0.01
    silent: float = 0.002
    hang: float = 0.002
    false_claim: float = 0.01
    idle: float = 0.01
    limit_day: float = 0.5
    limit_minutes: tuple[float, float] = (30, 240)
    week_limit_day: float = 0.01
    blind_day: float = 0.1
    blind_minutes: tuple[float, float] = (20, 180)
    overload_day: float = 1.0
    overload_minutes: tuple[float, float] = (1, 30)
    network_day: float = 0.5
    network_minutes: tuple[float, float] = (0.5, 90)
    disk_day: float = 0.03
    disk_minutes: tuple[float, float] = (20, 120)
    crash_day: float = 0.3
    reboot_day: float = 0.07
    suspend_day: float = 0.5
    step_day: float = 0.1
    step_sec: float = 600.0
    """The wall clock is set wrong by up to so much, for up to six hours."""
    edit_day: float = 0.5


CALM = Mix(
    transient=0.002, silent=0.0, hang=0.0005, limit_day=0.1, week_limit_day=0.0, blind_day=0.0,
    overload_day=0.1, network_day=0.05, disk_day=0.0, crash_day=0.02, reboot_day=0.02,
    suspend_day=0.1, step_day=0.0,
)  # fmt: skip
HELL = Mix(
    transient=0.08, silent=0.02, hang=0.02, false_claim=0.05, idle=0.05, limit_day=2.0,
    blind_day=1.0, overload_day=8.0, network_day=4.0, disk_day=1.0, crash_day=12.0, reboot_day=1.0,
    suspend_day=3.0, step_day=2.0, step_sec=365 * DAY, edit_day=4.0,
)  # fmt: skip
LIMITS = dataclasses.replace(Mix(), limit_day=3.0, blind_day=1.0)
CRASHES = dataclasses.replace(Mix(), crash_day=48.0, reboot_day=2.0)
CLOCKS = dataclasses.replace(Mix(), suspend_day=6.0, step_day=6.0, step_sec=365 * DAY)
MIXES = {
    "default": Mix(),
    "calm": CALM,
    "hell": HELL,
    "limits": LIMITS,
    "crashes": CRASHES,
    "clocks": CLOCKS,
}

SHORT_OUTAGE_SEC = 45.0
"""CLIs try again by themselves for about so long."""


@dataclasses.dataclass(frozen=True, order=True)
class Window:
    """A stretch of awake time in which something is out of order."""

    start: float
    end: float
    kind: str


class World:
    """Everything that happens whatever the supervisor does, drawn from the seed."""

    def __init__(self, mix: Mix, days: float, seed: int) -> None:
        """Draw it."""
        self.mix, self.horizon = mix, days * DAY
        self.random = random.Random(seed)
        pick = self.random
        self.windows: list[Window] = []
        for kind, rate, span in (
            ("limit", mix.limit_day, mix.limit_minutes),
            ("limit", mix.week_limit_day, (2 * 1440, 7 * 1440)),
            ("blind", mix.blind_day, mix.blind_minutes),
            ("overload", mix.overload_day, mix.overload_minutes),
            ("network", mix.network_day, mix.network_minutes),
            ("disk", mix.disk_day, mix.disk_minutes),
        ):
            low, high = math.log(span[0]), math.log(span[1])
            for at in self._times(rate):
                self.windows.append(
                    Window(at, at + MINUTE * math.exp(pick.uniform(low, high)), kind)
                )
        self.windows.sort()
        self.happenings: list[tuple[float, int, str, float]] = []
        for kind, rate, draw in (
            ("crash", mix.crash_day, lambda: pick.choice((0, pick.randrange(-6, 7)))),
            ("reboot", mix.reboot_day, lambda: pick.uniform(40, 240)),
            ("suspend", mix.suspend_day, lambda: pick.uniform(60, 9 * 3600)),
            ("step", mix.step_day, lambda: pick.uniform(-1, 1) * mix.step_sec),
            ("edit", mix.edit_day, lambda: 0.0),
        ):
            self.happenings += [(at, 0, kind, draw()) for at in self._times(rate)]
        self.happenings += [(at + pick.uniform(60, 6 * 3600), 1, "set right", 0.0)
                            for at, _, kind, _ in self.happenings if kind == "step"]  # fmt: skip
        for window in self.windows:
            if window.kind == "disk":
                self.happenings += [
                    (window.start, 2, "disk full", 0.0),
                    (window.end, 3, "disk free", 0.0),
                ]
        heapq.heapify(self.happenings)

    def _times(self, a_day: float) -> list[float]:
        times: list[float] = []
        at = 0.0
        while a_day > 0 and (at := at + self.random.expovariate(a_day / DAY)) < self.horizon:
            times.append(at)
        return times

    def refusing(self, at: float) -> Window | None:
        """What an agent that starts now runs into: the one that lasts longest."""
        found = [w for w in self._near(at) if w.kind != "disk" and w.start <= at < w.end]
        return max(found, key=lambda window: window.end, default=None)

    def next_cut(self, at: float, until: float) -> Window | None:
        """What ends a run that works from `at` until `until`."""
        for window in self._near(until):
            short = window.kind == "network" and window.end - window.start < SHORT_OUTAGE_SEC
            if at < window.start < until and window.kind != "disk" and not short:
                return window
        return None

    def _near(self, at: float) -> Iterator[Window]:
        """The windows that have begun by `at`; those that ended long ago are forgotten."""
        while self.windows and self.windows[0].end < at - 10 * DAY:
            self.windows.pop(0)
        for window in self.windows:
            if window.start > at:
                return
            yield window

    def slept_between(self, begin: float, end: float) -> float:
        """Seconds of suspend that lie between two moments of awake time, both to come."""
        return sum(
            size for at, _, kind, size in self.happenings if kind == "suspend" and begin < at <= end
        )
