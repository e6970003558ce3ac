#!/usr/bin/env python3
"""Benchmarks: print figures and ratios, judge nothing.

overhead    our loop beside a bare shell loop that runs the same agent and one `git status`
journal     cost of an iteration with 100,000 journal lines beside an empty journal
status      start-up of `status`
start       from `run "…"` to the agent's exec, beside bare Python and ten million additions
stop        from `end` to everything gone, with an agent that obeys
stop_file   from the STOP file to the end of the program, with an agent that obeys
idle        CPU and memory of a supervisor with one loop: in a cooldown, and with a sleeping agent
flood       1 GiB of output through the process host beside `agent > file`
read        64 MiB of an agent's output, read and gone through for secrets
poll        one look at the process table with 1, 100 and 1,000 descendants
scale       1, 10, 100 and 1,000 loops: start, throughput, memory, idle CPU, STOP
board       `top` with 100 loops: idle CPU, memory, from a key to the screen
page        `serve` with 100 loops: answers, first paint, memory, what an open page costs
prompt      size of our part of a prompt beside task and plan
told        what targets that hang take of a loop's own thread; CPU of an idle loop with five targets beside one
            without; an iteration beside a target that hangs
lanes       three items on three lanes beside one agent; a landing beside `git status`; a lane's start
fence       the start of a program in each kind of fence, beside a bare one
acp         start, memory and CPU of the program that speaks ACP, beside bare Python
git         snapshot and checkpoint in a repository of 50,000 files beside one `git status`

What grows in thousands of iterations with faults: python -m benchmarks.soak"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks import acp as bench_acp
from benchmarks import board as bench_board
from benchmarks import fence as bench_fence
from benchmarks import git as bench_git
from benchmarks import host as bench_host
from benchmarks import lanes as bench_lanes
from benchmarks import page as bench_page
from benchmarks import prompt as bench_prompt
from benchmarks import read as bench_read
from benchmarks import scale as bench_scale
from benchmarks import told as bench_told

AGENT = """#!/bin/sh
echo '{"summary":"s","next_goal":"g","stop":false,"reason":"r","evidence":[],"completed":false}'
"""
SLEEPER = "#!/bin/sh\nexec sleep 600\n"
GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


def workspace(root: Path) -> Path:
    """A small repository with an agent that does nothing."""
    root.mkdir()
    (root / "plan.md").write_text("# Plan\n\n- [ ] nothing\n")
    agent = root / "agent.sh"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.invalid"]
    for args in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "start"]):
        subprocess.run(["git", *args], cwd=root, check=True, env={**os.environ, **GIT})
    return root


def ours(root: Path, iterations: int) -> float:
    """Milliseconds per iteration of our loop, start-up of the program not counted (read from the
    journal)."""
    flags = [
        f"--max-iterations={iterations}", "--max-stagnation=0", "--no-change-gate=0",
        "--agent-command-template=./agent.sh {prompt_file}", "--log-level=error",
    ]  # fmt: skip
    program = [sys.executable, "-m", "codex_self_iter", "--workspace", str(root), *flags]
    subprocess.run(program, check=True, env={**os.environ, **GIT}, stdin=subprocess.DEVNULL)
    lines = (root / ".codex-self-iter/logs/iterations.jsonl").read_text().splitlines()[-iterations:]
    from datetime import datetime

    stamps = [datetime.fromisoformat(json.loads(line)["ts"]).timestamp() for line in lines]
    return 1000 * (stamps[-1] - stamps[0]) / (len(stamps) - 1)


def bare(root: Path, iterations: int) -> float:
    """Milliseconds per turn of a shell loop: the same agent, one `git status`."""
    turn = "./agent.sh plan.md >/dev/null; git status --porcelain >/dev/null"
    script = f"i=0; while [ $i -lt {iterations} ]; do {turn}; i=$((i+1)); done"
    began = time.perf_counter()
    subprocess.run(["/bin/sh", "-c", script], cwd=root, check=True, env={**os.environ, **GIT})
    return 1000 * (time.perf_counter() - began) / iterations


def interleaved(rounds: int, *measures: Callable[[], float]) -> list[float]:
    """Medians of measures taken in turn, so that a busy moment hits all of them."""
    rows = [[measure() for measure in measures] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def overhead(root: Path) -> None:
    """Print the cost of one iteration beside a bare loop."""
    mine, other = workspace(root / "ours"), workspace(root / "bare")
    us, them = interleaved(5, lambda: ours(mine, 40), lambda: bare(other, 40))
    print(
        f"overhead: ours {us:.1f} ms, bare {them:.1f} ms an iteration, "
        f"ratio {us / them:.2f} (aim: at most 3.0)"
    )


def journal(root: Path) -> None:
    """Print the cost of an iteration with a long journal beside an empty one."""
    short, long = workspace(root / "short"), workspace(root / "long")
    ours(short, 2), ours(long, 2)
    path = long / ".codex-self-iter/logs/iterations.jsonl"
    last = path.read_text().splitlines()[-1]
    path.write_text((last + "\n") * 100_000)
    us, them = interleaved(5, lambda: ours(long, 40), lambda: ours(short, 40))
    print(
        f"journal: {us:.1f} ms with 100,000 lines, {them:.1f} ms with few, ratio "
        f"{us / them:.2f} (aim: below 1.1)"
    )


def bare_python() -> float:
    """Milliseconds that an interpreter takes to do nothing."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return 1000 * (time.perf_counter() - began)


