"""An open page goes on by itself: over lost connections, restarts of the page and of the supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from codex_self_iter.screens.page.contents import Known
from codex_self_iter.screens.page.entering import Session
from codex_self_iter.screens.page.site import Site
from codex_self_iter.screens.page.streams import (
    MOST_STREAMS,
    BoardStream,
    Follower,
    JournalStream,
    LoopStream,
    Place,
)
from codex_self_iter.world.state.journal import Journal
from codex_self_iter.world.state.root import StateRoot
from tests.support.harness import wait_until
from tests.support.shown_loops import cases, on_disk, record
from tests.support.web import App, Page, served


def loop_path(page: Page) -> str:
    return f"/loop/{page.ask('/api/v1/loops').json()['loops'][0]['id']}"


def say(state: Path, *lines: str, run: str = "000012-executor") -> None:
    directory = state / "logs/runs" / run
    directory.mkdir(exist_ok=True)
    with (directory / "stdout.log").open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def journal(state: Path, *numbers: int) -> None:
    with (state / "logs/iterations.jsonl").open("a") as file:
        file.writelines(json.dumps(record(number)) + "\n" for number in numbers)


def test_a_page_hears_what_is_new_and_where_it_is(page: Page, state: Path) -> None:
    events = page.events(f"{loop_path(page)}/events")
    assert events.texts("Writes the parser") == [
        "000012-executor",
        "Reads the grammar",
        "Writes the parser",
    ]
    say(state, "one", "two")
    assert events.texts("two") == ["one", "two"]
    journal(state, 12)
    _, data = events.next("region")
    while data["id"] != "history":
        _, data = events.next("region")
    assert "Step 12 is done" in data["html"]
    say(state, "of the next run", run="000013-executor")
    assert events.texts("of the next run") == ["000013-executor", "of the next run"]
    events.close()


def test_a_lost_connection_resumes_exactly(page: Page, state: Path) -> None:
    path = f"{loop_path(page)}/events"
    say(state, *(f"line {number}" for number in range(100)))
    seen: list[str] = []
    last = ""
    for rounds in range(6):
        events = page.events(path, last)
        target = f"line {100 + rounds * 10 - 1}"
        seen += events.texts(target)
        last = events.last
        events.close()  # what is said now is said to nobody
        say(state, *(f"line {100 + rounds * 10 + number}" for number in range(10)))
        if rounds == 3:
            say(state, "unfinished", run="000013-executor")
            break
    events = page.events(path, last)
    seen += events.texts("unfinished")
    events.close()
    assert [text for text in seen if text.startswith("line ")] == [f"line {n}" for n in range(140)]
    assert seen[-2:] == ["000013-executor", "unfinished"]


def test_negative_control_without_its_place_a_page_sees_all_again(page: Page, state: Path) -> None:
    path = f"{loop_path(page)}/events"
    events = page.events(path)
    events.texts("Writes the parser")
    last = events.last
    events.close()
    again, resumed = page.events(path), page.events(path, last)
    assert "Reads the grammar" in again.texts("Writes the parser")
    say(state, "new")
    assert resumed.texts("new") == ["new"]
    again.close()
    resumed.close()


def test_the_page_restarts_under_an_open_page(
    environment: dict[str, str], tmp_path: Path, state: Path
) -> None:
    with served(environment, tmp_path) as page:
        page.enter()
        path = f"{loop_path(page)}/events"
        events = page.events(path)
        events.texts("Writes the parser")
        last, cookie, port = events.last, page.cookie, page.port
        began = time.monotonic()
        page.process.send_signal(signal.SIGTERM)
        assert page.process.wait(30) == 0
        assert time.monotonic() - began < 15
        events.close()
    say(state, "said meanwhile")
    with served(environment, tmp_path, "--port", str(port)) as page:
        page.cookie = cookie  # the device need not come in again
        events = page.events(path, last)
        assert events.texts("said meanwhile") == ["said meanwhile"]
        events.close()


def test_a_state_directory_that_vanishes_and_comes_again(page: Page, state: Path) -> None:
    events = page.events(f"{loop_path(page)}/events")
    events.texts("Writes the parser")
    aside = state.with_name("aside")
    state.rename(aside)
    _, data = events.next("region")
    while "is gone" not in data["html"]:
        _, data = events.next("region")
    aside.rename(state)
    while "is gone" in data["html"] or data["id"] != "now":
        _, data = events.next("region")
    say(state, "again there")
    assert "again there" in events.texts("again there")
    events.close()


def test_forgetting_ends_open_streams(
    page: Page, environment: dict[str, str], tmp_path: Path
) -> None:
    import subprocess

    from tests.support.program import PROGRAM

    events = page.events(f"{loop_path(page)}/events")
    events.texts("Writes the parser")
    done = subprocess.run(
        [*PROGRAM, "serve", "--forget"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0
    while events.next()[0] != "end":
        pass
    events.close()
    assert page.ask("/").status == 401


def test_programs_hear_every_iteration_once(page: Page, state: Path) -> None:
    path = loop_path(page).replace("/loop/", "/api/v1/loops/") + "/events"
    events = page.events(path)
    assert [events.next("iteration")[1]["number"] for _ in range(3)] == [9, 10, 11]
    last = events.last
    events.close()
    journal(state, 12, 13)
    events = page.events(path, last)
    assert [events.next("iteration")[1]["number"] for _ in range(2)] == [12, 13]
    events.close()


def test_a_rotated_journal_is_told_on(page: Page, state: Path) -> None:
    """Of open streams, and of one that comes back with a place in the old file."""
    path = loop_path(page).replace("/loop/", "/api/v1/loops/") + "/events"
    shown, programs = page.events(f"{loop_path(page)}/events"), page.events(path)
    numbers = [programs.next("iteration")[1]["number"] for _ in range(3)]
    cut_off = programs.last
    rotated = Journal(StateRoot(str(state)))
    rotated.open()
    for number in range(12, 40):
        rotated.append(record(number))
    assert rotated.rotate(4_000)
    rotated.append(record(40))
    rotated.close()
    numbers += [programs.next("iteration")[1]["number"] for _ in range(29)]
    assert numbers == list(range(9, 41))
    again = page.events(path, cut_off)
    assert [again.next("iteration")[1]["number"] for _ in range(29)] == list(range(12, 41))
    _, data = shown.next("region")
    while data["id"] != "history" or "Step 40 is done" not in data["html"]:
        _, data = shown.next("region")
    for events in (shown, programs, again):
        events.close()


@pytest.mark.slow
def test_so_many_pages_may_be_open(page: Page, state: Path) -> None:
    path = f"{loop_path(page)}/events"
    streams = [page.events(path) for _ in range(MOST_STREAMS)]
    for events in streams:
        events.texts("Writes the parser")
    assert not _opens(page, path)
    refused = page.ask(path)
    assert refused.status == 503
    assert "close one" in refused.text
    assert page.ask("/").status == 200
    say(state, "to all of them")
    for events in streams:
        assert events.texts("to all of them") == ["to all of them"]
        events.close()
    wait_until(lambda: _opens(page, path), "room for another one")


@pytest.mark.anyio
async def test_no_more_may_be_open_that_ask_all_at_once(tmp_path: Path) -> None:
    """All are let in before the first of them begins."""
    here = Site(App(tmp_path).gate, (), asyncio.Event())
    request = SimpleNamespace(state=SimpleNamespace(session=Session("token", "")))
    asked = [
        here._events(request, BoardStream(here.known, ""), 0.01) for _ in range(MOST_STREAMS + 5)
    ]
    bodies = [one.body_iterator for one in asked]
    begun = [body for body in bodies if await anext(body, None) is not None]
    assert len(begun) == MOST_STREAMS
    await begun[0].aclose()
    late = here._events(request, BoardStream(here.known, ""), 0.01).body_iterator
    assert await anext(late, None) is not None
    for body in (*begun, late):
        await body.aclose()
    assert here._streams == 0


def _opens(page: Page, path: str) -> bool:
    try:
        page.events(path).close()
    except AssertionError:
        return False
    return True


# -- without a server ------------------------------------------------------------------------------


def texts(follower: Follower, place: Place | None = None) -> list[str]:
    return [item.text for item in follower.begin(place)]


def test_half_a_line_waits_for_its_end(state: Path) -> None:
    log = state / "logs/runs/000012-executor/stdout.log"
    follower = Follower(str(state))
    texts(follower)
    with log.open("a") as file:
        file.write("half")
        file.flush()
        assert follower.new() == []
        place = follower.place("")
        file.write(" and whole\n")
    assert [item.text for item in follower.new()] == ["half and whole"]
    assert texts(Follower(str(state)), place) == ["half and whole"]


def test_a_message_in_pieces_is_not_lost_in_between(state: Path) -> None:
    """What a message's first pieces said is not behind the place until all of it was shown."""
    log = state / "logs/runs/000012-executor/stdout.log"

    def event(**fields: object) -> str:
        return json.dumps({"timestamp": "2030-01-01T00:00:00Z", **fields}) + "\n"

    def piece(text: str) -> str:
        return event(type="message", role="assistant", content=text, delta=True)

    log.write_text(event(type="init", session_id="s", model="gemini-pro") + piece("Hello, "))
    first = Follower(str(state))
    assert not any("Hello" in text for text in texts(first))
    place = first.place("")
    with log.open("a") as file:
        file.write(piece("world") + event(type="result", status="success", stats={}))
    told = [item.text for item in first.new()]
    assert told[0] == "Hello, world"  # and not the session, which was told before
    assert texts(Follower(str(state)), place) == told


