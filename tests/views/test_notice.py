"""Words on a lock screen: for each moment as it was agreed (`python -m tests.views.test_notice` writes
them anew); whatever an agent says is one clean, bounded text."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest

from codex_self_iter.core.mailbox import Notice
from codex_self_iter.settings.types import EVENTS
from codex_self_iter.views.notice import MOST_LISTED, TITLES, message, payload, summary

SHOWN = Path(__file__).parent / "shown" / "notices.txt"
NOW = 1_893_456_000.0
WHY = {
    "completed": "Every item of the plan is ticked; the gates pass.",
    "stopped": "a STOP file",
    "stagnated": "going in circles: the same goal for 12 iterations (max_stagnation = 12); the goal: Mend it",
    "crashed": "KeyError: 'x'; the traceback is in ~/.local/state/codex-self-iter/crash.log",
    "blocked": "auth: codex is not logged in: codex login; unless that is done, the loop ends",
    "agent_stopped": "which database?",
    "budget": "80 % of [budget] max_cost_usd = 5 is used",
    "outage": "limit: usage limit reached; it is tried again in 5.0 h",
    "cooldown": "nothing to do, 3 times in a row",
    "digest": "Digest: 2 loops, 1 needs you, 12 iterations, 2 completed, 34.0k tokens, $1.20\n"
    "shop needs you: blocked: codex is not logged in, nothing done\n"
    "api: running, 12 iterations, 7 items ticked, $1.20\n1 loop: nothing happened",
}


def word(event: str, **more: object) -> Notice:
    made = Notice(
        "k", event, WHY.get(event, "why"), NOW, "shop", "/srv/my shop", "/srv/my shop/.s",
        "running", NOW - 7380, 12, 8, 12, 4, "Added the parser",
    )  # fmt: skip
    return dataclasses.replace(made, **more)  # type: ignore[arg-type]


def shown() -> str:
    os.environ["TZ"] = "UTC"
    time.tzset()
    before = word("budget", at=NOW - 3600, iteration=9, done=6)
    told = [message(word(event), before, page="https://loops.example.org") for event in EVENTS]
    told.append(message(word("blocked", since=NOW, total=0, done=0, changed=0, said=""), None))
    told.append(message(word("blocked"), before, dropped=3, markdown=True))
    told.append(message(word("blocked", gone=True), None, page="https://loops.example.org/"))
    told.append(summary([word(event, at=NOW + n) for n, event in enumerate(EVENTS)], dropped=2))
    return "\n\n".join(f"== {one.title}\n{one.body}" for one in told) + "\n"


def test_each_moment_reads_as_it_was_agreed() -> None:
    assert shown() == SHOWN.read_text()


def test_every_event_has_words() -> None:
    assert set(EVENTS) <= TITLES.keys()


@pytest.mark.parametrize("markdown", [False, True])
def test_what_an_agent_says_is_clean_and_bounded(markdown: bool) -> None:
    evil = "\x1b[31m<b>x</b>\n# Title\r\n" + "y" * 10_000
    told = message(
        word("blocked", text=evil, said=evil, loop=evil), word("budget"), markdown=markdown
    )
    many = summary([word("blocked", text=evil, loop=evil)] * 50, markdown=markdown)
    for one in (told, many):
        assert len(one.title) <= 150
        assert len(one.body) < 4000, "Telegram takes 4096"
        assert "\x1b" not in one.title + one.body
        assert "\n" not in one.title
        assert "\n# Title" not in one.body
    assert many.body.count(": \\") == 0
    assert len(many.body.splitlines()) < (2 if markdown else 1) * (MOST_LISTED + 5)


def test_a_command_gets_plain_values() -> None:
    assert payload(word("blocked"))["plan"] == {"done": 8, "total": 12}


if __name__ == "__main__":
    SHOWN.write_text(shown())
