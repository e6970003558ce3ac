"""Days of waiting in milliseconds: the real loop on a virtual clock."""

from __future__ import annotations

import itertools
from datetime import datetime
from pathlib import Path

import anyio
import pytest

from codex_self_iter.testing import Performance, run_virtual
from tests.support.virtual import (
    DAY,
    HOUR,
    OVERLOADED,
    POLL_SEC,
    WORK,
    YEAR,
    Life,
    in_turn,
    machine,
    settings,
    starts,
)

LIMITED_MARGIN = 5.0 + 30.0 + POLL_SEC
"""A known limit's end is followed by a margin and a spread."""


def limited_for(seconds: float) -> Performance:
    return Performance(
        10.0,
        stderr=f"usage limit reached|{round(1_750_000_000 + seconds)}\n",
        exit_code=1,
        changes=False,
    )


def test_a_restart_in_a_wait_of_seven_days_waits_exactly_the_rest(tmp_path: Path) -> None:
    async def main() -> None:
        made, given = machine(in_turn(limited_for(7 * DAY))), settings(tmp_path)
        first = Life(made, given, poll_sec=HOUR)
        async with first.alive() as loop:
            await anyio.sleep(3 * DAY)
            assert loop.state.wait is not None
            end = loop.state.wait.until
        await anyio.sleep(2 * DAY)
        async with Life(made, given, poll_sec=HOUR).alive() as loop:
            assert loop.state.state == "limited"
            await anyio.sleep(3 * DAY)
        assert starts(made)[1] + 1_750_000_000 == pytest.approx(end, abs=0.1)
        assert 7 * DAY < starts(made)[1] < 7 * DAY + LIMITED_MARGIN + 1

    run_virtual(main)


def test_a_reboot_in_a_wait_waits_the_rest(tmp_path: Path) -> None:
    async def main() -> None:
        made, given = machine(in_turn(limited_for(DAY))), settings(tmp_path)
        async with Life(made, given).alive():
            await anyio.sleep(HOUR)
        made.reboot()
        await anyio.sleep(120.0)
        async with Life(made, given).alive():
            await anyio.sleep(DAY)
        assert DAY < starts(made)[1] < DAY + LIMITED_MARGIN + 1

    run_virtual(main)


def test_backoff_grows_to_its_cap_and_no_further(tmp_path: Path) -> None:
    async def main() -> None:
        made = machine(in_turn(*[OVERLOADED] * 14))
        async with Life(made, settings(tmp_path)).alive():
            await anyio.sleep(8 * HOUR)
        began = starts(made)
        gaps = [
            later - earlier - OVERLOADED.seconds
            for earlier, later in itertools.pairwise(began[:15])
        ]
        for count, gap in enumerate(gaps):
            plain = min(900.0, 5.0 * 2**count)
            assert plain - 1e-6 <= gap <= plain * 1.1 + 1.0  # sums of floats
        assert made.history[-1].performance == WORK

    run_virtual(main)


@pytest.mark.slow
@pytest.mark.parametrize("asleep", [60.0, 10 * DAY])
def test_a_suspend_does_not_prolong_a_wait(tmp_path: Path, asleep: float) -> None:
    async def main() -> None:
        made = machine(in_turn(limited_for(DAY)))
        async with Life(made, settings(tmp_path)).alive():
            await anyio.sleep(HOUR)
            made.clock.suspend(asleep)
            await anyio.sleep(DAY)
        rest = max(0.0, DAY - HOUR - asleep)
        assert HOUR + rest <= starts(made)[1] <= HOUR + rest + LIMITED_MARGIN + 1

    run_virtual(main)


@pytest.mark.parametrize("years", [-1, 1])
def test_a_wall_clock_set_during_a_wait_changes_neither_its_end_nor_its_truth(
    tmp_path: Path, years: int
) -> None:
    async def main() -> None:
        made = machine(in_turn(limited_for(DAY)))
        life = Life(made, settings(tmp_path))
        async with life.alive() as loop:
            await anyio.sleep(HOUR)
            made.clock.step_wall(years * YEAR)
            await anyio.sleep(2 * POLL_SEC)
            until = datetime.fromisoformat(
                life.status()["until"].replace("Z", "+00:00")
            ).timestamp()
            assert until - made.clock.wall() == pytest.approx(
                DAY - HOUR - 2 * POLL_SEC, abs=LIMITED_MARGIN
            )
            assert loop.state.state == "limited"
            await anyio.sleep(DAY)
        assert DAY < starts(made)[1] < DAY + LIMITED_MARGIN + 1

    run_virtual(main)


