"""The live line of a foreground run: state, iteration, agent age, last output; each second."""

from __future__ import annotations

import shutil
from typing import TextIO

from codex_self_iter.core import waits
from codex_self_iter.core.report import duration
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.work import Work


def text(ctx: Context, work: Work) -> str:
    """The line's content."""
    state, sample, shared = ctx.state, work.sample(), ctx.shared
    parts = [state.state.value, f"iteration {state.iteration}"]
    run = state.open.run if state.open else None
    if run is not None and sample is not None:
        parts.append(f"{run.agent} for {duration(sample.age_sec)}")
        if sample.last_output_at is not None:
            silent = duration(shared.clock.wall() - sample.last_output_at)
            parts.append(f"last output {silent} ago")
        parts.append(f"{sample.memory_bytes / 2**20:.0f} MiB")
    elif state.wait is not None:
        parts.append(f"{duration(waits.rest(state.wait, shared.moment()))} left")
        parts.append(state.wait.reason)
    elif reason := work.waiting_for() or state.reason:
        parts.append(reason)
    return " · ".join(parts)


class LiveLine:
    """One line at the bottom of the terminal, taken away before a log line is printed."""

    def __init__(self, out: TextIO) -> None:
        """`out` must be a terminal."""
        self._out = out
        self._shown = False

    def draw(self, line: str) -> None:
        """Show the line instead of the last one."""
        width = shutil.get_terminal_size().columns - 1
        clean = "".join(char if char.isprintable() else " " for char in line)
        self._write(f"\r\x1b[2K{clean[:width]}")
        self._shown = True

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            self._write("\r\x1b[2K")
            self._shown = False

    def _write(self, data: str) -> None:
        try:
            self._out.write(data)
            self._out.flush()
        except (OSError, ValueError):
            pass