def status(root: Path) -> None:
    """Print how long `status` takes from start to end."""
    mine = workspace(root / "ours")
    ours(mine, 2)

    def once() -> float:
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "codex_self_iter", "status", "--workspace", str(mine)],
            check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return 1000 * (time.perf_counter() - began)

    us, them = interleaved(15, once, bare_python)
    print(f"status: {us:.0f} ms, bare Python {them:.0f} ms (aim: at most 40 ms)")


def start(root: Path) -> None:
    """Print how long it takes from `run "…"` to the agent's exec, in a repository with tests."""
    mine = workspace(root / "ours")
    (mine / "plan.md").unlink()
    (mine / "test_a.py").write_text("import unittest\n")
    (mine / "agent.sh").write_text("#!/bin/sh\ndate +%s.%N >started\n" + AGENT.partition("\n")[2])
    template = {"CODEX_SELF_ITER_AGENT_COMMAND_TEMPLATE": f"'{mine}/agent.sh' {{prompt_file}}"}

    def once() -> float:
        shutil.rmtree(mine / ".codex-self-iter", ignore_errors=True)
        began = time.time()
        subprocess.run(
            [sys.executable, "-m", "codex_self_iter", "run", "Do something", "--once"], check=True,
            cwd=mine, env={**os.environ, **GIT, **template}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return 1000 * (float((mine / "started").read_text()) - began)

    def additions() -> float:
        began = time.perf_counter()
        total = 0
        for number in range(10_000_000):
            total += number
        return 1000 * (time.perf_counter() - began)

    us, python, speed = interleaved(5, once, bare_python, additions)
    print(
        f"start: {us:.0f} ms, bare Python {python:.0f} ms, ten million additions {speed:.0f} ms "
        "(aim: at most 600 ms)"
    )


def stop_file(root: Path, rounds: int = 15) -> None:
    """Print how long the program takes from its STOP file to its end; the runs' ages differ, so that
    the file falls into every part of the supervisor's rhythms."""
    took = []
    for number in range(rounds):
        mine = workspace(root / str(number))
        (mine / "agent.sh").write_text(SLEEPER)
        program = [
            sys.executable, "-m", "codex_self_iter", "--workspace", str(mine),
            "--agent-command-template=./agent.sh {prompt_file}", "--log-level=error",
        ]  # fmt: skip
        with subprocess.Popen(
            program, env={**os.environ, **GIT}, stdin=subprocess.DEVNULL
        ) as process:
            bench_scale.until(lambda w=mine: bench_scale.state(w) == "running", 60.0)
            time.sleep(1.0 + 0.37 * number % 1.0)
            began = time.perf_counter()
            (mine / ".codex-self-iter/STOP").touch()
            process.wait(60)
            took.append(1000 * (time.perf_counter() - began))
    print(
        f"stop_file: {statistics.median(took):.0f} ms, {min(took):.0f} to {max(took):.0f} "
        "(aim: at most 120 ms)"
    )


def idle(root: Path, seconds: float = 20.0) -> None:
    """Print CPU and memory of a supervisor that waits."""
    for name, script, state in (
        ("in a cooldown", AGENT, "cooldown"),
        ("agent asleep", SLEEPER, "running"),
    ):
        mine = workspace(root / state)
        (mine / "agent.sh").write_text(script)
        program = [
            sys.executable, "-m", "codex_self_iter", "--workspace", str(mine),
            "--no-change-backoff-sec=600",
            "--agent-command-template=./agent.sh {prompt_file}", "--log-level=error",
        ]  # fmt: skip
        with subprocess.Popen(
            program, env={**os.environ, **GIT}, stdin=subprocess.DEVNULL
        ) as process:
            bench_scale.until(lambda w=mine, s=state: bench_scale.state(w) == s, 60.0)
            time.sleep(35.0 if state == "running" else 5.0)  # until the monitor is in its long run
            us = psutil.Process(process.pid)
            before = sum(us.cpu_times()[:2])
            time.sleep(seconds)
            used, memory = sum(us.cpu_times()[:2]) - before, us.memory_info().rss / 2**20
            process.terminate()
        print(
            f"idle, {name}: {1000 * used / seconds:.1f} ms CPU/s (aim: at most 2.0), "
            f"{memory:.0f} MiB (aim: at most 45)"
        )


def figures(name: str) -> Callable[[Path], None]:
    """A measure of the process host alone, printed as it comes."""

    def show(_root: Path) -> None:
        values = bench_host.BENCHMARKS[name]()
        print(f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in values.items()))

    return show


MEASURES: dict[str, Callable[[Path], None]] = {
    "overhead": overhead,
    "journal": journal,
    "status": status,
    "start": start,
    "stop": figures("stop"),
    "stop_file": stop_file,
    "idle": idle,
    "flood": figures("flood"),
    "poll": figures("poll"),
    "scale": lambda _root: bench_scale.scale(),
    "lanes": bench_lanes.main,
    "git": lambda _root: bench_git.run(),
    "board": bench_board.board,
    "page": lambda _root: bench_page.page(),
    "prompt": lambda _root: bench_prompt.show(),
    "read": bench_read.show,
    "told": bench_told.show,
    "fence": lambda _root: bench_fence.run(),
    "acp": lambda _root: bench_acp.run(),
}


def main() -> int:
    """Run the named measures, all by default."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measures", nargs="*", choices=[*MEASURES, []], default=[])
    # An installed program has its byte code: start-up, and what imports leave behind, cost less.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for name in parser.parse_args().measures or MEASURES:
        root = Path(tempfile.mkdtemp(prefix="bench-"))
        try:
            MEASURES[name](root)
        finally:
            shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