def test_a_flood_is_skipped_and_said(state: Path) -> None:
    follower = Follower(str(state))
    texts(follower)
    say(state, *("x" * 100 for _ in range(60_000)), "the end of it")
    found = [item.text for item in follower.new()]
    assert any("are not shown here" in text for text in found)
    assert found[-1] == "the end of it"
    assert sum(map(len, found)) < 1_000_000


@pytest.mark.slow
def test_nothing_is_kept_for_an_event(state: Path) -> None:
    """A million bytes of events for fifty pages leave no memory behind."""
    streams = [LoopStream("app", _target(state), None) for _ in range(50)]
    for stream in streams:
        stream.step()
    me = psutil.Process()
    for rounds in range(12):
        say(state, *(f"event {rounds} {number}" for number in range(1000)))
        journal(state, 20 + rounds)
        told = sum(len(stream.step()) for stream in streams)
        assert told > 50 * 10_000
        if rounds == 3:
            before = me.memory_info().rss
    assert me.memory_info().rss - before < 8 * 2**20
    for stream in streams:
        stream.close()


def test_a_place_that_is_none_begins_anew(state: Path) -> None:
    for text in ("", "x", "1-1.run.x.0", "1-1.run.0", "a.b.c.d.e", "1-1.000012-executor.99999.0"):
        place = Place.read(text)
        found = texts(Follower(str(state)), place)
        assert place is None or place.stdout == 99999
        assert found, text


