"""The scripted world itself: time that jumps, agents that outlive hosts, threads that hold time
still."""

from __future__ import annotations

import os
import time
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from codex_self_iter.core.runs import EndCause, RunLimits, RunSpec
from codex_self_iter.testing import (
    Performance,
    ScriptedHost,
    ScriptedMachine,
    ScriptedWorkTree,
    VirtualClock,
    answer,
    run_virtual,
)


def spec(tmp_path: Path, run_id: str = "r1", **limits: float) -> RunSpec:
    return RunSpec(
        run_id, ("agent",), str(tmp_path), {}, str(tmp_path / run_id), str(tmp_path / "lock"),
        limits=RunLimits(**limits),
    )  # fmt: skip


def test_a_hundred_days_take_no_time_and_events_keep_their_order() -> None:
    async def main() -> None:
        seen: list[str] = []

        async def after(seconds: float, name: str) -> None:
            await anyio.sleep(seconds)
            seen.append(name)

        async with anyio.create_task_group() as tasks:
            for seconds, name in ((8_640_000.0, "c"), (1.0, "a"), (86_400.0, "b")):
                tasks.start_soon(after, seconds, name)
        assert seen == ["a", "b", "c"]
        assert anyio.current_time() == pytest.approx(8_640_000.0)

    begun = time.monotonic()
    run_virtual(main)
    assert time.monotonic() - begun < 30.0


@pytest.mark.timeout(30)
def test_timers_come_after_half_a_year_and_more() -> None:
    """From 2**24 seconds on neighbouring numbers are more than asyncio's nanosecond apart."""

    async def main() -> None:
        for days in (1, 195, 365, 3650):
            await anyio.sleep(days * 86_400.0 - anyio.current_time())
            for part in range(3, 100):
                before = anyio.current_time()
                await anyio.sleep(1 / part)
                assert anyio.current_time() - before == pytest.approx(1 / part, abs=1e-5)

    run_virtual(main)


def test_time_stands_still_while_a_thread_works() -> None:
    async def main() -> None:
        clock = VirtualClock()
        with anyio.move_on_after(3600.0) as scope:
            await anyio.to_thread.run_sync(time.sleep, 0.2)
        assert not scope.cancelled_caught
        assert clock.awake() < 1.0

    run_virtual(main)


def test_a_loop_in_which_nothing_can_happen_any_more_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("codex_self_iter.testing.clock.STUCK_SEC", 0.1)

    async def main() -> None:
        await anyio.Event().wait()

    with pytest.raises(RuntimeError, match="nothing is left to wait for"):
        run_virtual(main)


def test_the_three_clocks_of_a_suspend_a_step_and_a_reboot() -> None:
    async def main() -> None:
        clock = VirtualClock(wall=1000.0)
        first, up = clock.boot_id, clock.monotonic()
        await anyio.sleep(10.0)
        clock.suspend(100.0)
        assert (clock.monotonic() - up, clock.boottime() - up, clock.wall()) == (
            10.0,
            110.0,
            1110.0,
        )
        clock.step_wall(-500.0)
        assert (clock.wall(), clock.true_wall(), clock.boottime() - up) == (610.0, 1110.0, 110.0)
        clock.reboot()
        assert clock.boot_id != first
        assert clock.boottime() == clock.monotonic() == up
        assert clock.wall() == 610.0

    run_virtual(main)


def test_an_agent_outlives_a_dead_host_and_is_adopted_with_its_own_end(tmp_path: Path) -> None:
    async def main() -> None:
        machine = ScriptedMachine(VirtualClock(), lambda _spec: Performance(100.0, answer("x")))
        host, one = ScriptedHost(machine), spec(tmp_path)
        run = await host.start(one)
        await anyio.sleep(30.0)
        host.die()
        await run.end()
        await host.aclose()
        assert len(machine.alive(str(tmp_path))) == 1
        adopted = await ScriptedHost(machine).adopt(one, run.identity)
        assert adopted is not None
        outcome = await adopted.wait()
        assert (outcome.cause, outcome.duration_sec, machine.clock.awake()) == (
            EndCause.EXIT,
            100.0,
            100.0,
        )
        assert (tmp_path / "r1" / "stdout.log").read_text() == answer("x")
        assert os.stat(tmp_path / "r1" / "stdout.log").st_mode & 0o777 == 0o600

    run_virtual(main)


def test_limits_requests_and_deafness(tmp_path: Path) -> None:
    async def main() -> None:
        parts = {
            "hang": Performance(hangs_after=5.0),
            "long": Performance(1e9),
            "deaf": Performance(1e9, deaf=True),
            "none": Performance(spawn_error="no such program"),
        }
        machine = ScriptedMachine(VirtualClock(), lambda one: parts[one.run_id])
        host = ScriptedHost(machine)

        async def end(name: str, **limits: float) -> tuple[EndCause, float]:
            run = await host.start(spec(tmp_path / name, name, **limits))
            outcome = await run.wait() if limits else await run.end(grace_sec=7.0)
            return outcome.cause, outcome.duration_sec

        assert await end("hang", idle_sec=60.0) == (EndCause.IDLE_TIMEOUT, 65.0)
        assert await end("long", wall_sec=90.0) == (EndCause.WALL_TIMEOUT, 90.0)
        assert await end("deaf") == (EndCause.REQUEST, 7.0)
        assert await end("none") == (EndCause.SPAWN_FAILED, 0.0)

    run_virtual(main)


def test_two_agents_in_one_workspace_are_noticed(tmp_path: Path) -> None:
    async def main() -> None:
        machine = ScriptedMachine(VirtualClock(), lambda _spec: Performance(10.0))
        host = ScriptedHost(machine)
        await host.start(spec(tmp_path, "one"))
        await host.start(spec(tmp_path, "two"))
        assert machine.overlaps == [("one", "two")]

    run_virtual(main)


def test_the_work_tree_shows_what_agents_changed_and_a_reboot_leaves_no_exit_status(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        machine = ScriptedMachine(
            VirtualClock(), lambda one: Performance(10.0, changes=one.run_id != "idle")
        )
        host, tree = ScriptedHost(machine), ScriptedWorkTree(machine, str(tmp_path))
        looks = [await tree.snapshot(None)]
        for name in ("idle", "busy"):
            await (await host.start(spec(tmp_path, name))).wait()
            looks.append(await tree.snapshot(None))
        assert looks[0] == looks[1] != looks[2]
        run = await host.start(spec(tmp_path, "lost"))
        machine.reboot()
        assert (await run.wait()).cause is EndCause.LOST

    run_virtual(main)
