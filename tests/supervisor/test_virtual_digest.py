"""The digest of each day over weeks: supervisors that were down, clocks that go wrong, days of 23 and 25
hours; and what a loop that tells people costs while nothing happens."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest

from codex_self_iter.core.mailbox import Notice
from codex_self_iter.supervisor import courier, daily
from codex_self_iter.testing import (
    Performance,
    ScriptedMachine,
    VirtualClock,
    answer,
    run_virtual,
)
from tests.support.virtual import DAY, HOUR, Life, settings

BERLIN = ZoneInfo("Europe/Berlin")
NOBODY = ["json://${NO_SUCH_VARIABLE}/"]
"""Nothing is sent there, and nothing is started for it."""


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def machine(wall: float) -> ScriptedMachine:
    return ScriptedMachine(VirtualClock(wall), lambda _spec: Performance(7000.0, answer()))


def given(tmp_path: Path, **notify: Any) -> Any:
    table = {"urls": NOBODY, "digest_at": "08:00", "zone": "Europe/Berlin"}
    return settings(tmp_path, notify=table | notify)


def live(made: ScriptedMachine, given: Any) -> Life:
    """One that looks at its files seldom: days cost seconds."""
    return Life(made, given, poll_sec=900.0, heal_sec=900.0, heartbeat_sec=900.0)


def told(life: Life) -> Iterator[Notice]:
    """The digests that wait, of the last days."""
    entries = life.rounds.ctx.mail.box.entries
    return (entry.notice for entry in entries if entry.notice.event == "digest")


def hours(life: Life) -> list[str]:
    return [f"{datetime.fromtimestamp(one.at, BERLIN):%d %H:%M}" for one in told(life)]


async def until(made: ScriptedMachine, text: str) -> None:
    await anyio.sleep(at(text) - made.clock.wall())


def test_each_day_at_its_hour_and_not_before_the_next_day_after_the_first_start(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        made = machine(at("2025-06-10 09:00"))
        life = live(made, given(tmp_path))
        async with life.alive():
            await until(made, "2025-06-11 07:59")
            assert hours(life) == []
            await until(made, "2025-06-13 09:00")
            assert hours(life) == ["11 08:00", "12 08:00", "13 08:00"]
            first, second, _ = told(life)
            lines = second.text.splitlines()
            count = r"1[23] iterations"  # of 7,000 seconds each
            assert re.match(rf"Digest: 1 loop, none needs you, {count}", lines[0])
            assert re.match(rf"{tmp_path.name}: running, {count}", lines[1])
            assert len({one.key for one in (first, second)}) == 2

    run_virtual(main)


def test_a_supervisor_that_was_down_at_the_hour_tells_at_its_next_start_that_day(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        made = machine(at("2025-06-10 07:00"))
        async with live(made, given(tmp_path)).alive():
            await until(made, "2025-06-10 09:00")
        await until(made, "2025-06-11 11:00")
        second = live(made, given(tmp_path))
        async with second.alive():
            await anyio.sleep(HOUR)
            assert hours(second) == ["10 08:00", "11 11:00"]
        third = live(made, given(tmp_path))
        async with third.alive():
            await until(made, "2025-06-12 09:00")
            assert hours(third) == ["10 08:00", "11 11:00", "12 08:00"]

    run_virtual(main)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("2025-03-29 12:00", ["30 08:00", "31 08:00"]),  # 23 hours
        ("2025-10-25 12:00", ["26 08:00", "27 08:00"]),  # 25
    ],
)
@pytest.mark.parametrize("zone", ["Europe/Berlin", "machine"])
def test_a_day_of_another_length_has_one(
    tmp_path: Path, start: str, expected: list[str], zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        made = machine(at(start))
        how = {} if zone != "machine" else {"zone": ""}
        life = live(made, given(tmp_path, **how))
        async with life.alive():
            await anyio.sleep(2 * DAY)
            assert hours(life) == expected

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        run_virtual(main)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("start", ["2025-03-29 12:00", "2025-10-25 12:00"])
def test_an_hour_that_a_day_does_not_have_or_has_twice_is_told_once(
    tmp_path: Path, start: str
) -> None:
    async def main() -> None:
        made = machine(at(start))
        life = live(made, given(tmp_path, digest_at="02:30"))
        async with life.alive():
            await anyio.sleep(2 * DAY)
            assert len(hours(life)) == 2

    run_virtual(main)


def test_a_clock_that_is_set_costs_no_day_and_doubles_none(tmp_path: Path) -> None:
    async def main() -> None:
        made = machine(at("2025-06-10 07:00"))
        life = live(made, given(tmp_path))
        async with life.alive():
            await until(made, "2025-06-10 08:30")
            made.clock.step_wall(-HOUR)
            await anyio.sleep(3 * HOUR)
            assert hours(life) == ["10 08:00"]
            made.clock.step_wall(DAY * 400)
            await anyio.sleep(2 * HOUR)
            assert hours(life) == ["15 10:33"], "by that clock the other one was given up"
            made.clock.set_right()
            await anyio.sleep(2 * DAY + 2 * HOUR)
            assert hours(life)[-2:] == ["11 08:00", "12 08:00"], "and none for ever it is not"

    run_virtual(main)


def test_loops_of_one_supervisor_send_one_about_all(tmp_path: Path) -> None:
    async def main() -> None:
        made = machine(at("2025-06-10 07:00"))
        lives = [live(made, given(tmp_path / name)) for name in ("api", "shop")]
        for life in lives:
            life.shared = life.loop.shared = lives[0].shared
        async with lives[0].alive(), lives[1].alive():
            await until(made, "2025-06-11 09:00")
            texts = {one.at: one.text for life in lives for one in told(life)}
            assert list(map(len, map(hours, lives))) in ([2, 0], [1, 1], [0, 2])
            last = texts[at("2025-06-11 08:00")]
            names = [line.partition(":")[0] for line in last.splitlines()]
            assert names == ["Digest", "api", "shop"]

    run_virtual(main)


@pytest.mark.parametrize("events", [["digest"], ["blocked"]])
def test_it_goes_to_those_whose_events_name_it(tmp_path: Path, events: list[str]) -> None:
    async def main() -> None:
        made = machine(at("2025-06-10 07:00"))
        life = live(made, given(tmp_path, events=events))
        async with life.alive():
            await anyio.sleep(HOUR * 3)
            assert bool(hours(life)) is (events == ["digest"])

    run_virtual(main)


@pytest.mark.parametrize("digest_at", ["", "08:00"])
def test_an_idle_loop_wakes_for_it_four_times_an_hour_at_most(
    tmp_path: Path, digest_at: str
) -> None:
    """Counted where it wakes: each time it asks whether the digest is due."""
    wakes = []

    async def counted(ctx: Any) -> float | None:
        wakes.append(ctx.shared.clock.wall())
        return await daily.tell(ctx)

    async def main() -> None:
        made = machine(at("2025-06-10 10:00"))
        life = live(made, given(tmp_path, digest_at=digest_at))
        async with life.alive():
            ctx = life.rounds.ctx
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(courier.run, ctx, counted)
                await anyio.sleep(10 * HOUR)
                tasks.cancel_scope.cancel()

    run_virtual(main)
    assert len(wakes) <= (2 + 10 * HOUR / courier.LOOK_SEC if digest_at else 1)
    assert wakes
