"""The program that exports, by itself: what it keeps, tries again and gives up."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.metrics import otlp
from codex_self_iter.views.metrics import families
from codex_self_iter.views.spans import spans
from tests.support.harness import PATIENCE, wait_until
from tests.support.otlp_receiver import Receiver, receiving
from tests.support.shown_loops import NOW, cases, seen

ALL = [(name, seen(case)) for name, case in cases().items()]
HERE = {"what": "metrics", "of": "/here", "at": NOW, "families": families(ALL[:1], NOW)}


def trace(number: int) -> dict[str, Any]:
    record = {"iteration": number, "started_at": "2026-01-31T10:00:00.000Z"}
    told = [one._asdict() for one in spans(record, "l", "shop")]
    return {"what": "traces", "of": "/here", "spans": told}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


class Program:
    """The program, with its answers as they come."""

    def __init__(self, receiver: Receiver, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "codex_self_iter.metrics.otlp"], cwd="/", env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.feed({"endpoint": receiver.url})

    def feed(self, *lines: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(json.dumps(line) + "\n" for line in lines))
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def end(self) -> list[dict[str, Any]]:
        """What it says to the end."""
        out, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0
        return [json.loads(line) for line in out.splitlines()]


def test_what_it_is_fed_arrives_and_is_answered(receiver: Receiver) -> None:
    program = Program(receiver)
    program.feed(trace(1), {**HERE, "families": families(ALL, NOW)})
    told = program.end()
    assert told == [
        {"what": "traces", "flaw": "", "lost": 0}, {"what": "metrics", "flaw": "", "lost": 0}, {"left": 0},
    ]  # fmt: skip
    assert len(receiver.named("iteration")) == 1
    assert receiver.counters == {one.name for one in families(ALL, NOW) if one.counter}


@pytest.mark.parametrize("how", ["302", "400"])
def test_what_is_refused_is_not_tried_again(receiver: Receiver, how: str) -> None:
    receiver.how = how
    program = Program(receiver)
    program.feed(trace(1))
    assert program.answer()["lost"] == 1
    receiver.how = "take"
    program.feed(trace(2))
    assert program.answer() == {"what": "traces", "flaw": "", "lost": 0}
    assert [one.attributes["csi.iteration"] for one in receiver.spans] == [2]
    assert program.end() == [{"left": 0}]


@pytest.mark.parametrize("how", ["500", "429"])
def test_what_is_not_taken_is_tried_again_and_of_numbers_only_the_newest(
    receiver: Receiver, how: str
) -> None:
    receiver.how = how
    program = Program(receiver, OTEL_EXPORTER_OTLP_TIMEOUT="0.5")
    program.feed(HERE)
    assert program.answer()["flaw"].startswith(f"the receiver says {how}")
    newer = families([ALL[0]], NOW + 60)
    program.feed(trace(1), {**HERE, "at": NOW + 60, "families": newer})
    wait_until(lambda: program.answer()["what"] == "traces", "the trace to be tried")
    receiver.how = "take"
    while program.answer() != {"what": "traces", "flaw": "", "lost": 0}:
        pass
    age = next(one.samples[0].value for one in newer if one.name == "csi_heartbeat_age_seconds")
    program.end()
    assert receiver.numbers["csi_heartbeat_age_seconds",] == age
    asked = [path for path in receiver.asked if path == "/v1/metrics"]
    assert len(asked) >= 2


@pytest.mark.slow
def test_so_much_waits_and_the_oldest_goes(receiver: Receiver) -> None:
    receiver.how = "hang"
    program = Program(receiver, OTEL_EXPORTER_OTLP_TIMEOUT="100")
    program.feed(trace(1))
    wait_until(lambda: receiver.asked, "the first request")
    program.feed(*(trace(2 + at) for at in range(otlp.MOST + 5)))
    program.feed({"what": "metrics", "of": "/here", "at": NOW, "families": []})
    receiver.how = "take"
    receiver.let_go.set()
    found = [program.answer() for _ in range(otlp.MOST)]
    assert sum(one["lost"] for one in found) >= 5
    program.end()
    numbers = {one.attributes["csi.iteration"] for one in receiver.spans}
    assert otlp.MOST + 6 in numbers
    assert 2 not in numbers
    assert len(numbers) >= otlp.MOST - 1


def test_what_was_tried_for_an_hour_is_given_up(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert otlp.KEEP_SEC == 3600.0
    monkeypatch.setattr(otlp, "KEEP_SEC", 0.0)
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(otlp, "say", told.append)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    receiver.how = "500"
    queue = otlp.Queue(otlp.Receiver(receiver.url))
    queue.add(trace(1))
    worker = threading.Thread(target=queue.work)
    worker.start()
    wait_until(lambda: told, "the only try")
    queue.end()
    worker.join()
    assert [one["lost"] for one in told] == [1]
    assert queue.left == 0


@pytest.mark.parametrize("how", ["hang", "500"])
def test_it_ends_soon_after_its_input_and_says_what_is_left(receiver: Receiver, how: str) -> None:
    receiver.how = how
    program = Program(receiver, OTEL_EXPORTER_OTLP_TIMEOUT="100")
    program.feed(trace(1), trace(2))
    wait_until(lambda: receiver.asked, "a request")
    assert program.process.stdin is not None
    program.process.stdin.write('{"what": "tra')  # half a line, as a kill leaves it
    assert program.end()[-1] == {"left": 2}


def test_an_answer_without_end_is_not_read(receiver: Receiver) -> None:
    receiver.how = "endless"
    program = Program(receiver)
    program.feed(trace(1), trace(2))
    assert [program.answer()["flaw"] for _ in range(2)] == ["", ""]
    assert receiver.poured < 50_000_000
    program.end()


def test_a_netrc_says_nothing(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    own = "Authorization=Bearer mine"
    program = Program(receiver, HOME=str(tmp_path), OTEL_EXPORTER_OTLP_HEADERS=own)
    program.feed(trace(1))
    program.end()
    assert [one["authorization"] for one in receiver.headers] == ["Bearer mine"]
