"""Where a person answers from, on this machine: an ntfy server with topics, and Telegram's bot API.

Telegram's address is fixed: the real library reaches the server here by a proxy that is named in the
environment, over TLS with a certificate of its own."""

from __future__ import annotations

import itertools
import json
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "123456:AAxyzAAxyzAAxyzAAxyz"


class Topic:
    """One topic of an ntfy server: what was written there, and who reads it.

    Attributes:
        faults: how the next requests to read are answered, an HTTP status each; then 200.
        readers: how many read now; asked: `since` of each reader."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.faults: list[int] = []
        self.asked: list[str] = []
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
            since = urllib.parse.parse_qs(self.path.partition("?")[2]).get("since", ["0"])[0]
            topic.asked.append(since)
            fault = topic.faults.pop(0) if topic.faults else 200
            self.send_response(fault)
            if fault != 200:
                self.send_header("content-length", "0")
                self.end_headers()
                return
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
            self.close_connection = True

        def _send(self, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
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
        said: the bodies of `sendMessage`; polls: how often it was asked for updates.
        mute: whether it can say nothing.
        answers: how the next requests for updates are answered: (status, object); then as usual."""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self.updates: list[dict[str, Any]] = []
        self.said: list[dict[str, Any]] = []
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.mute = False
        self.polls = 0
        self.polling = 0
        self.most_polling = 0
        self.over = False
        self.changed = threading.Condition()
        self._numbers = itertools.count(700)

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


@contextmanager
def telegram(place: Path) -> Iterator[Bot]:
    """Telegram's API, behind a proxy; `place` is where its certificate is made."""
    bot = Bot()
    key, certificate = place / "telegram.key", place / "telegram.pem"
    make = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=api.telegram.org -addext subjectAltName=DNS:api.telegram.org"
    )
    command = [*make.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            if not self.path.startswith(f"/bot{TOKEN}/"):
                return self._answer(401, {"ok": False, "description": "Unauthorized"})
            asked = json.loads(data) if data.startswith(b"{") else {}
            if self.path.endswith("/getUpdates"):
                return self._answer(*self._updates(asked))
            if self.path.endswith("/sendMessage"):
                if bot.mute:
                    return self._answer(500, {"ok": False})
                bot.said.append(asked)
            return self._answer(200, {"ok": True, "result": {"message_id": 1}})

        def _updates(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            with bot.changed:
                bot.polls += 1
                if bot.answers:
                    return bot.answers.pop(0)
                bot.polling += 1
                bot.most_polling = max(bot.most_polling, bot.polling)
                deadline = time.monotonic() + asked["timeout"]
                found: list[dict[str, Any]] = []
                while not (found or bot.over) and time.monotonic() < deadline:
                    found = [one for one in bot.updates if one["update_id"] >= asked["offset"]]
                    if not found:
                        bot.changed.wait(0.5)
                bot.polling -= 1
                return 200, {"ok": True, "result": found}

        def _answer(self, status: int, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            assert self.path == "api.telegram.org:443"
            with socket.create_connection(api.server_address[:2]) as there:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_pass_on, args=(there, self.connection))
                back.start()
                _pass_on(self.connection, there)
                back.join()

        def log_message(self, *args: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with _serving(Handler, context) as api, _serving(Proxy) as proxy:
        bot.environment = {
            "HTTPS_PROXY": f"http://127.0.0.1:{proxy.server_address[1]}",
            "REQUESTS_CA_BUNDLE": str(certificate),
            "TELEGRAM_TOKEN": TOKEN,
        }
        try:
            yield bot
        finally:
            with bot.changed:
                bot.over = True
                bot.changed.notify_all()


@contextmanager
def _serving(handler: Any, context: ssl.SSLContext | None = None) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for one in (source, target):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
