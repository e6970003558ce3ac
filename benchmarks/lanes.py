"""Lanes: three items at once beside one agent alone, a landing beside one `git status`, the start of a
lane beside `git worktree add`."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.git import build

GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "bench", "GIT_AUTHOR_EMAIL": "bench@example.invalid",
    "GIT_COMMITTER_NAME": "bench", "GIT_COMMITTER_EMAIL": "bench@example.invalid",
}  # fmt: skip
AGENT = """#!/bin/sh
sleep {seconds}
echo done > "done.$CODEX_SELF_ITER_LANE"
echo '{{"summary":"s","next_goal":"","stop":false,"reason":"","evidence":[],"completed":true}}'
"""


def planned(root: Path, items: int, seconds: float, chain: int = 0) -> None:
    """Give a repository a plan, committed, and an agent beside it. `chain`: so many items more, each
    of which comes after the one before."""
    lines = [f"- [ ] item {n}\n" for n in range(items)]
    for n in range(items, items + chain):
        after = ", ".join(map(str, range(1, n + 1)))
        lines.append(f"- [ ] item {n} (after: {after})\n")
    (root / "plan.md").write_text("# Plan\n\n" + "".join(lines))
    git(root, "add", "plan.md")
    git(root, "commit", "-q", "-m", "the plan")
    agent = root.parent / "agent.sh"
    agent.write_text(AGENT.format(seconds=seconds))
    agent.chmod(0o755)
    (root.parent / "lanes.toml").write_text(
        f"agent_command_template = {json.dumps(f'{agent} {{prompt_file}}')}\n"
        f'[log]\nlevel = "info"\n[lanes]\ndirectory = {json.dumps(str(root.parent / "trees"))}\n'
        '[verify]\ncommands = ["true"]\n'
    )


def git(root: Path, *args: str) -> float:
    """Run git; seconds that it took."""
    began = time.perf_counter()
    subprocess.run(
        ["git", *args], cwd=root, check=True, env={**os.environ, **GIT},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - began


def run(root: Path, lanes: int) -> float:
    """Run all lanes to their end; seconds."""
    argv = [
        sys.executable,
        "-m",
        "codex_self_iter",
        "--workspace",
        str(root),
        "--lanes",
        str(lanes),
    ]
    environment = {**os.environ, **GIT, "XDG_STATE_HOME": str(root.parent / "home")}
    began = time.perf_counter()
    subprocess.run(
        [*argv, "--config", str(root.parent / "lanes.toml")],
        check=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - began


def told(state_dir: Path) -> list[dict[str, Any]]:
    """The log; `at`: Unix seconds."""
    log = (state_dir / "logs/supervisor.log").read_text()
    read = [json.loads(line) for line in log.splitlines()]
    return [{**one, "at": datetime.fromisoformat(one["timestamp"]).timestamp()} for one in read]


def between(found: list[dict[str, Any]], first: str, last: str) -> list[float]:
    """Seconds from each event to the next one of the other kind."""
    times, since = [], 0.0
    for one in found:
        if one["event"] == first:
            since = one["at"]
        elif one["event"] == last and since:
            times.append(one["at"] - since)
            since = 0.0
    return times


def main(scratch: Path, seconds: float = 30.0, files: int = 50_000) -> None:
    """Print the figures."""
    small, big = scratch / "small" / "app", scratch / "big" / "app"
    for root, count in ((small, 100), (big, files)):
        root.mkdir(parents=True)
        build(root, count)
    planned(small, 3, seconds)
    wall = run(small, 3)
    print(f"three items of {seconds:g} s each on three lanes: {wall:.1f} s, {wall / seconds:.2f} x")

    beside, alone = 4, 4
    planned(big, beside, 0.0, alone)
    adds, tree = [], scratch / "big" / "tree"
    for _ in range(3):
        adds.append(git(big, "worktree", "add", "--detach", str(tree)))
        git(big, "worktree", "remove", "--force", str(tree))
    run(big, 2)
    status = statistics.median(git(big, "status", "--porcelain") for _ in range(9))
    state = big / ".codex-self-iter"
    found = told(state)
    landings = between(found, "landing.started", "lane.landed")
    own = [told(state / "lanes" / str(n + 1) / "state") for n in range(beside + 1, beside + alone)]
    gate = statistics.median(
        sec for one in own for sec in between(one, "loop.verifying", "gate.passed")
    )
    busy = statistics.median(landings[1:beside])
    warm = statistics.median(landings[-alone + 1 :])
    print(
        f"{files} files: a landing {1000 * warm:.0f} ms, of which a gate that does nothing "
        f"{1000 * gate:.0f} ms; git status {1000 * status:.0f} ms; "
        f"without the gate {(warm - gate) / status:.1f} x; "
        f"while other work trees are made {1000 * busy:.0f} ms"
    )
    made = [float(one["seconds"]) for one in found if one["event"] == "lane.made"]
    start, add = statistics.median(made[-alone:]), statistics.median(adds)
    print(
        f"{files} files: a lane's start {start:.2f} s, git worktree add {add:.2f} s, {start / add:.2f} x"
    )
