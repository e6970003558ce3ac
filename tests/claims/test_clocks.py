"""One format of times for programs, one for people, everywhere the same (docs/status.md)."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.claims.scenes import defect
from tests.support.harness import Workspace

UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
DAY, TIME = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d:\d\d"
FAR = "XYZ-5:30"
"""Half past the hours of UTC: local times cannot be taken for it."""


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A loop that has worked, waited and failed, far from UTC."""
    ws = Workspace(tmp_path_factory.mktemp("clocks"))
    ws.environment["TZ"] = FAR
    ws.config(max_consecutive_errors=2)
    ws.script({"append": {"w": "x"}}, {"exit": 3})
    assert ws.run() == 4
    environment, flag = defect(ws, "supervisor.senses", "Senses.look")
    flag.touch()
    assert ws.run(environment=environment) == 1
    yield ws
    ws.close()


def local(ws: Workspace, utc: str) -> str:
    """This time of day, there."""
    hour, minute = int(utc[11:13]) * 60, int(utc[14:16])
    there = (hour + minute + 330) % 1440
    return f"{there // 60:02d}:{there % 60:02d}:{utc[17:19]}"


def test_programs_read_utc_with_milliseconds_in_every_file(there: Workspace) -> None:
    journal = there.journal()
    lines = [
        json.loads(x) for x in (there.state / "logs" / "supervisor.log").read_text().splitlines()
    ]
    stamps = [line["timestamp"] for line in lines]
    stamps += [line[key] for line in journal for key in ("ts", "started_at")]
    stamps += [line["until"] for line in lines if "until" in line]
    printed = json.loads(there.cli("history", "--json").stdout.splitlines()[0])
    stamps.append((printed[0] if isinstance(printed, list) else printed)["ts"])
    crash = there.home / "state" / "codex-self-iter" / "crash.log"
    stamps.append(crash.read_text().split()[0])
    assert [one for one in stamps if not UTC.fullmatch(one)] == []
    assert any("until" in line for line in lines)


def seconds(value: object, path: str = "") -> Iterator[str]:
    """Where something in it is Unix seconds of our days."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from seconds(below, f"{path}.{key}")
    elif isinstance(value, list):
        for below in value:
            yield from seconds(below, f"{path}[]")
    elif isinstance(value, float) and value > 1e9:
        yield path


def test_unix_seconds_stand_only_where_the_page_says(there: Workspace, tmp_path: Path) -> None:
    places = {place for line in there.journal() for place in seconds(line)}
    assert ".wait.until" in places
    assert {place for place in places if not place.startswith((".wait.", ".after."))} == set()
    assert set(seconds(there.status())) == set()
    assert set(seconds(json.loads(there.cli("status", "--json").stdout))) == set()
    assert set(seconds(json.loads((there.state / "runtime.json").read_text())))
    beside = (there.state / "logs" / "runs").rglob("*.json")
    assert any(set(seconds(json.loads(path.read_text()))) for path in beside)
    ws = Workspace(tmp_path)
    try:
        ws.config()
        ws.script({"append": {"w": "x"}})
        assert ws.cli("goal", "Say when").returncode == 0
        assert ws.run("--once") == 0
        (event,) = ws.journal()[0]["events"]
        assert (event["kind"], list(seconds(event))) == ("goal.set", [".at"])
    finally:
        ws.close()


def test_people_read_their_own_time_everywhere(there: Workspace) -> None:
    first = there.journal()[0]["ts"]
    at = local(there, first)
    history = there.cli("history").stdout
    assert re.search(rf"^1 +{at} ", history, re.M), history
    shown = there.cli("show", "1").stdout
    assert re.search(rf"{DAY} {at}\+05:30", shown), shown
    report = (there.state / "report.md").read_text()
    assert re.search(rf"^Written {DAY} {TIME}\+05:30\. ", report, re.M)
    ended = local(there, there.status()["exit"]["at"])
    assert f"at {ended}" in there.cli("status").stdout
    console = there.log().splitlines()
    assert re.match(rf"{DAY} {TIME} \[", console[0])
    assert all(re.match(rf"{TIME} \[", line) for line in console[1:3])
    assert any(re.search(rf"loop.backoff .* until={TIME}$", line) for line in console), console


def test_no_time_of_another_format_is_shown(there: Workspace) -> None:
    """What looks like a time in what people read is one of these formats."""
    texts = [
        there.cli(*words).stdout for words in (("history",), ("show", "1"), ("status",), ("logs",))
    ]
    texts += [there.log(), (there.state / "report.md").read_text()]
    for text in texts:
        for found in re.finditer(r"\S*\d\d:\d\d(:\d\d)?\S*", text):
            word = found.group().strip(".,()'")
            path = word.startswith("/") or "=" in word.removeprefix("until=")
            fits = re.fullmatch(rf"(until=)?'?({TIME})(\+05:30)?'?", word)
            assert path or fits, (word, text)
            assert "T" not in word


@pytest.mark.slow
def test_doctor_and_a_refused_start_say_local_times(ws: Workspace) -> None:
    ws.environment["TZ"] = FAR
    ws.script({"sleep": 60})
    first = ws.start()
    ws.wait_runs(1)
    assert ws.run() == 75
    refused = re.search(r"already has a supervisor: process \d+ since (.*) on ", ws.log())
    asked = re.search(r"time.clock: (.*)", ws.cli("doctor").stdout)
    held = re.search(
        r"a supervisor works here: process \d+ since (.*) on ", ws.cli("doctor").stdout
    )
    for found in (refused, asked, held):
        assert found
        assert re.fullmatch(rf"{DAY} {TIME}\+05:30", found[1].strip()), found[0]
    first.send_signal(signal.SIGTERM)
    assert ws.ended(first) == 0


def test_a_time_that_is_not_near_has_its_date(there: Workspace) -> None:
    journal = there.state / "logs" / "iterations.jsonl"
    whole = journal.read_text()
    lines = [json.loads(line) for line in whole.splitlines()]
    lines[0]["ts"] = "2025-01-31T22:00:00.000Z"
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    try:
        assert re.search(r"^1 +2025-02-01 03:30 ", there.cli("history").stdout, re.M)
    finally:
        journal.write_text(whole)


def test_the_page_names_these_formats() -> None:
    page = (Path(__file__).parents[2] / "docs" / "status.md").read_text()
    for form in ("`2026-01-31T23:59:59.000Z`", "`23:59:59`", "`2026-01-31 23:59`",
                 "`2026-01-31 23:59:59+01:00`"):  # fmt: skip
        assert form in page
