"""Short helper commands such as git, for the event loop: see world/bounded.py.

Each runs in a worker thread. Besides its group, what it left as a daemon is ended if this process
adopts it; cancelling ends it before the caller goes on."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Mapping, Sequence

import anyio
import anyio.lowlevel

from codex_self_iter.world import threads
from codex_self_iter.world.bounded import MAX_OUTPUT, ShortCommand, ToolResult
from codex_self_iter.world.process import bare, kill, proctable

_MARKER = "CODEX_SELF_ITER_TOOL_ID"
_counter = itertools.count(1)


async def run_tool(
    argv: Sequence[str],
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout_sec: float = 60.0,
    max_output: int = MAX_OUTPUT,
    stdin: bytes | None = None,
) -> ToolResult:
    """Run one command to its end; never raises for what the command does.

    `env` is the complete environment (default: ours). Cancelling kills the command and waits until
    it is gone."""
    tool = _Tool(argv, cwd, env, timeout_sec, max_output, stdin)
    async with anyio.create_task_group() as group:
        group.start_soon(tool.hear_of_cancelling)
        result = await threads.run_sync(tool.result)
        group.cancel_scope.cancel()
    await anyio.lowlevel.checkpoint_if_cancelled()
    return result


class ChildCommand(ShortCommand):
    """A command that the reaper of this process knows: it is not taken for what a run has left."""

    def start(self) -> subprocess.Popen[bytes]:
        with kill.children.spawning() as register:
            process = super().start()
            register(process.pid)
        return process

    def collect(self, process: subprocess.Popen[bytes]) -> None:
        super().collect(process)
        kill.children.forget(process.pid)


class _Tool(ChildCommand):
    """One that is marked so that its daemons are found."""

    async def hear_of_cancelling(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled = True

    def result(self) -> ToolResult:
        self.tool_id = f"{os.getpid()}-{next(_counter)}"
        self.env = {**(os.environ if self.env is None else self.env), _MARKER: self.tool_id}
        try:
            return self.run()
        except (OSError, ValueError) as error:
            return ToolResult(None, error=f"cannot start {self.argv[0]!r}: {error}")

    def collect(self, process: subprocess.Popen[bytes]) -> None:
        """Daemons that the command left became our children, if we are a subreaper: end those with
        its marker, too."""
        super().collect(process)
        if any(
            proctable.has_marker(pid, self.tool_id, variable=_MARKER)
            for pid in bare.children_of(os.getpid())
        ):
            kill.exterminate(lambda table: proctable.marked(table, self.tool_id, variable=_MARKER))
