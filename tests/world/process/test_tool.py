"""Helper commands: bounded in time and memory, and nothing of them stays."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import pytest

from codex_self_iter.world.process import bare
from codex_self_iter.world.process.tool import run_tool
from tests.support.hosting import eventually, new_tag, tagged

pytestmark = pytest.mark.anyio


async def test_result_is_what_the_command_did(tmp_path: Path) -> None:
    result = await run_tool(["sh", "-c", "pwd; echo oops >&2; exit 3"], cwd=str(tmp_path))
    assert (result.exit_code, result.signal, result.ok) == (3, None, False)
    assert (result.stdout, result.stderr) == (f"{tmp_path}\n".encode(), b"oops\n")
    killed = await run_tool(["sh", "-c", "kill -9 $$"])
    assert (killed.exit_code, killed.signal) == (None, 9)


async def test_environment_is_complete_when_given() -> None:
    result = await run_tool(["/usr/bin/env"], env={"A": "b"})
    assert [
        line
        for line in result.stdout.split(b"\n")
        if not line.startswith(b"CODEX_SELF_ITER_TOOL_ID=")
    ] == [b"A=b", b""]


async def test_what_cannot_be_started_is_a_result() -> None:
    assert "no-such-tool" in (await run_tool(["no-such-tool"])).error
    assert "/no/such" in (await run_tool(["true"], cwd="/no/such")).error


async def test_input_of_any_size_is_fed_and_may_be_refused() -> None:
    data = os.urandom(3_000_000)
    assert (await run_tool(["cat"], stdin=data)).stdout == data
    assert (await run_tool(["true"], stdin=data)).ok


async def test_output_is_bounded_in_memory_and_the_command_never_blocks() -> None:
    result = await run_tool([sys.executable, "-c", "print('x' * 50_000_000)"], max_output=1000)
    assert result.ok
    assert result.stdout == b"x" * 1000
    assert result.truncated


async def test_time_out_kills_the_whole_group_deaf_or_not() -> None:
    tag = new_tag()
    result = await run_tool(
        ["bash", "-c", f"trap '' TERM; echo up; sleep {tag} & sleep {tag}"], timeout_sec=2
    )
    assert result.timed_out
    assert not result.ok
    assert result.stdout == b"up\n"
    assert eventually(lambda: not tagged(tag))


async def test_cancelling_kills_it_before_the_caller_goes_on() -> None:
    tag = new_tag()
    with anyio.move_on_after(0.5) as scope:
        await run_tool(["bash", "-c", f"trap '' TERM; sleep {tag}"])
    assert scope.cancelled_caught
    assert eventually(lambda: not tagged(tag))


async def test_a_grandchild_that_holds_the_pipe_delays_nothing_and_is_ended() -> None:
    tag = new_tag()
    with anyio.fail_after(20):
        result = await run_tool(["sh", "-c", f"sleep {tag} & echo done"])
    assert result.stdout == b"done\n"
    assert eventually(lambda: not tagged(tag))


async def test_a_daemon_that_a_command_leaves_is_ended_where_we_adopt_it() -> None:
    tag = new_tag()
    before = bare.child_subreaper(True)
    try:
        await run_tool(["sh", "-c", f"(setsid sleep {tag} >/dev/null 2>&1 &) ; sleep 0.1"])
        assert eventually(lambda: not tagged(tag))
    finally:
        bare.child_subreaper(bool(before))


async def test_without_adoption_such_a_daemon_lives_on() -> None:
    tag = new_tag()
    before = bare.child_subreaper(False)
    try:
        await run_tool(
            ["sh", "-c", f"(setsid timeout 3 sleep {tag} >/dev/null 2>&1 &) ; sleep 0.1"]
        )
        assert tagged(tag) != set()  # the negative control; it ends by itself
    finally:
        bare.child_subreaper(bool(before))
    assert eventually(lambda: not tagged(tag))


async def test_many_at_once_all_report_their_own_code_and_leak_nothing() -> None:
    await run_tool(["true"])
    before = len(os.listdir("/proc/self/fd"))
    codes: dict[int, int | None] = {}

    async def one(number: int) -> None:
        codes[number] = (await run_tool(["sh", "-c", f"exit {number}"])).exit_code

    async with anyio.create_task_group() as group:
        for number in range(60):
            group.start_soon(one, number)
    assert codes == {number: number for number in range(60)}
    assert len(os.listdir("/proc/self/fd")) == before
