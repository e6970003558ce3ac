"""Simulate a year of one loop in about a minute: the real core and supervisor over a scripted
world, on virtual time.

    python -m tests.simulation --days 365 --mix default --seed 7

The world is drawn from the seed before anything runs: limits, overload, network outages, full
disks, crashes of the supervisor, reboots, suspends, wrong clocks, plan edits. Agents are drawn as
they start. Everything is counted in awake time (a suspended machine can do nothing). See
docs/simulation.md for what the figures mean."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import random
import sys
import time
from collections.abc import Mapping

from tests.simulation.ledger import Result
from tests.simulation.life import simulate
from tests.simulation.world import MIXES


def show(result: Result, name: str) -> str:
    """The result in words."""
    hours, best = result.productive / 3600, result.best / 3600
    longest, stretches = result.longest_unexplained, len(result.unexplained)
    lines = [
        f"mix {name}, {result.days:g} days, seed {result.seed}",
        f"goodput              {result.goodput:.4f}  ({hours:.1f} h of {best:.1f} h)",
        f"answered runs alone  {result.answered / result.best:.4f}",
        f"longest unexplained  {longest:.1f} s ({stretches} stretches)",
        f"iterations           {result.iterations} ({result.runs} agent runs)",
        f"broken invariants    {len(result.faults)}",
        f"verdicts             {_counted(result.verdicts)}",
        f"agents               {_counted(result.kinds)}",
        f"happenings           {_counted(result.happened)}",
        f"ends                 {'; '.join(result.ends[-3:])} ({len(result.ends)})",
        "without an agent, by what the status said:",
    ]
    lines += [
        f"  {seconds / 3600:8.2f} h  {said}" for said, seconds in list(result.idle.items())[:12]
    ]
    lines += [
        f"UNEXPLAINED {length:.1f} s at {at:.1f}: {said}"
        for length, at, said in result.unexplained[:10]
    ]
    lines += [f"BROKEN {fault}" for fault in result.faults[:10]]
    return "\n".join(lines)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key} {count}" for key, count in counts.items())


def failed(result: Result) -> bool:
    """Whether an invariant broke or a stretch is unexplained."""
    return bool(result.unexplained or result.faults)


def main() -> int:
    """Exit 0 when nothing is unexplained and no invariant broken."""
    parser = argparse.ArgumentParser(description="Simulate a loop over a scripted world.")
    parser.add_argument("--days", type=float, default=365.0)
    parser.add_argument("--mix", choices=[*MIXES, "all"], default="default")
    parser.add_argument(
        "--seed", type=int, default=None, help="a run with the same seed is the same run"
    )
    parser.add_argument("--on-orphan", choices=["adopt", "kill"], default="adopt")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    # the book-keeping is kept anyway; looking through it takes time
    gc.set_threshold(100_000, 50, 50)
    bad = False
    for name in MIXES if given.mix == "all" else [given.mix]:
        begun = time.monotonic()
        result = simulate(MIXES[name], given.days, seed, on_orphan=given.on_orphan)
        print(json.dumps(dataclasses.asdict(result)) if given.json else show(result, name))
        print(f"real time {time.monotonic() - begun:.1f} s\n", file=sys.stderr)
        bad = bad or failed(result)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
