"""Adoption, heartbeat, failing storage, stop bounds, shared limits and the pool, on virtual
time."""

from __future__ import annotations

import math
import os
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from codex_self_iter.core.runs import EndCause, RunSpec
from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor.loop import Loop
from codex_self_iter.supervisor.options import RunOptions
from codex_self_iter.supervisor.supervisor import Supervisor
from codex_self_iter.testing import (
    Performance,
    ScriptedStore,
    SilentLog,
    answer,
    run_virtual,
    scripted_shared,
)
from codex_self_iter.world.pool import Pool
from codex_self_iter.world.state.inbox import MAX_MESSAGES, Inbox, Message, write_message
from tests.support.virtual import DAY, HOUR, WORK, Life, in_turn, machine, settings, starts


@pytest.mark.parametrize("on_orphan", ["adopt", "kill"])
def test_a_killed_supervisors_agent_is_adopted_and_its_work_counts(
    tmp_path: Path, on_orphan: str
) -> None:
    async def main() -> None:
        made, given = (
            machine(in_turn(Performance(HOUR, answer("two")))),
            settings(tmp_path, on_orphan=on_orphan),
        )
        async with Life(made, given).alive():
            await anyio.sleep(1200.0)
        await anyio.sleep(60.0)
        second = Life(made, given)
        async with second.alive():
            await anyio.sleep(HOUR)
        adopted = on_orphan == "adopt"  # the negative control: without adoption the hour is lost
        assert (made.history[0].ended == pytest.approx(HOUR)) is adopted
        assert second.journal()[0]["verdict"] == ("continue" if adopted else "interrupted")
        assert made.overlaps == []

    run_virtual(main)


class BadSector(Inbox):
    """An inbox in which one file cannot be read for now."""

    bad = True

    def messages(self, room: int = MAX_MESSAGES, wall: float = math.inf) -> list[Message]:
        if self.bad:
            raise StorageError("cannot read inbox/a.md: Input/output error")
        return super().messages(room, wall)


def test_a_message_that_cannot_be_read_now_waits_and_is_said(tmp_path: Path) -> None:
    async def main() -> None:
        made = machine(lambda _spec: Performance(60.0, answer()))
        life = Life(made, settings(tmp_path))
        async with life.alive():
            ctx = life.rounds.ctx
            ctx.inbox = inbox = BadSector(ctx.store.root)
            waiting = Path(write_message(ctx.store.path, "hello"))
            await anyio.sleep(HOUR)
            assert made.history[5].ended  # it went on without
            assert any(
                "messages are not read: cannot" in text for text in life.status()["warnings"]
            )
            assert waiting.exists()
            inbox.bad = False
            await anyio.sleep(HOUR)
            assert life.status()["warnings"] == []
            assert not waiting.exists()
        assert [m["text"] for line in life.journal() for m in line["messages"]] == ["hello\n"]

    run_virtual(main)


def test_gates_of_a_killed_supervisor_never_run_beside_their_next_selves(tmp_path: Path) -> None:
    async def main() -> None:
        def script(spec: RunSpec) -> Performance:
            gate = "-gate-" in spec.run_id
            return (
                Performance(900.0)
                if gate
                else Performance(60.0, answer("", completed=True, summary="done"))
            )

        made, given = machine(script), settings(tmp_path, verify={"commands": ["make check"]})
        async with Life(made, given).alive():
            await anyio.sleep(300.0)
        second = Life(made, given)
        async with second.alive():
            await anyio.sleep(HOUR)
        assert made.overlaps == []
        assert [agent.cause for agent in made.history] == [
            EndCause.EXIT,
            EndCause.REQUEST,
            EndCause.EXIT,
        ]
        assert second.ended is not None
        assert second.ended.code == 0

    run_virtual(main)


def test_a_hung_agent_is_ended_by_the_idle_time_out(tmp_path: Path) -> None:
    async def main() -> None:
        made = machine(in_turn(Performance(hangs_after=300.0)))
        life = Life(made, settings(tmp_path, idle_timeout_sec=900))
        async with life.alive():
            await anyio.sleep(HOUR)
        assert made.history[0].ended == pytest.approx(1200.0)
        assert life.journal()[0]["verdict"] == "timed_out"

    run_virtual(main)


@pytest.mark.slow
def test_the_heart_beats_while_an_agent_works_and_while_nothing_happens(tmp_path: Path) -> None:
    async def main() -> None:
        made = machine(
            lambda _spec: Performance(500.0, stderr="usage limit reached\n", exit_code=1)
        )
        life = Life(made, settings(tmp_path), poll_sec=0.25)
        async with life.alive():
            for _ in range(100):
                await anyio.sleep(11.0)
                updated = datetime.fromisoformat(
                    life.status()["updated_at"].replace("Z", "+00:00")
                ).timestamp()
                assert made.clock.wall() - updated <= 5.0

    run_virtual(main)