def test_a_journal_stream_survives_a_journal_that_is_gone(state: Path) -> None:
    stream = JournalStream(_target(state), "")
    assert stream.step().count(b"event: iteration") == 3
    shutil.rmtree(state)
    assert stream.step() == b""


def test_pages_that_nobody_reads_leave_no_descriptor(page: Page, state: Path) -> None:
    path = f"{loop_path(page)}/events"

    def open_files() -> int:
        return len(os.listdir(f"/proc/{page.process.pid}/fd"))

    before = open_files()
    streams = [page.events(path) for _ in range(10)]
    for events in streams:
        events.texts("Writes the parser")
    assert open_files() > before
    for events in streams:
        events.close()
    wait_until(lambda: open_files() <= before, "descriptors to be closed")


def _target(state: Path):
    from codex_self_iter.screens.loops import Target

    return Target("app", str(state.parent), str(state))


def test_the_columns_are_told_when_they_change(page: Page, state: Path) -> None:
    events = page.events("/events")
    _, data = events.next("region")
    assert data["id"] == "columns"
    status = state / "status.json"
    changed = json.loads(status.read_text()) | {"state": "paused", "run": None}
    status.write_text(json.dumps(changed))
    _, data = events.next("region")
    assert "paused" in data["html"]
    events.close()
    # whoever has them is told nothing, until they change again
    events = page.events("/events", events.last)
    status.write_text(json.dumps(changed | {"state": "cooldown"}))
    _, data = events.next("region")
    assert "cooldown" in data["html"]
    events.close()


@pytest.mark.anyio
async def test_a_page_that_has_just_been_loaded_is_not_told_what_it_shows(
    held: ExitStack, tmp_path: Path
) -> None:
    """Else all of it is laid out twice, and what somebody has marked in it is gone."""
    held.enter_context(on_disk(tmp_path, "app", cases(time.time())["running"]))
    app = App(tmp_path)
    await app.enter()
    since = re.search('data-since="([0-9a-f]+)"', (await app.ask("/")).text)
    known = Known()
    assert since
    assert BoardStream(known, since[1]).step() == b""
    assert b"columns" in BoardStream(known, "").step()  # negative control
