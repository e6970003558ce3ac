"""The program that exports, as a supervisor has it: when it is fed, ended and started again."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from codex_self_iter.supervisor import exporter as module
from codex_self_iter.supervisor.exporter import MOST, SILENT_SEC, Exporter
from codex_self_iter.testing import Performance, answer, run_virtual
from tests.support.harness import wait_until
from tests.support.otlp_receiver import Receiver, receiving
from tests.support.program import running
from tests.support.virtual import Life, machine, settings

LINE = {"what": "metrics", "of": "/here", "at": 1.0, "families": []}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


class Time:
    """Looks at an exporter at a time of ours, and does what is to be done."""

    def __init__(self, exporter: Exporter) -> None:
        self.exporter, self.now = exporter, 0.0

    def look(self) -> None:
        self.now += 0.3
        if job := self.exporter.look(self.now):
            job()
            self.exporter.free()

    def until(self, condition: Callable[[], Any], what: str) -> None:
        wait_until(lambda: (self.look(), condition())[1], what)


def program() -> psutil.Process:
    (found,) = running("codex_self_iter.metrics.otlp", psutil.Process().children())
    return found


@pytest.fixture
def exporter(receiver: Receiver) -> Iterator[Exporter]:
    made = Exporter(receiver.url, os.environ)
    yield made
    made.finish()


def test_one_that_says_nothing_any_more_is_ended_and_another_one_goes_on(
    receiver: Receiver, exporter: Exporter
) -> None:
    time = Time(exporter)
    exporter.take(LINE)
    time.until(lambda: receiver.asked, "the first line")
    time.until(lambda: exporter._asked_at is None, "its answer")
    first = program()
    first.suspend()
    exporter.take(LINE)
    time.look()
    time.now += SILENT_SEC - 1
    time.look()
    assert exporter.flaw == ""
    assert first.is_running()
    time.now += 1
    time.look()
    assert not first.is_running()
    assert "was silent for 150 s; it is started again" in exporter.flaw
    exporter.take(LINE)
    time.until(lambda: len(receiver.asked) == 2, "the line after it")
    time.until(lambda: not exporter.flaw, "it to be over")
    assert exporter.finish() == 0


def test_nothing_of_it_blocks_the_event_loop(receiver: Receiver, exporter: Exporter) -> None:
    """blockbuster sees it if it does."""
    big = {
        **LINE,
        "families": [["x" * 200_000, "", [], [[[], 1.0]], False]],
    }  # more than a pipe has

    async def main() -> None:
        for _ in range(5):
            exporter.take(big)
        now = 0.0
        while len(receiver.asked) < 5:
            now += 0.3
            if job := exporter.look(now):
                await anyio.to_thread.run_sync(job)
                exporter.free()
            await anyio.sleep(0.01)

    anyio.run(main)
    assert exporter.finish() == 0


def test_lines_wait_while_nobody_takes_them_and_the_oldest_go(exporter: Exporter) -> None:
    for _ in range(MOST + 3):
        exporter.take(LINE)
    assert exporter.lost == 3
    assert exporter.flaw == "its program takes nothing more"
    assert exporter.finish() == MOST


def test_one_that_ends_again_and_again_is_started_later_each_time(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PROGRAM", ("/bin/sh", "-c", "echo why >&2; exit 3"))
    exporter = Exporter(receiver.url, os.environ)
    time, begun = Time(exporter), []
    for _ in range(5):
        while exporter._fed is None:
            time.look()
        begun.append(time.now)
        time.until(lambda: exporter._fed is None, "its end")
    waits = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert waits[-1] > waits[0]
    assert exporter._again_at - time.now == pytest.approx(16.0)
    assert exporter.flaw == "its program has ended (why); it is started again"
    assert exporter.finish() == 0


def test_numbers_are_told_each_minute_and_at_the_end(tmp_path: Path) -> None:
    class Noted(Exporter):
        def take(self, line: Mapping[str, Any]) -> None:
            told.append((line["what"], line.get("at", 0.0)))

        def look(self, now: float) -> None:
            pass

        def finish(self) -> int:
            told.append(("finish", 0.0))
            return 0

    told: list[tuple[str, float]] = []
    address = "http://localhost:1"

    async def main() -> None:
        made = machine(lambda _spec: Performance(100.0, answer()))
        given = settings(tmp_path, otlp=address, max_iterations=3)
        life = Life(made, given, poll_sec=1.0, exporters={address: Noted(address, {})})
        async with life.alive():
            await anyio.sleep(400.0)
            assert life.ended

    run_virtual(main)
    times = [at for what, at in told if what == "metrics"]
    between = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) >= 5
    assert all(60.0 <= one < 65.0 for one in between[:-1])
    assert [what for what, _ in told].count("traces") == 3
    assert [what for what, _ in told][-2:] == ["metrics", "finish"]
