"""`python -m tests.support.landing_to_kill TOP OLD NEW N [EDITED]`: advance main, and die at the N-th
step. EDITED is a file that may have edits.

A step is a call of git or a piece of file work; death is SIGKILL, before the step is taken."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import anyio

from codex_self_iter.world.bounded import ToolResult
from codex_self_iter.world.git import landing
from codex_self_iter.world.git.run import Git
from codex_self_iter.world.process.tool import run_tool


def main() -> None:
    """See above. Exits 0 when it was done before the N-th step."""
    top, old, new, number, *edited = sys.argv[1:]
    steps = itertools.count()

    def step() -> None:
        if next(steps) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    class Mortal(Git):
        async def run(self, *args: str, **options: Any) -> ToolResult:
            step()
            return await super().run(*args, **options)

        async def beside(self, work: Callable[..., Any], *args: Any) -> Any:
            step()
            return await super().beside(work, *args)

    async def advance() -> None:
        git = Mortal(run_tool, top)
        result = await landing.advance(git, "refs/heads/main", old, new, "land", *edited)
        assert result.moved, result

    anyio.run(advance)


if __name__ == "__main__":
    main()
