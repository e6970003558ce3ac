"""What is still to be told of a loop that has ended while its supervisor goes on with others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from codex_self_iter.core.events import Stop
from codex_self_iter.core.state import StopSource
from codex_self_iter.supervisor.members import Members
from codex_self_iter.supervisor.options import RunOptions
from codex_self_iter.supervisor.poller import Poller
from codex_self_iter.testing import (
    Performance,
    ScriptedMachine,
    SilentLog,
    VirtualClock,
    answer,
    run_virtual,
    scripted_shared,
)
from codex_self_iter.world.state.store import StateDirectory
from tests.support.virtual import DAY, HOUR, settings

NOTIFY = {"urls": ["json://${NO_SUCH_VARIABLE}/"], "quiet": "22:00-07:00", "zone": "UTC"}
"""Nothing is started for it: a try fails at once, and is counted."""
NIGHT = datetime(2025, 6, 10, 23, 0, tzinfo=UTC).timestamp()


@dataclasses.dataclass
class Several:
    """A supervisor of the loops `short`, which is done after an hour, and `long`."""

    root: Path
    made: ScriptedMachine
    members: Members
    log: SilentLog

    async def until(self, hours: float) -> None:
        """So many hours after 23:00."""
        await anyio.sleep(NIGHT + hours * HOUR - self.made.clock.wall())

    def tries(self, name: str) -> int:
        """How often it was tried to send the word of its end."""
        box = json.loads((self.root / name / ".codex-self-iter/outbox.json").read_text())
        (entry,) = box["entries"]
        assert entry["notice"]["event"] == "completed"
        (pending,) = entry["pending"]
        return int(pending["tries"])

    def ended(self, name: str) -> bool:
        return self.members.by_name[name].ended is not None

    def lock(self, name: str) -> StateDirectory:
        """What another supervisor would hold. Raises WorkspaceBusyError."""
        store = StateDirectory(str(self.root / name / ".codex-self-iter"), str(self.root / name))
        store.acquire_lock()
        return store


@asynccontextmanager
async def several(tmp_path: Path, *, long_sec: float = 3 * DAY) -> AsyncIterator[Several]:
    def script(spec: Any) -> Performance:
        seconds = HOUR if "/short" in spec.cwd else long_sec
        return Performance(seconds, answer("two", completed=True))

    made, log = ScriptedMachine(VirtualClock(NIGHT), script), SilentLog()
    slow = {"poll_sec": 60.0, "heal_sec": 900.0, "heartbeat_sec": 900.0, "housekeeping_sec": DAY}
    shared = scripted_shared(made, alone=False, poller=Poller(made.clock), log=log, **slow)
    every = [settings(tmp_path / name, notify=NOTIFY) for name in ("short", "long")]
    members = Members(shared, RunOptions(), 1000, every[0])
    assert shared.poller is not None
    async with anyio.create_task_group() as around:
        around.start_soon(shared.poller.run)
        async with members.tasks as tasks:
            for one in every:
                members.add(one)
            yield Several(tmp_path, made, members, log)
            tasks.cancel_scope.cancel()
        around.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))


def test_the_word_of_an_end_waits_for_the_end_of_quiet_hours_while_others_run(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with several(tmp_path) as all_:
            await all_.until(7.9)
            assert all_.ended("short")
            assert not all_.ended("long")
            assert all_.tries("short") == 0
            all_.lock("short").close()  # anybody may have the loop meanwhile
            await all_.until(8.0 + 10 / 3600)
            assert all_.tries("short") == 1
            await all_.until(12.0)
            assert all_.tries("short") > 5, "it is tried again as ever"

    run_virtual(main)


def test_it_is_sent_at_once_when_nobody_is_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with several(tmp_path, long_sec=2 * HOUR) as all_:
            await all_.until(1.9)
            assert all_.tries("short") == 0
            await all_.until(2.1)
            assert all_.ended("long")
            assert (all_.tries("short"), all_.tries("long")) == (3, 3)
            assert all(one.over.is_set() for one in all_.members.by_name.values())

    run_virtual(main)


def test_it_is_sent_at_once_when_all_are_told_to_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with several(tmp_path) as all_:
            await all_.until(1.5)
            assert all_.tries("short") == 0
            all_.members.end(Stop("stopped by SIGTERM", source=StopSource.SIGNAL))
            await anyio.sleep(60.0)
            assert all_.tries("short") == 3
            assert not all_.ended("long"), "it was not told itself"

    run_virtual(main)


def test_whoever_has_the_loop_then_has_its_words(tmp_path: Path) -> None:
    async def main() -> None:
        async with several(tmp_path) as all_:
            await all_.until(2.0)
            other = all_.lock("short")
            await all_.until(12.0)
            assert all_.tries("short") == 0
            other.close()
            assert "notify.left" in [name for _, name, _ in all_.log.events]
            assert all_.members.by_name["short"].over.is_set()

    run_virtual(main)


def test_one_that_is_started_again_takes_its_words_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with several(tmp_path) as all_:
            await all_.until(2.0)
            before = all_.members.by_name["short"]
            all_.members.add(settings(tmp_path / "short", notify=NOTIFY, max_iterations=9))
            await all_.until(2.1)
            assert before.over.is_set()
            assert all_.members.by_name["short"].loop is not before.loop
            assert all_.tries("short") == 0
            assert "loop.refused" not in [name for _, name, _ in all_.log.events]

    run_virtual(main)
