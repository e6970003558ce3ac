#!/usr/bin/env python3
"""Kill a supervisor with lanes at random moments, start it again, and check from outside that nothing
was lost.

    python -m tests.lanes.faults.kill_lanes --count 200 --seed 1

A plan of four items has a conflict and a combination at which the gates are red. Each kill comes
after a random time, or when a chosen file changes, and takes the supervisor alone or its whole
process group. Between two starts a person commits now and then. The last start of a plan runs to
its end: all has landed, by green gates at exactly the tree that landed; every commit that a lane
made is reachable; the person's files, stash and commits are there; nothing is left over."""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.lanes.faults.judged import JUDGE, judged_at
from tests.support.lanes import LaneWorkspace

KILLS = 10
"""So many in the tests; `scripts/fault-report.sh` asks for more."""
MOST_IN_A_PLAN = 6
LONGEST_SEC = 4.0
AIMS = (
    "", "", "", "work space/.codex-self-iter/lanes.json", "work space/.git/index",
    "work space/.git/refs/heads/main", "work space/.git/codex-self-iter.landing",
    "work space/.git/worktrees", "work space/.codex-self-iter/logs/lanes.jsonl",
    "work space/.git/refs/codex-self-iter/lanes", "work space control/lanes/judged",
)  # fmt: skip
_LINE = (
    "sleep {pause}; if grep -q '<<<<<<<' list.txt 2>/dev/null; then printf 'one\\ntwo\\n' > list.txt; "
    "else grep -qx {word} list.txt 2>/dev/null || echo {word} >> list.txt; fi"
)
_MANY = (
    'sleep {pause}; if test -e many.txt -a -e limit.txt && test "$(wc -l < many.txt)" -gt 5; '
    "then seq 5 > many.txt; else {work}; fi"
)
_GATE = (
    '; test ! -e limit.txt -o ! -e many.txt || test "$(wc -l < many.txt)" -le "$(cat limit.txt)"'
)


