"""Those who are told, on this machine: a webhook and ntfy over HTTP, with faults, a mail server, and what
plays Telegram for programs that do not know it."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiosmtpd.controller import Controller

from tests.support import certificate


class Listener:
    """What was heard, and how the next requests are answered: an HTTP status each, or "hang", or after so
    many seconds (a float); then 200. `retry_after`: what is sent with every answer; `logins`: how each says who it is."""

    def __init__(self) -> None:
        self.retry_after = "1"
        self.heard: list[dict[str, Any]] = []
        self.logins: list[str] = []
        self.faults: list[int | str | float] = []
        self.tries = 0
        self.port = 0
        self.over = threading.Event()


@contextmanager
def http() -> Iterator[Listener]:
    """A webhook (`json://127.0.0.1:PORT/`) and an ntfy server (`ntfy://127.0.0.1:PORT/topic`)."""
    told = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            told.tries += 1
            fault = told.faults.pop(0) if told.faults else 200
            if fault == "hang":
                told.over.wait(120)
                return
            if isinstance(fault, float):
                told.over.wait(fault)
                fault = 200
            if fault == 200:
                told.heard.append({"path": self.path, **json.loads(data)})
                told.logins.append(self.headers.get("authorization", ""))
            self.send_response(int(fault))
            self.send_header("retry-after", told.retry_after)
            if fault == 301:
                self.send_header("location", "/elsewhere")
            self.end_headers()
            self.wfile.write(b"{}" if fault == 200 else b"not json at all")

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with _serving(Handler, told):
        yield told


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # who asks may be killed in between


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler], told: Listener) -> Iterator[None]:
    server = _Server(("127.0.0.1", 0), handler)
    told.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        told.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Telegram(Listener):
    """A bot's server. `heard` has each call of a method that was answered, with its `method` and `token`.

    Attributes:
        answers: by method, what its `result` is, made of what was asked; `{}` for any other.
        environment: with it a program takes this for api.telegram.org."""

    def __init__(self, certificate: Path) -> None:
        super().__init__()
        self.answers: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self._certificate = str(certificate)

    @property
    def environment(self) -> dict[str, str]:
        proxy = f"http://127.0.0.1:{self.port}"
        names = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
        trust = dict.fromkeys(names, self._certificate)
        return {"HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": "", "no_proxy": "", **trust}


@contextmanager
def telegram(directory: Path) -> Iterator[Telegram]:
    """Telegram (`tgram://TOKEN/CHAT`), for programs with its `environment`: a proxy for https that is
    api.telegram.org itself, by a certificate of its own in `directory`. A status of `faults` is answered
    as Telegram does, with `retry_after`."""
    own, key = certificate.make(directory, "api.telegram.org")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    told = Telegram(own)

    class Bot(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            where = urlsplit(self.path)
            _, token, method = where.path.split("/")
            asked = dict(parse_qsl(where.query)) | (json.loads(data) if data else {})
            told.tries += 1
            fault = told.faults.pop(0) if told.faults else 200
            if fault == "hang":
                told.over.wait(120)
                return
            answer: dict[str, Any] = {"ok": True}
            if fault == 200:
                told.heard.append({"method": method, "token": token.removeprefix("bot"), **asked})
                made = told.answers.get(method)
                answer["result"] = made(asked) if made else {}
            else:
                answer = {"ok": False, "error_code": fault, "description": "Too Many Requests"}
                answer["parameters"] = {"retry_after": int(told.retry_after)}
            body = json.dumps(answer).encode()
            self.send_response(int(fault))
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 - the library's name

        def log_message(self, *args: object) -> None:
            pass

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            assert self.path == "api.telegram.org:443", "no test reaches anybody else"
            self.send_response(200)
            self.end_headers()
            with suppress(OSError), context.wrap_socket(self.connection, server_side=True) as inner:
                Bot(inner, self.client_address, self.server)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    with _serving(Proxy, told):
        yield told


@contextmanager
def mail() -> Iterator[Listener]:
    """A mail server (`mailto://127.0.0.1:PORT?from=…&to=…`)."""
    told = Listener()

    class Handler:
        async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:
            message = message_from_bytes(envelope.content, policy=policy.default)
            body = message.get_body(("plain", "html"))
            told.heard.append(
                {"subject": message["subject"], "to": envelope.rcpt_tos, "text": body.get_content()}  # type: ignore[union-attr]
            )
            return "250 taken"

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        told.port = sock.getsockname()[1]
    controller = Controller(Handler(), hostname="127.0.0.1", port=told.port)
    controller.start()
    try:
        yield told
    finally:
        controller.stop()
