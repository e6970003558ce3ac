"""Where a person answers from, on this machine: an ntfy server with topics, and Telegram's bot API."""

from __future__ import annotations

import itertools
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.listeners import Telegram
from tests.support.listeners import telegram as api_of_telegram

TOKEN = "123456:AAxyzAAxyzAAxyzAAxyz"


class Topic:
    """One topic of an ntfy server: what was written there, and who reads it.

    Attributes:
        faults: how the next requests to read are answered, an HTTP status each; then 200.
        readers: how many read now; asked: `since` of each reader;
            encodings: what each would unpack; logins: how each says who it is.
        refusals: how the next requests to write are answered, an HTTP status each; then 200.
        held_back: whether a proxy on the way keeps streams to itself: their beginning ("headers" come),
            or all of them ("nothing" does)."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.faults: list[int] = []
        self.asked: list[str] = []
        self.encodings: list[str] = []
        self.logins: list[str] = []
        self.refusals: list[int] = []
        self.held_back = ""
        self.polled = 0
        self.readers = 0
        self.port = 0
        self.over = False
        self.changed = threading.Condition()
        self._numbers = itertools.count(1)

    def write(self, text: str, *, at: float | None = None, key: str = "", title: str = "") -> str:
        """Somebody writes; the message's id."""
        with self.changed:
            number = next(self._numbers)
            message = {
                "id": key or f"m{number:011}",
                "time": int(time.time() if at is None else at),
                "event": "message",
                "topic": "talk",
                "message": text,
                **({"title": title} if title else {}),
            }
            self.messages.append(message)
            self.changed.notify_all()
        return str(message["id"])

    def answers(self) -> list[str]:
        """What the program has said there."""
        return [one["message"] for one in self.messages if one.get("title") == "codex-self-iter"]

    def drop_readers(self) -> None:
        """End every connection that reads."""
        with self.changed:
            self._dropped = True
            self.changed.notify_all()

    _dropped = False
    torn = False
    """Whether a connection that is ended lacks its end; once."""

    def _after(self, since: str) -> int:
        ids = [one["id"] for one in self.messages]
        if since in ids:
            return ids.index(since) + 1
        if since.isdigit():
            return sum(one["time"] < int(since) for one in self.messages)
        return 0


@contextmanager
def ntfy() -> Iterator[Topic]:
    """An ntfy server with one topic, `ntfy://127.0.0.1:PORT/talk`."""
    topic = Topic()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(self.path.partition("?")[2])
            since = query.get("since", ["0"])[0]
            topic.logins.append(self.headers.get("authorization", ""))
            topic.asked.append(since)
            topic.encodings.append(self.headers.get("accept-encoding", ""))
            fault = topic.faults.pop(0) if topic.faults else 200
            self.send_response(fault)
            if fault != 200:
                self.send_header("content-length", "0")
                self.end_headers()
                return None
            if "poll" in query:
                return self._all(since)
            if topic.held_back:
                return self._hold_back()
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self._send({"id": "o", "event": "open", "topic": "talk"})
            with topic.changed:
                topic.readers += 1
                at, topic._dropped = topic._after(since), False
                while not (topic.over or topic._dropped):
                    for one in topic.messages[at:]:
                        at += 1
                        self._send(one)
                    topic.changed.wait(0.5)
                topic.readers -= 1
            if not topic.torn:
                self.wfile.write(b"0\r\n\r\n")
            topic.torn = False
            self.close_connection = True
            return None

        def _all(self, since: str) -> None:
            topic.polled += 1
            lines = [json.dumps(one) + "\n" for one in topic.messages[topic._after(since) :]]
            data = "".join(lines).encode()
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _hold_back(self) -> None:
            if topic.held_back == "headers":
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
            with topic.changed:
                while not topic.over:
                    topic.changed.wait(0.5)
            self.close_connection = True

        def _send(self, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            status = topic.refusals.pop(0) if topic.refusals else 200
            if status != 200:
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()
                return
            if self.path == "/":  # as apprise has it
                told = json.loads(data)
                topic.write(told["message"], title=told.get("title", ""))
            else:
                topic.write(data.decode(), title=self.headers.get("title", ""))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args: object) -> None:
            pass

    with _serving(Handler) as server:
        topic.port = server.server_address[1]
        try:
            yield topic
        finally:
            with topic.changed:
                topic.over = True
                topic.changed.notify_all()


class Bot:
    """A bot of Telegram: what people write to it, and what it says.

    Attributes:
        environment: what a program needs to reach it.
        faults: how the next requests are answered, an HTTP status each; then as usual.
        said: the bodies of `sendMessage`; polling: how many wait for updates now."""

    def __init__(self, api: Telegram) -> None:
        self.environment = api.environment | {"TELEGRAM_TOKEN": TOKEN}
        self.faults = api.faults
        self.updates: list[dict[str, Any]] = []
        self.said: list[dict[str, Any]] = []
        self.polling = 0
        self.most_polling = 0
        self.over = False
        self.changed = threading.Condition()
        self._numbers = itertools.count(700)
        api.answers["getMe"] = lambda _asked: {"username": "My_bot"}
        api.answers |= {"getUpdates": self._updates, "sendMessage": self.said.append}

    def write(self, text: str, sender: int, *, about: str = "", **more: Any) -> None:
        """Somebody writes; `more` are further fields of the message."""
        with self.changed:
            number = next(self._numbers)
            message: dict[str, Any] = {
                "message_id": number,
                "from": {"id": sender, "is_bot": False},
                "chat": {"id": sender},
                "date": int(time.time()),
                "text": text,
                **({"reply_to_message": {"text": about}} if about else {}),
                **more,
            }
            self.updates.append({"update_id": number, "message": message})
            self.changed.notify_all()

    def texts(self) -> list[str]:
        """All that the bot has said."""
        return [one["text"] for one in self.said]

    def _updates(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        with self.changed:
            self.polling += 1
            self.most_polling = max(self.most_polling, self.polling)
            deadline = time.monotonic() + asked["timeout"]
            while True:
                found = [one for one in self.updates if one["update_id"] >= asked["offset"]]
                if found or self.over or time.monotonic() > deadline:
                    break
                self.changed.wait(0.5)
            self.polling -= 1
            return found


@contextmanager
def telegram(place: Path) -> Iterator[Bot]:
    """Telegram's API; `place` is where its certificate is made."""
    with api_of_telegram(place) as api:
        bot = Bot(api)
        try:
            yield bot
        finally:
            with bot.changed:
                bot.over = True
                bot.changed.notify_all()


@contextmanager
def _serving(handler: Any) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
