"""The board with 100 loops, as a real process on a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import statistics
import struct
import sys
import termios
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from codex_self_iter.core.text import iso
from tests.support.shown_loops import cases, on_disk

LOOPS = 100
SIZE = (40, 120)
"""Lines and columns."""


def quiet(fd: int, seconds: float, most: float = 60.0) -> int:
    """Read until nothing has come for so long; the bytes that came."""
    read, end = 0, time.monotonic() + most
    while time.monotonic() < end:
        ready, _, _ = select.select([fd], [], [], seconds)
        if not ready:
            break
        read += len(os.read(fd, 65536))
    return read


def heartbeats(places: list[Path]) -> None:
    """What living supervisors do every five seconds."""
    for place in places:
        text = place.read_text()
        at = text.index('"updated_at":"') + len('"updated_at":"')
        place.write_text(text[:at] + iso(time.time()) + text[at + 24 :])


def board(root: Path, seconds: float = 30.0) -> None:
    """Print idle CPU, memory, and how long a key takes to the screen."""
    os.environ["XDG_STATE_HOME"] = str(root / "state")
    every = [case for case in cases(time.time()).values() if case.status and not case.orphan]
    with ExitStack() as stack:
        targets = [
            stack.enter_context(on_disk(root, f"loop-{n}", every[n % len(every)]))
            for n in range(LOOPS)
        ]
        alive = [
            Path(target.state_dir, "status.json")
            for n, target in enumerate(targets)
            if every[n % len(every)].alive
        ]
        pid, fd = pty.fork()
        if not pid:
            os.environ["TERM"] = "xterm-256color"
            os.execv(sys.executable, [sys.executable, "-m", "codex_self_iter", "top"])
        try:
            fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
            assert quiet(fd, 3.0)
            us = psutil.Process(pid)
            took = []
            for number in range(40):
                began = time.perf_counter()
                os.write(fd, b"j" if number % 8 < 6 else b"k")
                select.select([fd], [], [], 5.0)
                took.append(1000 * (time.perf_counter() - began))
                quiet(fd, 0.3)
            heartbeats(alive)
            quiet(fd, 2.0)
            used, drawn, end = sum(us.cpu_times()[:2]), 0, time.monotonic() + seconds
            while time.monotonic() < end:
                drawn += quiet(fd, 1.0, 5.0)
                time.sleep(max(0.0, min(4.0, end - time.monotonic())))
                heartbeats(alive)
            used = sum(us.cpu_times()[:2]) - used
            print(
                f"board: {LOOPS} loops, {len(alive)} with a heartbeat: "
                f"{1000 * used / seconds:.1f} ms CPU/s (aim: at most 10), "
                f"{us.memory_info().rss / 2**20:.0f} MiB (aim: at most 70), a key on the screen "
                f"after {statistics.median(took):.0f} ms, {max(took):.0f} at most (aim: 50); "
                f"{drawn} bytes drawn while idle"
            )
        finally:
            os.write(fd, b"q")
            os.waitpid(pid, 0)
            os.close(fd)
