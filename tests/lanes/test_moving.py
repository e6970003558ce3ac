"""What moves the target, and what looks whether it can follow, take turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from codex_self_iter.lanes.yard import Yard
from codex_self_iter.world.bounded import ToolResult
from codex_self_iter.world.git.run import Git
from codex_self_iter.world.process.tool import run_tool
from tests.support.git_repo import Repo, isolate

MAIN = "refs/heads/main"


@pytest.mark.anyio
async def test_a_landing_waits_for_a_look_whether_the_target_can_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would say that another landing is at work."""
    isolate(monkeypatch)
    repo = Repo(tmp_path / "work tree")
    old = repo.head()
    repo.write("new.txt", "new\n")
    new = repo.commit("new")
    repo.git("reset", "-q", "--hard", old)
    locked, on = anyio.Event(), anyio.Event()

    async def slow(argv: Sequence[str], **rest: Any) -> ToolResult:
        if "read-tree" in argv:
            locked.set()
            await on.wait()
        return await run_tool(argv, **rest)

    nothing: Any = None
    yard = Yard(nothing, Git(slow, str(repo.path)), nothing)
    said: list[str | None] = []

    async def follow() -> None:
        said.append(await yard.follow(MAIN, old, new))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await locked.wait()
        tasks.start_soon(follow)
        while not said and not yard._moving.statistics().tasks_waiting:
            await anyio.sleep(0.01)
        on.set()
    assert said == ["", ""]
    assert repo.head() == new