@pytest.mark.slow
@pytest.mark.parametrize("at", [300.0, 599.0])
def test_storage_that_fails_for_an_hour_loses_nothing_and_starts_nothing(
    tmp_path: Path, at: float
) -> None:
    broken = [False]

    def open_store(path: str, workspace: str) -> ScriptedStore:
        store = ScriptedStore(path, workspace)

        def before(what: str) -> None:
            if broken[0] and what != "status":
                raise StorageError(f"cannot write {what}: no space left on device")

        store.before = before  # type: ignore[method-assign]
        return store

    async def main() -> None:
        made = machine(in_turn(then=Performance(600.0, answer())))
        life = Life(made, settings(tmp_path), open_store=open_store, poll_sec=2.0)
        async with life.alive():
            await anyio.sleep(at)
            broken[0] = True
            await anyio.sleep(HOUR)
            assert len(made.history) == 1
            assert life.status()["state"] == "blocked"
            assert "no space left" in life.status()["reason"]
            broken[0] = False
            await anyio.sleep(HOUR)
        assert starts(made)[1] == pytest.approx(
            max(at, 600.0) + HOUR - max(0.0, 600.0 - at), abs=5.0
        )
        lines = [line["iteration"] for line in life.journal()]
        assert lines == list(range(1, len(lines) + 1))
        assert len(lines) >= 6

    run_virtual(main)


@pytest.mark.parametrize(("seconds", "verdict"), [(1500.0, "continue"), (math.inf, "aborted")])
def test_finish_on_sigterm_waits_for_the_iteration_within_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, verdict: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    async def main() -> None:
        made = machine(in_turn(Performance(seconds, answer("two"))))
        given = settings(tmp_path / "w", service={"on_stop": "finish", "finish_timeout_sec": 2000})
        log: Any = SilentLog()
        shared = scripted_shared(made, log=log, poll_sec=10.0, housekeeping_sec=DAY)
        supervisor = Supervisor([given], log, lambda: ([given], []), RunOptions(), shared=shared)
        codes = []

        async def run() -> None:
            codes.append(await supervisor.run())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await anyio.sleep(600.0)
            assert len(made.alive()) == 1
            os.kill(os.getpid(), signal.SIGTERM)
            while not supervisor._signals:  # it comes by a real thread: no virtual time may pass
                await anyio.lowlevel.checkpoint()
        assert codes == [0]
        assert made.clock.awake() == pytest.approx(min(seconds, 600.0 + 2000.0), abs=100.0)
        assert (
            verdict
            in (tmp_path / "w" / ".codex-self-iter" / "logs" / "iterations.jsonl").read_text()
        )

    run_virtual(main)


def test_loops_of_a_limited_account_come_back_one_by_one(tmp_path: Path) -> None:
    async def main() -> None:
        end = 1_750_000_000 + 5 * HOUR
        limited = Performance(
            30.0, stderr=f"usage limit reached|{round(end)}\n", exit_code=1, changes=False
        )
        made = machine(lambda _spec: limited if made.clock.true_wall() < end else WORK)
        shared = scripted_shared(
            made, pool=Pool(0), alone=False, poll_sec=100.0, housekeeping_sec=DAY
        )
        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(Loop(shared, settings(tmp_path / str(number))).run)
            await anyio.sleep(6 * HOUR)
            tasks.cancel_scope.cancel()
        refused = [agent for agent in made.history if agent.performance is limited]
        back: dict[str, float] = {}
        for agent in made.history:
            if agent.performance is not limited:
                back.setdefault(agent.spec.cwd, agent.started)
        # Each had one run under way when the limit was found; none was started into the known
        # limit.
        assert len(refused) == 6
        assert len({round(at, 1) for at in back.values()}) == 6
        assert all(5 * HOUR <= at <= 5 * HOUR + 100.0 for at in back.values())

    run_virtual(main)


@pytest.mark.slow
def test_fifty_loops_share_a_pool_fairly(tmp_path: Path) -> None:
    async def main() -> None:
        # The first ten have long runs; they must not keep the others from theirs.
        made = machine(
            lambda spec: Performance(3000.0 if int(Path(spec.cwd).name) < 10 else 300.0, answer())
        )
        shared = scripted_shared(
            made, pool=Pool(4), alone=False, poll_sec=HOUR, housekeeping_sec=DAY
        )
        most = 0

        def count() -> None:
            nonlocal most
            most = max(most, len(made.alive()))

        made.on_change = count
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(Loop(shared, settings(tmp_path / str(number))).run)
            await anyio.sleep(9 * HOUR)
            tasks.cancel_scope.cancel()
        turns = {str(number): 0 for number in range(50)}
        for agent in made.history:
            turns[Path(agent.spec.cwd).name] += 1
        assert most == 4
        assert made.overlaps == []
        assert max(turns.values()) - min(turns.values()) <= 1

    run_virtual(main)
