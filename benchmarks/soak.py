"""Months in an hour: thousands of iterations with faults, and what grows.

    python -m benchmarks.soak [ITERATIONS]

A real supervisor with a tiny agent that changes a file in each run, in a real repository, with
checkpoints. Every so many iterations something goes wrong: the supervisor is killed (kill -9), the
state directory is deleted, `index.lock` is left lying about, a directory or a link lies where a
file will be, messages come in. After each round of iterations everything that could grow is looked
at; a straight line through the second half of the looks says whether it does."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
AGENT = """#!/bin/sh
echo "$$" > work.txt
printf '{"summary":"s","next_goal":"g%s","stop":false,"reason":"r","evidence":[],"completed":false}' $$
"""
CONFIG = """
agent_command_template = "./agent.sh {prompt_file}"
max_stagnation = 0
no_change_gate = false
backoff_base_sec = 0.01
backoff_max_sec = 0.05
no_change_backoff_sec = 0.01
kill_grace_sec = 1
history_tail = 2
[git]
checkpoint_keep = 20
[output]
keep_runs = 50
log_max_mb = 1
log_files = 3
"""
LOOKS = 20
"""The run is looked at so often, at equal distances."""
PATIENCE_SEC = 120.0
"""So long for one iteration on a busy machine; a loop that stands longer has failed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What one look found. Sizes in KiB; `fds` (those that stay open), `threads` and `rss` are the
    supervisor's."""

    iteration: int
    fds: int
    threads: int
    rss: int
    state: int
    files: int
    quarantine: int
    done: int
    journal_line: int
    loose: int
    warnings: int
    processes: int


FIELDS = tuple(field.name for field in dataclasses.fields(Look) if field.name != "iteration")


