"""What messages cost a loop: targets while nothing happens, and one that hangs while it works."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import psutil

from benchmarks import scale

AGENT = """#!/bin/sh
echo '{"summary":"s","next_goal":"g","stop":false,"reason":"r","evidence":[],"completed":false}'
"""
FIVE = """[notify]
command = ["true"]
digest_at = "08:00"
urls = ["json://127.0.0.1:9/", "ntfy://127.0.0.1:9/topic", "tgram://123456789:AAEhBOweik6ad6PsVMRxjeQ/1",
        "mailto://127.0.0.1:9?from=a@example.org&to=b@example.org"]
"""
BUDGET = "[budget]\nmax_hours = 1000\nnotice_at = 0.0000000001\n"
IDLE_SEC, ROUNDS, ITERATIONS = 30.0, 3, 250


def workspace(root: Path, tables: str, **keys: object) -> Path:
    """One without git, and its configuration."""
    root.mkdir(parents=True)
    (root / "plan.md").write_text("# Plan\n\n- [ ] nothing\n")
    agent = root / "agent.sh"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    keys = {"agent_command_template": "./agent.sh {prompt_file}", "max_stagnation": 0, **keys}
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    text = "\n".join([*lines, '[log]\nlevel = "error"', tables])
    (root / "codex-self-iter.toml").write_text(text)
    return root


@contextlib.contextmanager
def supervisor(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor of that workspace, until it is no longer needed."""
    argv = [sys.executable, "-m", "codex_self_iter", "--workspace", str(root)]
    environment = {**os.environ, "XDG_STATE_HOME": str(root / "home")}
    null = subprocess.DEVNULL
    with subprocess.Popen(argv, env=environment, stdin=null, stdout=null) as process:
        try:
            yield process
        finally:
            process.terminate()


def idle(root: Path) -> tuple[list[float], list[float]]:
    """CPU in ms a second of a loop in a cooldown, without targets and with five, at the same time."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS):
        with contextlib.ExitStack() as held:
            places = [
                workspace(root / f"{number}-{name}", tables, no_change_backoff_sec=3600)
                for name, tables in (("none", ""), ("five", FIVE))
            ]
            each = [psutil.Process(held.enter_context(supervisor(one)).pid) for one in places]
            for one in places:
                scale.until(lambda one=one: scale.state(one) == "cooldown", 60.0)
            time.sleep(8.0)  # also the digest's first look is over
            before = [sum(process.cpu_times()[:2]) for process in each]
            time.sleep(IDLE_SEC)
            for process, begun, values in zip(each, before, found, strict=True):
                values.append(1000 * (sum(process.cpu_times()[:2]) - begun) / IDLE_SEC)
    return found


class Hanging:
    """A server that takes a connection and says nothing, until it is let go."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.at, self.held = self.socket.getsockname()[1], 0.0, list[socket.socket]()
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.held.append(self.socket.accept()[0])
                self.at = self.at or time.time()

    def close(self) -> None:
        for one in (self.socket, *self.held):
            one.close()


def per_iteration(root: Path, tables: str, since: Callable[[], float]) -> float:
    """Milliseconds an iteration, of those that ended after `since` (Unix seconds; 0: not yet)."""
    mine = workspace(root, tables, no_change_gate=0)
    path = mine / ".codex-self-iter/logs/iterations.jsonl"

    def ends() -> list[float]:
        lines = path.read_text().splitlines() if path.exists() and since() else []
        stamps = (datetime.fromisoformat(json.loads(line)["ts"]).timestamp() for line in lines)
        return [at for at in stamps if at > since()]

    with supervisor(mine):
        scale.until(lambda: len(ends()) > ITERATIONS, 120.0, 0.5)
        found = ends()[: ITERATIONS + 1]
    return 1000 * (found[-1] - found[0]) / ITERATIONS


def hanging(root: Path) -> tuple[list[float], list[float]]:
    """Milliseconds an iteration without a target, and while one hangs; in turn."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS):
        begun = time.time() + 3.0
        found[0].append(per_iteration(root / f"{number}-without", BUDGET, lambda at=begun: at))
        server = Hanging()
        table = (
            f'{BUDGET}[notify]\nevents = ["budget"]\nurls = ["json://127.0.0.1:{server.port}/"]\n'
        )
        try:
            found[1].append(per_iteration(root / f"{number}-hangs", table, lambda s=server: s.at))
        finally:
            server.close()
    return found


def show(root: Path) -> None:
    """Print both."""
    none, five = map(statistics.median, idle(root / "idle"))
    print(
        f"told, idle: {five:.2f} ms CPU/s with five targets and a digest, {none:.2f} without, "
        f"ratio {five / none:.2f} (aim: 1.0)"
    )
    free, held = map(statistics.median, hanging(root / "hanging"))
    print(
        f"told, a target that hangs: {held:.2f} ms an iteration, {free:.2f} without, "
        f"{held - free:+.2f} ms (aim: at most 1)"
    )
