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


def planned(root: Path, items: int, seconds: float) -> None:
    """Give a repository a plan, committed, and an agent beside it."""
    (root / "plan.md").write_text("# Plan\n\n" + "".join(f"- [ ] item {n}\n" for n in range(items)))
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


def events(root: Path) -> list[tuple[str, str, float]]:
    """The journal of lanes: event, lane, Unix seconds."""
    lines = (root / ".codex-self-iter/logs/lanes.jsonl").read_text().splitlines()
    read = [json.loads(line) for line in lines]
    return [
        (one["event"], one["lane"], datetime.fromisoformat(one["ts"]).timestamp()) for one in read
    ]


def main(scratch: Path, seconds: float = 30.0, files: int = 50_000) -> None:
    """Print the figures."""
    small, big = scratch / "small" / "app", scratch / "big" / "app"
    for root, count in ((small, 100), (big, files)):
        root.mkdir(parents=True)
        build(root, count)
    planned(small, 3, seconds)
    wall = run(small, 3)
    print(f"three items of {seconds:g} s each on three lanes: {wall:.1f} s, {wall / seconds:.2f} x")

    planned(big, 4, 0.0)
    status = statistics.median(git(big, "status", "--porcelain") for _ in range(5))
    tree = scratch / "big" / "tree"
    adds = []
    for _ in range(3):
        adds.append(git(big, "worktree", "add", "--detach", str(tree)))
        git(big, "worktree", "remove", "--force", str(tree))
    run(big, 2)
    found = events(big)
    ready = {lane: at for event, lane, at in found if event == "ready"}
    landed = [(at - ready[lane]) for event, lane, at in found if event == "landed"]
    warm = statistics.median(landed[1:])
    print(
        f"{files} files: landing {1000 * warm:.0f} ms (the first, with a work tree to be made, "
        f"{1000 * landed[0]:.0f} ms), git status {1000 * status:.0f} ms, {warm / status:.1f} x"
    )
    log = (big / ".codex-self-iter/logs/supervisor.log").read_text()
    made = [
        float(one["seconds"])
        for one in map(json.loads, log.splitlines())
        if one["event"] == "lane.made"
    ]
    start, add = statistics.median(made), statistics.median(adds)
    print(
        f"{files} files: a lane's start {start:.2f} s, git worktree add {add:.2f} s, {start / add:.2f} x"
    )
