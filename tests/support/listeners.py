"""Those who are told, on this machine: a webhook and ntfy over HTTP, with faults, and a mail server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller


class Listener:
    """What was heard, and how the next requests are answered: an HTTP status each, or "hang"; then
    200."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.faults: list[int | str] = []
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
            if fault == 200:
                told.heard.append({"path": self.path, **json.loads(data)})
            self.send_response(int(fault))
            self.send_header("retry-after", "1")
            self.end_headers()
            self.wfile.write(b"{}" if fault == 200 else b"not json at all")

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield told
    finally:
        told.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


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
