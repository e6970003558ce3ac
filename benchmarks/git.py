"""What a snapshot and a checkpoint cost in a big repository, beside one `git status`. Interleaved;
medians.

    python -m benchmarks.git [--files 50000] [--dirty 20] [--rounds 15]

Aim: snapshot below 1.2 x `git status`."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from codex_self_iter.world.git.checkpoints import Checkpoints
from codex_self_iter.world.git.run import Git
from codex_self_iter.world.git.worktree import GitWorkTree
from codex_self_iter.world.process.tool import run_tool


def build(root: Path, files: int) -> None:
    """A repository with `files` files of some 300 bytes, 100 a directory."""
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=root, check=True)
    for number in range(files):
        place = root / f"d{number // 10000}" / f"d{number // 100 % 100:02}"
        if number % 100 == 0:
            place.mkdir(parents=True, exist_ok=True)
        (place / f"file{number % 100:02}.py").write_text(f"# {number}\n" + "value = 1\n" * 30)
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    subprocess.run(["git", *identity, "commit", "-qm", "all"], cwd=root, check=True)


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    await call()
    return (time.perf_counter() - start) * 1000


async def measure(root: Path, dirty: int, rounds: int) -> None:
    """Print the table."""
    state = root / ".codex-self-iter"
    state.mkdir()
    (state / ".gitignore").write_text("*\n")
    tree = GitWorkTree(str(root), str(state), run_tool)
    points = Checkpoints(Git(run_tool, str(root)), str(state))
    await tree.snapshot(None)
    times: dict[str, list[float]] = {"git status": [], "snapshot": [], "checkpoint": []}
    status = (
        "git",
        "--no-optional-locks",
        "status",
        "--porcelain=v2",
        "-z",
        "--untracked-files=all",
    )
    for number in range(rounds):
        for extra in range(dirty):
            (root / "d0/d00" / f"file{extra % 100:02}.py").write_text(f"# edit {number} {extra}\n")
        (root / "untracked.txt").write_text(str(number))
        sides = [
            ("git status", lambda: run_tool(status, cwd=str(root))),
            ("snapshot", lambda: tree.snapshot(None)),
        ]
        for name, call in sides if number % 2 else sides[::-1]:
            times[name].append(await timed(call))
        snapshot = await tree.snapshot(None)
        times["checkpoint"].append(
            await timed(lambda n=number, s=snapshot: points.save(n, snapshot=s))
        )
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:12} {median:8.1f} ms   {median / medians['git status']:5.2f} x git status")


def run(files: int = 50_000, dirty: int = 20, rounds: int = 15) -> None:
    """Build, measure, remove."""
    os.environ.update(GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "repository"
        root.mkdir()
        build(root, files)
        print(f"git: {files} files, {dirty} edited in each of {rounds} rounds")
        asyncio.run(measure(root, dirty, rounds))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--dirty", type=int, default=20, help="tracked files edited in every round")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    run(args.files, args.dirty, args.rounds)


if __name__ == "__main__":
    main()
