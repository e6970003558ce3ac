"""Each moment of docs/notifications.md at each kind of target: a command, a webhook, ntfy, mail and
Telegram, by real supervisors."""

from __future__ import annotations

import email.utils
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from codex_self_iter.settings.types import EVENTS
from codex_self_iter.telling.__main__ import rest_of
from codex_self_iter.views.notice import TITLES
from tests.claims.scenes import defect
from tests.support.control_steps import FAILS, PLANNED, WORK, long_run, notify, told
from tests.support.harness import Workspace, wait_until
from tests.support.listeners import Listener, Telegram, http, mail, telegram

TOKEN, CHAT = "123456789:AAEhBOweik6ad6PsVMRxjeQKXkq8rQQMwpk", "12345"
DONE = {**WORK, "block": {"completed": True, "summary": "all of it"}}
LIMITED = {
    "exit": 1,
    "raw": "ERROR: usage limit reached, try again in 2 days\n",
}


class Five(NamedTuple):
    """One target of each kind."""

    ws: Workspace
    hook: Listener
    post: Listener
    bot: Telegram

    def table(self, event: str, **keys: Any) -> str:
        """All five, which are told of that event only."""
        where = {
            "web": f"json://127.0.0.1:{self.hook.port}/in",
            "ntfy": f"ntfy://127.0.0.1:{self.hook.port}/topic",
            "mail": f"mailto://127.0.0.1:{self.post.port}?from=loop@example.org&to=you@example.org",
            "phone": "tgram://${TOKEN}/" + CHAT,
        }
        targets = "".join(
            f'[[notify.targets]]\nname = "{name}"\nurl = {json.dumps(url)}\n'
            for name, url in where.items()
        )
        return notify(self.ws, events=[event], **keys) + targets

    def titles(self) -> list[list[str]]:
        """The titles that each has heard, in the order command, webhook, ntfy, mail, Telegram."""
        return [
            [one["title"] for one in told(self.ws)],
            [one["title"] for one in self.hook.heard if one["path"] == "/in"],
            [one["title"] for one in self.hook.heard if one["path"] != "/in"],
            [one["subject"] for one in self.post.heard],
            [re.sub("</?b>", "", one["text"].splitlines()[0]) for one in self.bot.heard],
        ]


@pytest.fixture
def five(ws: Workspace, tmp_path: Path) -> Iterator[Five]:
    with ExitStack() as held:
        bot = held.enter_context(telegram(tmp_path))
        ws.environment |= {**bot.environment, "TOKEN": TOKEN}
        yield Five(ws, held.enter_context(http()), held.enter_context(mail()), bot)


def ends(five: Five, event: str, step: dict[str, Any], tables: str = "", **keys: Any) -> None:
    """A loop that ends by itself."""
    five.ws.config(tables + five.table(event), **keys)
    five.ws.script(step)
    five.ws.run()


def goes_on(five: Five) -> None:
    """A loop that tells it and goes on, until it is stopped."""
    process = five.ws.start()
    wait_until(lambda: all(five.titles()), lambda: f"{five.titles()}; {five.ws.log()[-2000:]}")
    five.ws.cli("stop")
    five.ws.ended(process)


def crashed(five: Five) -> None:
    five.ws.config(five.table("crashed"))
    five.ws.script(long_run())
    environment, flag = defect(five.ws, "supervisor.senses", "Senses.look")
    process = five.ws.start(environment=environment)
    five.ws.wait_runs(1)
    flag.touch()
    assert five.ws.ended(process) == 1


def outage(five: Five) -> None:
    five.ws.config(five.table("outage"), backoff_base_sec=0, backoff_max_sec=900)
    five.ws.script(LIMITED)
    goes_on(five)


def cooldown(five: Five) -> None:
    five.ws.config(five.table("cooldown"), mode="roles", planner_stop_backoff_sec=0.05)
    five.ws.script({"block": {**PLANNED, "stop": True}})
    goes_on(five)


def digest(five: Five) -> None:
    """The supervisor was down at the hour."""
    five.ws.config(max_iterations=1)
    five.ws.script(WORK, long_run())
    five.ws.run()
    yesterday = {"digest_day": datetime.now().astimezone().toordinal() - 1}
    (five.ws.state / "outbox.json").write_text(json.dumps(yesterday))
    five.ws.config(five.table("digest", digest_at="00:00"))
    goes_on(five)


