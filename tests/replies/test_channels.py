"""What channels make of odd addresses and odd servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.replies import channels
from codex_self_iter.replies.channels import Channel, ChannelError, Ntfy, Telegram, channel
from tests.support.talkers import ntfy
from tests.support.talkers import telegram as telegram_api

TOKEN = "123:abc"


def telegram(monkeypatch: pytest.MonkeyPatch, *updates: dict[str, Any]) -> Telegram:
    """A bot whose server says these updates, and its own name."""
    bot = Telegram(TOKEN)
    answers = {"getMe": {"username": "My_bot"}, "getUpdates": list(updates)}
    monkeypatch.setattr(bot, "_ask", lambda method, *_: answers[method])
    return bot


def update(number: int, **message: Any) -> dict[str, Any]:
    return {"update_id": number, "message": {"from": {"id": 7}, "date": 1, **message}}


def test_an_address_of_numbers_is_asked_as_it_is_written() -> None:
    one = channel("ntfy://[::1]:8080/talk")
    assert isinstance(one, Ntfy)
    assert one._base == "http://[::1]:8080/talk"


def test_another_login_is_the_same_topic() -> None:
    one, other = channel("ntfys://tk_a@example.org/t"), channel("ntfys://tk_b@example.org/t")
    assert one.key == other.key
    assert one.login != other.login


def test_numbers_that_begin_anew_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    found, mark = telegram(monkeypatch, update(10, text="/status")).wait("700")
    assert mark == "11"
    assert [one.heard.text for one in found] == ["/status"]


def test_what_is_for_another_bot_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ("/stop@another_bot", "/stop@MY_BOT", "/stop")
    bot = telegram(monkeypatch, *(update(n, text=text) for n, text in enumerate(texts)))
    assert [one.heard.text for one in bot.wait("0")[0]] == ["/stop@MY_BOT", "/stop"]


def test_a_caption_is_a_text_and_a_message_without_a_chat_is_no_defect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bot = telegram(monkeypatch, update(1, caption="look"), {"update_id": 2}, {})
    assert [one.heard.text for one in bot.wait("0")[0]] == ["look", "", ""]


def read(one: Channel, count: int) -> list[str]:
    """The texts of so many replies."""
    found, mark = list[str](), "0"
    while len(found) < count:
        more, mark = one.wait(mark)
        found += [told.heard.text for told in more]
    one.close()
    return found


def test_a_topic_is_read_plainly_and_what_is_no_message_passed_over() -> None:
    with ntfy() as topic:
        topic.write("a-long-word first")
        topic.messages.append({"event": "message", "time": 1, "id": 3, "message": "no id"})
        topic.messages.append({"event": "message", "time": 1, "id": "x", "message": [[]]})
        topic.write("a-long-word second")
        one = channel(f"ntfy://127.0.0.1:{topic.port}/talk")
        assert read(one, 3) == ["first", "", "second"]
        assert topic.encodings == ["identity"]


def test_brackets_without_end_are_no_message() -> None:
    from codex_self_iter.replies.channels import _parsed

    assert _parsed(b"[" * 200_000) is None
    assert _parsed(b"{}") == {}


@pytest.mark.parametrize("held_back", ["headers", "nothing"])
def test_a_topic_behind_a_proxy_that_holds_streams_back_is_asked_now_and_then(
    monkeypatch: pytest.MonkeyPatch, held_back: str
) -> None:
    monkeypatch.setattr(channels, "SILENT_SEC", 0.3)
    monkeypatch.setattr(channels, "BETWEEN_SEC", 0.05)
    with ntfy() as topic:
        topic.held_back = held_back
        topic.write("a-long-word first")
        one = channel(f"ntfy://127.0.0.1:{topic.port}/talk")
        one.begin("0")
        first, mark = one.wait("0")
        topic.write("a-long-word second")
        second, mark = one.wait(mark)
        assert [told.heard.text for told in (*first, *second)] == ["first", "second"]
        assert one.wait(mark) == ([], mark)
        assert topic.polled == 3 + (held_back == "nothing")
        topic.faults.append(500)
        with pytest.raises(ChannelError, match="answers 500"):
            one.wait(mark)
        topic.held_back = ""
        topic.write("a-long-word third")
        more = one.wait(mark)[0] or one.wait(mark)[0]  # the stream begins with a word of its own
        assert [told.heard.text for told in more] == ["third"]
        assert topic.readers == 1
        one.close()


def test_a_stream_that_falls_silent_later_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "SILENT_SEC", 0.3)
    with ntfy() as topic:
        one = channel(f"ntfy://127.0.0.1:{topic.port}/talk")
        one.begin("0")
        one.wait("0")
        with pytest.raises(ChannelError, match="does not answer"):
            one.wait("0")
        assert topic.polled == 0


def test_an_answer_without_end_is_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "MOST_BYTES", 1000)
    monkeypatch.setattr(channels, "SILENT_SEC", 0.3)
    with ntfy() as topic:
        topic.held_back = "headers"
        topic.write("x" * 2000)
        one = channel(f"ntfy://127.0.0.1:{topic.port}/talk")
        with pytest.raises(ChannelError, match="what is no message"):
            one.wait("0")


def test_a_bot_whose_server_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with telegram_api(tmp_path) as bot:
        for name, value in bot.environment.items():
            monkeypatch.setenv(name, value)
        one = Telegram(bot.environment["TELEGRAM_TOKEN"])
        one.begin("0")
        monkeypatch.setattr(channels, "CONNECT_SEC", 0.3)
        monkeypatch.setattr(channels, "POLL_SEC", 0.2)
        bot.faults.append("hang")
        with pytest.raises(ChannelError, match="does not answer"):
            one.wait("0")
