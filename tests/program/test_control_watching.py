"""STOP is seen by the looks alone and by the watcher alone; without both it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog

from codex_self_iter.core import events as ev
from codex_self_iter.core.commands import Abort
from codex_self_iter.core.machine import decide
from codex_self_iter.core.policy import AgentPolicy, Policy
from codex_self_iter.core.state import LoopState, Message
from codex_self_iter.core.terms import Moment, Role, State
from codex_self_iter.settings import load
from codex_self_iter.supervisor.documents import Document
from codex_self_iter.supervisor.loop import Loop
from codex_self_iter.supervisor.rounds import Ended
from codex_self_iter.supervisor.shared import Shared
from codex_self_iter.world.clock import SystemClock
from codex_self_iter.world.pool import Pool
from codex_self_iter.world.process.host import Host
from codex_self_iter.world.state.lock import boot_id
from codex_self_iter.world.watch import Watcher
from tests.support.control_steps import IDLE
from tests.support.harness import Workspace

pytestmark = pytest.mark.anyio
NEVER_SEC = 3600.0


def quiet_log() -> Any:
    return structlog.wrap_logger(structlog.ReturnLogger(), processors=[])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await anyio.sleep(0.05)


async def seen(ws: Workspace, *, looks: bool, watcher: Watcher | None) -> bool:
    """Run a loop in this process, put a STOP down while it waits, and say whether it ended for
    it."""
    ws.config(no_change_backoff_sec=600, backoff_max_sec=600)
    ws.script(IDLE)
    settings = load(
        {"workspace": str(ws.path)}, config_file=None, environ=ws.environment, cwd=str(ws.root)
    ).loops()[0]
    host = Host()
    shared = Shared(
        host=host, pool=Pool(1), clock=SystemClock(), boot_id=boot_id(), log=quiet_log(), watcher=watcher,
        environ=ws.environment, poll_sec=0.25 if looks else NEVER_SEC,
    )  # fmt: skip
    loop, ended = Loop(shared, settings), list[Ended]()

    async def run() -> None:
        ended.append(await loop.run())

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            with anyio.fail_after(60):
                await until(lambda: loop.state.state is State.COOLDOWN)
            if watcher is not None:
                tasks.start_soon(watcher.run)
            # until the watcher listens, and the look that a new wait brings is over
            await anyio.sleep(1.5)
            (ws.state / "STOP").touch()
            with anyio.move_on_after(6):
                await until(lambda: bool(ended))
            noticed = bool(ended)
            loop.post(ev.Stop("the test is over"))
            with anyio.fail_after(30):
                await until(lambda: bool(ended))
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await host.aclose()
    return noticed


async def test_half_a_text_is_taken_only_when_it_need_not_stand_still(tmp_path: Path) -> None:
    plan = tmp_path / "plan.md"
    for at_once in (False, True):
        plan.write_text("- [ ] one\n- [ ] two\n")
        document = Document("plan", str(plan), required=True, aside="")
        document.poll(0.0, at_once=True)
        plan.write_text("- [ ] one\n- [ ] thr")
        edits = [document.poll(now, at_once=at_once) for now in (1.0, 1.5, 2.0)]
        assert any(edits) == at_once  # with the wait switched off, half a line is believed
        plan.write_text("- [ ] one\n- [ ] three\n")
        assert document.poll(3.0) is None
        assert document.settling
        edit = document.poll(3.5)
        assert edit is not None
        assert document.text.endswith("three\n")


async def test_ticks_are_taken_at_once(tmp_path: Path) -> None:
    plan = tmp_path / "plan.md"
    plan.write_text("- [ ] one\n- [ ] two\n")
    document = Document("plan", str(plan), required=True, aside="")
    document.poll(0.0, at_once=True)
    plan.write_text("- [x] one\n- [ ] two\n")
    edit = document.poll(1.0)
    assert edit is not None
    assert edit.ticks_only


async def test_the_looks_alone_see_it(ws: Workspace) -> None:
    assert await seen(ws, looks=True, watcher=None)


async def test_the_watcher_alone_sees_it(ws: Workspace) -> None:
    assert await seen(ws, looks=False, watcher=Watcher(interval_sec=NEVER_SEC))


@pytest.mark.slow
async def test_without_both_it_is_not_seen(ws: Workspace) -> None:
    assert not await seen(ws, looks=False, watcher=None)


async def test_a_run_that_has_an_urgent_message_is_not_ended_for_it() -> None:
    at, policy = Moment(0.0, 0.0, "boot", 0.5), Policy({Role.EXECUTOR: (AgentPolicy("a", "a"),)})
    state, _ = decide(LoopState("loop"), ev.Boot(), policy, at)
    state, _ = decide(state, ev.Prepared((Message("1.now.md", "hurry"),)), policy, at)
    assert state.open is not None
    assert state.open.run is not None
    for names, ended in ((("1.now.md",), False), (("1.now.md", "2.now.md"), True), ((), True)):
        after, commands = decide(state, ev.Steer(True, names), policy, at)
        assert any(isinstance(command, Abort) for command in commands) == ended
        assert (after.ending is not None) == ended