class Killing:
    """Plans, one after the other, and all that is done to them."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.rng = root, random.Random(seed)
        self.kills: collections.Counter[str] = collections.Counter()
        self.plans = 0
        self._ws: LaneWorkspace | None = None

    def plan(self, most: int = MOST_IN_A_PLAN) -> int:
        """One plan, killed up to so many times; how many it was."""
        self.plans += 1
        root = self.root / f"plan-{self.plans}"
        ws = self._ws = self._workspace(root)
        kills = 0
        mine = []
        for _ in range(self.rng.randint(1, most)):
            if not self._kill(ws):
                break
            kills += 1
            mine += self._commit(ws)
        code = ws.run_lanes(*self._how(), patience=240)
        assert code == 0, ws.log()[-6000:]
        self._check(ws, mine)
        self.close()
        shutil.rmtree(root)
        return kills

    def close(self) -> None:
        """End what is left."""
        if self._ws is not None:
            self._ws.close()
            self._ws = None

    def _how(self) -> tuple[str, ...]:
        return ("--on-orphan", self.rng.choice(("adopt", "kill")))

    def _workspace(self, root: Path) -> LaneWorkspace:
        def pause() -> str:
            return f"{self.rng.uniform(0, 0.5):.2f}"

        root.mkdir(parents=True)
        ws = LaneWorkspace(
            root,
            {
                "one of the list": _LINE.format(word="one", pause=pause()),
                "two of the list": _LINE.format(word="two", pause=pause()),
                "a limit": _MANY.format(
                    work="test -e limit.txt || echo 5 > limit.txt", pause=pause()
                ),
                "many": _MANY.format(work="test -e many.txt || seq 10 > many.txt", pause=pause()),
            },
            gates=[JUDGE + _GATE],
            max=self.rng.choice((2, 4)),
            batch=self.rng.choice((1, 2)),
            max_conflicts=20,
        )
        (ws.path / "stashed.txt").write_text("one\n")
        ws.git("add", "stashed.txt")
        ws.git("commit", "-q", "-m", "mine")
        (ws.path / "stashed.txt").write_text("in the stash\n")
        ws.git("stash", "-q")
        (ws.path / "untracked.txt").write_text("mine\n")
        return ws

    def _kill(self, ws: LaneWorkspace) -> bool:
        """Start it and kill it; False when it came to its end before."""
        group, aim = self.rng.random() < 0.3, self.rng.choice(AIMS)
        moment = self.rng.uniform(0.05, LONGEST_SEC)
        process = ws.start_lanes(*self._how(), start_new_session=True)
        end, path = time.monotonic() + moment, ws.root / aim
        seen = _mark(path) if aim else None
        changes = self.rng.randint(1, 8)
        while time.monotonic() < end + (LONGEST_SEC if aim else 0) and process.poll() is None:
            if aim and (now := _mark(path)) != seen:
                seen, changes = now, changes - 1
                if not changes:
                    break
            time.sleep(0.001)
        if process.poll() is not None:
            return False
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        self.kills["group" if group else "supervisor"] += 1
        return True

    def _commit(self, ws: LaneWorkspace) -> list[str]:
        """A person commits now and then, where git lets them."""
        if self.rng.random() < 0.6:
            return []
        name = f"mine-{self.rng.randrange(10**9)}.txt"
        (ws.path / name).write_text("mine\n")
        orders = (["add", name], ["commit", "-q", "-m", name, "--", name])
        for order in orders:
            done = subprocess.run(
                ["git", *order], cwd=ws.path, env=ws.environment, capture_output=True, check=False
            )
            if done.returncode != 0:
                (ws.path / name).unlink()
                return []
        return [name]

    def _check(self, ws: LaneWorkspace, mine: list[str]) -> None:
        there = ws.contents("main")
        assert there >= {"list.txt", "limit.txt", "many.txt", *mine}, there
        assert sorted(ws.at("main", "list.txt").split()) == ["one", "two"]
        assert ws.at("main", "many.txt").count("\n") == 5
        assert ws.at("main", "plan.md").count("[x]") == 4
        assert ws.git("status", "--porcelain") == "?? untracked.txt\n"
        assert ws.git("show", "stash@{0}:stashed.txt") == "in the stash\n"
        assert len(ws.git("stash", "list").splitlines()) == 1
        lanes = ws.known["lanes"]
        assert sorted(one["number"] for one in lanes if one["state"] == "landed") == [1, 2, 3, 4]
        for one in lanes:
            assert one["place"] == "", one
            if one["landed"]:
                assert "green" in judged_at(ws, one["landed"]), one
                assert one["landed"] in ws.git("rev-list", "main").split()
        assert len(ws.made()) >= 4
        assert ws.lost() == set()
        kept = ("for-each-ref", "--format=%(refname)", "refs/heads", "refs/codex-self-iter/lanes")
        assert ws.git(*kept).split() == ["refs/heads/main"]
        assert ws.git("worktree", "list").count("\n") == 1
        assert not any(ws.trees.glob("*/*"))
        git = ws.path / ".git"
        assert not [*git.rglob("*.lock"), *git.glob("codex-self-iter*"), *git.glob("worktrees/*")]
        assert ws.leftovers() == []


def _mark(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def main() -> int:
    """Parse flags, run, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--json", metavar="FILE", help="write what it came to here as well")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}, {options.count} kills", flush=True)
    root = Path(tempfile.mkdtemp(prefix="kill-lanes-"))
    killing, began = Killing(root, seed), time.monotonic()
    try:
        while killing.kills.total() < options.count:
            killing.plan()
    except BaseException:
        print(f"plan {killing.plans}; kept {root}", flush=True)
        raise
    finally:
        killing.close()
    shutil.rmtree(root)
    came_to = {
        "count": killing.kills.total(), "seed": seed, "kills": killing.kills, "plans": killing.plans,
        "seconds": time.monotonic() - began,
    }  # fmt: skip
    if options.json:
        Path(options.json).write_text(json.dumps(came_to))
    print(came_to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