class Soak:
    """One repository and its supervisors."""

    def __init__(self, root: Path, seed: int = 1, environ: Mapping[str, str] | None = None) -> None:
        self.environ = dict(environ or {})
        self.root, self.workspace = root, root / "w"
        self.state = self.workspace / ".codex-self-iter"
        self.random = random.Random(seed)
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.faults: dict[str, int] = {}
        self.workspace.mkdir()
        (self.workspace / "plan.md").write_text("# Plan\n\n- [ ] nothing\n")
        (self.workspace / "codex-self-iter.toml").write_text(CONFIG)
        agent = self.workspace / "agent.sh"
        agent.write_text(AGENT)
        agent.chmod(0o755)
        who = ["-c", "user.name=soak", "-c", "user.email=soak@example.invalid"]
        for args in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "start"]):
            subprocess.run(["git", *args], cwd=self.workspace, check=True, env=os.environ | GIT)

    # -- the supervisor ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start a supervisor."""
        self.starts += 1
        self.process = subprocess.Popen(
            [sys.executable, "-m", "codex_self_iter", "--workspace", str(self.workspace)],
            env={**os.environ, **GIT, "XDG_STATE_HOME": str(self.root / "home"), **self.environ},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def stop(self) -> None:
        """End it in order."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
            self.process = None

    def iteration(self) -> int:
        """The iteration that `status.json` has, 0 while there is none."""
        try:
            return int(json.loads((self.state / "status.json").read_text())["iteration"])
        except (OSError, ValueError, KeyError):
            return 0

    def reach(self, iteration: int) -> None:
        """Wait until it is there; a supervisor that has ended is started again."""
        last, since = self.iteration(), time.monotonic()
        while last < iteration:
            if self.process is None or self.process.poll() is not None:
                self.start()
            time.sleep(0.05)
            now = self.iteration()
            if now > last:
                last, since = now, time.monotonic()
            if time.monotonic() - since > PATIENCE_SEC:
                raise AssertionError(f"it stands at iteration {last}: {self.state}")

    # -- what goes wrong ---------------------------------------------------------------------------

    def fault(self) -> str:
        """Do one of the bad things; returns its name."""
        fault = self.random.choice(self.all_faults())
        fault()
        name = fault.__name__
        self.faults[name] = self.faults.get(name, 0) + 1
        return name

    def all_faults(self) -> list[Callable[[], None]]:
        """Everything that may go wrong."""
        return [
            self.kill_nine, self.state_deleted, self.stale_index_lock, self.foreign_runtime,
            self.directory_in_the_way, self.link_in_the_way, self.message, self.terminated,
        ]  # fmt: skip

    def kill_nine(self) -> None:
        """kill -9 of the supervisor; the next one finds what is left."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminated(self) -> None:
        """SIGTERM, and a new start."""
        self.stop()

    def state_deleted(self) -> None:
        """`git clean -xdf`, as agents do."""
        shutil.rmtree(self.state, ignore_errors=True)

    def stale_index_lock(self) -> None:
        """A git that was killed has left its lock; somebody takes it away a little later."""
        lock = self.workspace / ".git" / "index.lock"
        lock.touch()
        self.reach(self.iteration() + 1)
        lock.unlink(missing_ok=True)

    def foreign_runtime(self) -> None:
        """Another program writes over our snapshot."""
        self._plant(lambda: (self.state / "runtime.json").write_text("{}"))

    def directory_in_the_way(self) -> None:
        """A directory lies where the report will be."""
        self._plant((self.state / "report.md").mkdir)

    def link_in_the_way(self) -> None:
        """A link lies where our log is."""

        def plant() -> None:
            (self.state / "logs" / "supervisor.log").unlink(missing_ok=True)
            (self.state / "logs" / "supervisor.log").symlink_to("/dev/null")

        self._plant(plant)

    def message(self) -> None:
        """A person says something."""
        self._plant(lambda: (self.state / "inbox" / f"{time.time_ns()}.md").write_text("hello"))

    @staticmethod
    def _plant(plant: Callable[[], object]) -> None:
        try:
            plant()
        except OSError:
            pass  # the directory is just being put back

    # -- looking -----------------------------------------------------------------------------------

    def look(self) -> Look:
        """What has grown. The supervisor must be up."""
        assert self.process is not None
        about = psutil.Process(self.process.pid)
        status = json.loads((self.state / "status.json").read_text())
        journal = self.state / "logs" / "iterations.jsonl"
        lines = journal.read_bytes().splitlines()[-50:]
        sizes = list(_below(self.state))
        return Look(
            iteration=status["iteration"],
            fds=self._resting_fds(about),
            threads=about.num_threads(),
            rss=about.memory_info().rss // 1024,
            # the journal is meant to grow up to its bound: a line's length is what is looked at
            state=(sum(s.st_blocks * 512 for s in sizes) - journal.stat().st_size) // 1024,
            files=len(sizes),
            quarantine=len(list((self.state / "quarantine").glob("*"))),
            done=len(list((self.state / "inbox" / "done").glob("*"))),
            journal_line=sum(map(len, lines)) // len(lines),
            loose=len(list((self.workspace / ".git" / "objects").glob("??/*"))),
            warnings=len(status["warnings"]),
            processes=len(about.children(recursive=True)),
        )

    def _resting_fds(self, about: psutil.Process) -> int:
        """The fewest while an iteration goes by: half as many again are open for a moment, while git
        is asked."""
        least, begun, since = about.num_fds(), self.iteration(), time.monotonic()
        while self.iteration() == begun and time.monotonic() - since < PATIENCE_SEC:
            time.sleep(0.005)
            least = min(least, about.num_fds())
        return least


def _below(path: Path) -> Iterator[os.stat_result]:
    """Every file that is there; a temporary one may be gone by the time that it is looked at."""
    for where, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield Path(where, name).lstat()


def growth(looks: Sequence[Look], field: str) -> float:
    """By how much a figure grows in the second half of the looks, as a part of its mean there: the
    slope of the straight line that fits best, times the distance."""
    half = looks[len(looks) // 2 :]
    xs, ys = [look.iteration for look in half], [getattr(look, field) for look in half]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    if not spread or not mean_y:
        return 0.0
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    return float(slope * (xs[-1] - xs[0]) / mean_y)


def run(
    root: Path, iterations: int, *, every: int = 15, say: Callable[[str], None] = print
) -> tuple[list[Look], dict[str, int]]:
    """The looks at so many iterations with a fault after every `every`, and the faults done."""
    soak, looks = Soak(root), []
    say(" ".join(f"{name:>12}" for name in ("iteration", *FIELDS)))
    try:
        soak.start()
        at, next_look = 0, iterations / LOOKS
        while at < iterations:
            soak.reach(at + every)
            at = soak.iteration()
            if at >= next_look:
                soak.reach(at + 1)
                looks.append(soak.look())
                say(" ".join(f"{value:>12}" for value in dataclasses.astuple(looks[-1])))
                next_look += iterations / LOOKS
            soak.fault()
            soak.reach(at + 1)
    finally:
        soak.stop()
    return looks, soak.faults


def main() -> None:
    """Run it and print the table and the fit."""
    iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as root:
        looks, faults = run(Path(root), iterations)
    print(f"\n{iterations} iterations in {time.monotonic() - begun:.0f} s; faults: {faults}")
    for field in FIELDS:
        first, last = getattr(looks[0], field), getattr(looks[-1], field)
        print(f"{field:>12} {first:>10} -> {last:>10}   {growth(looks, field):+.1%}")


if __name__ == "__main__":
    main()