STAGNATES: dict[str, Any] = {"max_stagnation": 2, "no_change_backoff_sec": 0.05}
ASKS = {**WORK, "block": {"stop": True, "reason": "which database?"}}
LITTLE = "[budget]\nmax_hours = 1000\nnotice_at = 0.0000000001\n"
CAUSES: dict[str, Callable[[Five], None]] = {
    "completed": lambda five: ends(five, "completed", DONE),
    "stopped": lambda five: ends(five, "stopped", WORK, max_iterations=1),
    "stagnated": lambda five: ends(
        five, "stagnated", {"block": {"next_goal": "the same"}}, **STAGNATES
    ),
    "blocked": lambda five: ends(five, "blocked", FAILS, max_consecutive_errors=1),
    "agent_stopped": lambda five: ends(five, "agent_stopped", ASKS),
    "budget": lambda five: ends(five, "budget", WORK, LITTLE, max_iterations=2),
    "crashed": crashed,
    "outage": outage,
    "cooldown": cooldown,
    "digest": digest,
}


def test_each_event_is_caused() -> None:
    assert set(CAUSES) == set(EVENTS)


LATER = email.utils.format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
TELEGRAM = b'{"ok": false, "parameters": {"retry_after": 35}}'


@pytest.mark.parametrize(
    ("status", "header", "body", "least", "most"),
    [
        (429, "90", b"", 90, 90),
        pytest.param(503, LATER, b"", 3600, 7200, id="a date"),
        (429, "Wed, 21 Oct 2015 07:28:00 GMT", b"", 0, 0),
        (429, "", TELEGRAM, 35, 35),
        (429, "50", TELEGRAM, 50, 50),
        (429, "soon", b"[]", 0, 0),
        (429, "nan", b'{"parameters": {"retry_after": "inf"}}', 0, 0),
        (429, "-5", b"", 0, 0),
        (500, "90", TELEGRAM, 0, 0),
    ],
)
def test_what_a_server_asks_for_is_understood(
    status: int, header: str, body: bytes, least: float, most: float
) -> None:
    response = requests.Response()
    response.status_code, response.raw = status, io.BytesIO(body)
    response.headers["Retry-After"] = header
    assert least <= rest_of(response) <= most


@pytest.mark.slow
@pytest.mark.parametrize("event", CAUSES)
def test_it_arrives_at_each_kind_of_target(five: Five, event: str) -> None:
    CAUSES[event](five)
    title = f"work space: {TITLES[event]}"
    if event == "digest":
        title = "Digest: 1 loop, none needs you, 1 iteration"
    heard = five.titles()
    assert heard == [[title]] * 5, five.ws.log()[-3000:]
    assert five.bot.heard[0]["token"] == TOKEN
    assert str(five.bot.heard[0]["chat_id"]) == CHAT
    assert TOKEN not in five.ws.log() + json.dumps(five.ws.status())


@pytest.mark.slow
def test_a_server_that_says_when_to_come_back_is_not_asked_before(five: Five) -> None:
    """Telegram in its answer, the webhook by a header of seconds, and ntfy (the same server) too."""
    five.bot.faults, five.bot.retry_after = [429], "7200"
    five.hook.faults, five.hook.retry_after = [503, 429], "5400"
    ends(five, "completed", DONE)
    box = json.loads((five.ws.state / "outbox.json").read_text())
    (entry,) = box["entries"]
    assert entry["outcomes"] == {"command": "sent", "mail": "sent"}
    at = entry["notice"]["at"]
    waits = {one["target"]: one["due"] - at for one in entry["pending"]}
    assert 7200 <= waits["phone"] < 7300
    assert 5400 <= waits["web"] < 5500
    assert 5400 <= waits["ntfy"] < 5500
    assert set(box["rests"]) == {"phone", "web", "ntfy"}
    tries = five.bot.tries, five.hook.tries
    five.ws.run("--max-iterations", "1")
    assert (five.bot.tries, five.hook.tries) == tries
    assert len(five.post.heard) == len(told(five.ws)) >= 1
