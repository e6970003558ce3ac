"""What messages cost a loop: its own thread's time for targets that hang, targets while nothing happens,
and one that hangs while it works."""

from __future__ import annotations

import asyncio
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
from typing import Any

import anyio
import psutil

from benchmarks import scale
from codex_self_iter.settings import load
from codex_self_iter.supervisor.options import RunOptions
from codex_self_iter.supervisor.supervisor import Supervisor
from codex_self_iter.testing import SilentLog

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
TARGETS, BESIDE_SEC = 5, 5.0


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


class Meter:
    """What this thread's event loop spends on messages: CPU time in ms of each step that one of their
    tasks takes. Others' load on the machine is not in it.

    While such a step runs the loop does nothing else, and at no other time is it held up by a message:
    the programs that send are started and heard in threads."""

    TASKS = ("courier", "notify", "hear_of_cancelling")

    def __init__(self) -> None:
        self.steps: list[float] = []

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """For as long as the block lasts."""
        run = asyncio.Handle._run

        def measured(handle: asyncio.Handle) -> None:
            task = getattr(handle._callback, "__self__", None)
            name = task.get_name() if isinstance(task, asyncio.Task) else ""
            begun = time.thread_time()
            run(handle)
            if any(one in name for one in self.TASKS):
                self.steps.append(1000 * (time.thread_time() - begun))

        asyncio.Handle._run = measured
        try:
            yield
        finally:
            asyncio.Handle._run = run


def own_time(root: Path) -> tuple[list[float], int]:
    """The steps of a loop's own thread for a message to each of five targets that hang, and how many
    iterations it did meanwhile."""
    meter, servers = Meter(), [Hanging() for _ in range(TARGETS)]
    urls = json.dumps([f"json://127.0.0.1:{server.port}/" for server in servers])
    mine = workspace(
        root, f'{BUDGET}[notify]\nevents = ["budget"]\nurls = {urls}\n', no_change_gate=0
    )
    directory = mine / ".codex-self-iter"
    os.environ["XDG_STATE_HOME"] = str(root / "home")
    given = load({"workspace": str(mine)}, config_file=None, environ=os.environ, cwd=str(mine))
    log: Any = SilentLog()
    done = 0

    async def stop() -> None:
        nonlocal done
        while not all(server.at for server in servers):  # noqa: ASYNC110 - they are threads
            await anyio.sleep(0.1)
        before = len((directory / "logs/iterations.jsonl").read_text().splitlines())
        await anyio.sleep(BESIDE_SEC)
        done = len((directory / "logs/iterations.jsonl").read_text().splitlines()) - before
        for server in servers:
            server.close()
        (directory / "STOP").touch()

    async def main() -> None:
        supervisor = Supervisor([given], log, lambda: ([given], []), RunOptions())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop, name="the end")
            with meter.measuring():
                await supervisor.run()

    anyio.run(main)
    return meter.steps, done


def show(root: Path) -> None:
    """Print all."""
    steps, done = own_time(root / "own")
    print(
        f"told, {TARGETS} targets that hang: {sum(steps) / TARGETS:.2f} ms of the loop's own thread a message, "
        f"in {len(steps) / TARGETS:.0f} steps of {max(steps):.2f} ms at most (aim: at most 1); "
        f"{done} iterations in {BESIDE_SEC:g} s of it"
    )
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