@pytest.mark.slow
@pytest.mark.parametrize("years", [-1, 1])
def test_a_wall_clock_set_between_two_supervisors_never_prolongs_a_wait(
    tmp_path: Path, years: int
) -> None:
    async def main() -> None:
        made, given = machine(in_turn(limited_for(DAY))), settings(tmp_path)
        async with Life(made, given).alive():
            await anyio.sleep(HOUR)
        made.reboot()
        made.clock.step_wall(years * YEAR)
        async with Life(made, given).alive():
            await anyio.sleep(DAY + HOUR)
        assert starts(made)[1] < HOUR + DAY + LIMITED_MARGIN + 1

    run_virtual(main)


@pytest.mark.parametrize("years", [-1, 1])
def test_a_wall_clock_set_during_a_run_ends_no_run(tmp_path: Path, years: int) -> None:
    async def main() -> None:
        made = machine(in_turn(Performance(HOUR, WORK.stdout)))
        life = Life(made, settings(tmp_path))
        async with life.alive():
            await anyio.sleep(600.0)
            made.clock.step_wall(years * YEAR)
            await anyio.sleep(HOUR)
        assert made.history[0].ended == pytest.approx(HOUR, abs=1.0)
        assert life.journal()[0]["verdict"] == "continue"

    run_virtual(main)


def test_a_pause_uses_nothing_of_a_backoff(tmp_path: Path) -> None:
    async def main() -> None:
        made = machine(in_turn(*[OVERLOADED] * 9))
        life = Life(made, settings(tmp_path))
        pause = tmp_path / ".codex-self-iter" / "PAUSE"
        async with life.alive() as loop:
            # 9 runs of 10 s and 8 waits of 5 s to 640 s, each up to a tenth longer
            await anyio.sleep(1600.0)
            assert len(made.history) == 9
            assert made.alive() == []
            pause.touch()
            await anyio.sleep(DAY)
            assert loop.state.state == "paused"
            pause.unlink()
            resumed = made.clock.awake()
            await anyio.sleep(HOUR)
        left = made.history[8].ended + 900.0 - 1600.0
        assert left - POLL_SEC <= starts(made)[9] - resumed <= left + 90.0 + POLL_SEC

    run_virtual(main)


def test_an_expired_wait_behind_a_full_disk_costs_no_more_than_any_other_wait(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        free = [100_000]
        made = machine(in_turn(OVERLOADED))
        life = Life(made, settings(tmp_path), free_disk_mb=lambda _path: free[0], poll_sec=0.25)
        looks = 0

        async with life.alive() as loop:
            await anyio.sleep(11.0)
            free[0] = 1
            await anyio.sleep(60.0)
            look = life.rounds.look

            def counted() -> float:
                nonlocal looks
                looks += 1
                return look()

            life.rounds.look = counted  # type: ignore[method-assign]
            await anyio.sleep(60.0)
            assert loop.state.state == "blocked"
            assert looks <= 60.0 / life.shared.poll_sec + 1
            free[0] = 100_000
            await anyio.sleep(10.0)
        assert len(made.history) == 2

    run_virtual(main)


@pytest.mark.parametrize("minutes", [5, 60])
def test_a_person_is_told_once_of_what_holds_a_loop_for_long(tmp_path: Path, minutes: int) -> None:
    async def main() -> None:
        given = settings(tmp_path)
        life = Life(machine(in_turn(OVERLOADED)), given, poll_sec=10.0)
        async with life.alive() as loop:
            await anyio.sleep(11.0)
            (tmp_path / "plan.md").unlink()
            (tmp_path / "plan.md").mkdir()
            await anyio.sleep(60.0 * minutes)
            assert loop.state.blocked_by
        told = [fields for _, event, fields in life.shared.log.events if event == "loop.notify"]
        assert [one["about"] for one in told] == ["blocked"] * (minutes > 10)
        assert all("plan.md cannot be read" in one["text"] for one in told)

    run_virtual(main)
