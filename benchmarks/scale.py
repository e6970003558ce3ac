"""What a supervisor costs as its loops grow in number: start-up, throughput, memory, idle CPU,
STOP.

    python -m benchmarks.scale [1 10 100 1000]

Each loop runs a scripted agent that changes nothing, once, and then waits in a cooldown. Figures
are taken from outside the process. The slope is what each further loop adds, between the smallest
and the largest number."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

AGENT = """#!/bin/sh
echo '{"summary":"s","next_goal":"g","stop":false,"reason":"r","evidence":[],"completed":false}'
"""
IDLE_SEC = 10.0
SETTLE_SEC = 8.0
"""After the last iteration: until every loop looks at its files as seldom as one that waits
does."""


class Figures(NamedTuple):
    """Of one number of loops. Seconds, MiB, and milliseconds of CPU per second."""

    loops: int
    start_sec: float
    iterations_per_sec: float
    memory_mib: float
    idle_ms_per_sec: float
    files: int
    stop_one_sec: float
    stop_all_sec: float


def prepare(root: Path, loops: int) -> Path:
    """Workspaces without git, and the configuration for all of them."""
    agent = root / "agent.sh"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    lines = [
        f"agent_command_template = '{agent} {{prompt_file}}'", "no_change_backoff_sec = 3600",
        "backoff_max_sec = 3600", "max_stagnation = 0", "[pool]", "max_agents = 4", "[log]",
        'level = "error"',
    ]  # fmt: skip
    for number in range(loops):
        workspace = root / f"w{number}"
        workspace.mkdir()
        (workspace / "plan.md").write_text("# Plan\n\n- [ ] nothing\n")
        lines += ["[[workspaces]]", f"path = '{workspace}'"]
    config = root / "config.toml"
    config.write_text("\n".join(lines) + "\n")
    return config


def state(workspace: Path) -> str | None:
    """The state of a workspace's loop, None before it has one."""
    try:
        found = json.loads((workspace / ".codex-self-iter/status.json").read_bytes())
    except (OSError, ValueError):
        return None
    return str(found["state"])


def until(condition: Callable[[], bool], seconds: float, every: float = 0.02) -> float:
    """Wait for a condition; returns how long it took."""
    begun = time.perf_counter()
    while not condition():
        if time.perf_counter() - begun > seconds:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(every)
    return time.perf_counter() - begun


def measure(loops: int) -> Figures:
    """Start a supervisor over so many loops and look at it."""
    root = Path(tempfile.mkdtemp(prefix="bench-scale-"))
    try:
        environment = {**os.environ, "XDG_STATE_HOME": str(root / "state")}
        argv = [sys.executable, "-m", "codex_self_iter", "--config", str(prepare(root, loops))]
        with subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL) as process:
            try:
                return _watch(root, loops, process)
            finally:
                process.kill()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _watch(root: Path, loops: int, process: subprocess.Popen[bytes]) -> Figures:
    missing, busy = set(range(loops)), set(range(loops))

    def up() -> bool:
        missing.difference_update(
            [number for number in missing if state(root / f"w{number}") is not None]
        )
        return not missing

    def waiting() -> bool:
        busy.difference_update(
            [number for number in busy if state(root / f"w{number}") == "cooldown"]
        )
        return not busy

    start = until(up, 600.0)
    start_of_runs = start + until(waiting, 600.0, 0.1)
    time.sleep(SETTLE_SEC)
    us = psutil.Process(process.pid)
    before = sum(us.cpu_times()[:2])
    time.sleep(IDLE_SEC)
    idle = 1000 * (sum(us.cpu_times()[:2]) - before) / IDLE_SEC
    memory, files = us.memory_info().rss / 2**20, us.num_fds()
    (root / "w0/.codex-self-iter/STOP").touch()
    one = until(lambda: state(root / "w0") == "stopped", 60.0, 0.005)
    begun = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    process.wait(300)
    every = time.perf_counter() - begun
    return Figures(loops, start, loops / start_of_runs, memory, idle, files, one, every)


def scale(numbers: tuple[int, ...] = (1, 10, 100, 1000)) -> None:
    """Print a table and the slope."""
    print("loops   start s   iterations/s   MiB   idle ms/s   files   STOP of one s   of all s")
    rows = []
    for number in numbers:
        row = measure(number)
        rows.append(row)
        print(
            f"{row.loops:5d} {row.start_sec:9.2f} {row.iterations_per_sec:14.1f} {row.memory_mib:5.0f} "
            f"{row.idle_ms_per_sec:11.1f} {row.files:7d} {row.stop_one_sec:15.2f} {row.stop_all_sec:10.2f}",
            flush=True,
        )
    first, last = rows[0], rows[-1]
    if last.loops > first.loops:
        more = last.loops - first.loops
        print(
            f"each further loop: {(last.memory_mib - first.memory_mib) / more:.3f} MiB (aim: at most 0.1), "
            f"{(last.idle_ms_per_sec - first.idle_ms_per_sec) / more:.3f} ms CPU/s (aim: at most 0.1), "
            f"{(last.files - first.files) / more:.1f} open files; with {last.loops} loops STOP of one "
            f"{last.stop_one_sec:.2f} s (aim: at most 0.3), SIGTERM of all {last.stop_all_sec:.1f} s "
            "(aim: at most 5)"
        )


if __name__ == "__main__":
    scale(tuple(map(int, sys.argv[1:])) or (1, 10, 100, 1000))
