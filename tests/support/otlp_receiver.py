"""A receiver of OTLP over HTTP that keeps what it is sent, and can fail in the ways that receivers do."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import importlib.util
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.harness import wait_until

FORMS = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


@dataclasses.dataclass(frozen=True)
class Span:
    """A span as it has arrived, ids in hexadecimal."""

    name: str
    trace: str
    id: str
    parent: str
    begin: int
    end: int
    attributes: dict[str, Any]
    failed: bool
    error: str
    resource: dict[str, Any]


class Receiver:
    """What has arrived, and how requests are answered.

    Attributes:
        how: "take", "hang" (until `let_go`), "broken" (no HTTP), "endless" (an answer that is), or a
            status.
        poured: bytes of endless answers.
        asked: requests that have come, by path; headers: of each.
        spans, numbers: what was taken; numbers are the newest of each series."""

    def __init__(self) -> None:
        self.how = "take"
        self.let_go = threading.Event()
        self.poured = 0
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.spans: list[Span] = []
        self.numbers: dict[tuple[str, ...], float] = {}
        self.counters: set[str] = set()
        self.url = ""

    def take(self, path: str, body: bytes) -> None:
        told: Any = FORMS[path]()
        told.ParseFromString(body)
        if path == "/v1/traces":
            for of in told.resource_spans:
                for one in (span for scope in of.scope_spans for span in scope.spans):
                    self.spans.append(_span(one, _attributes(of.resource.attributes)))
            return
        for one in (m for of in told.resource_metrics for s in of.scope_metrics for m in s.metrics):
            kind = one.WhichOneof("data")
            if kind == "sum":
                assert one.sum.is_monotonic
                self.counters.add(one.name)
            for point in getattr(one, kind).data_points:
                labels = _attributes(point.attributes)
                more = (str(value) for key, value in labels.items() if key != "loop")
                self.numbers[one.name, *more] = point.as_double

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


def _span(one: Any, resource: dict[str, Any]) -> Span:
    return Span(
        one.name, one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex(),
        one.start_time_unix_nano, one.end_time_unix_nano, _attributes(one.attributes),
        one.status.code == 2, one.status.message, resource,
    )  # fmt: skip


def _attributes(given: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in given}


@contextmanager
def receiving(port: int = 0, tls: Path | None = None) -> Iterator[Receiver]:
    """A receiver at an address of this machine; `tls`: a directory with cert.pem and key.pem of
    localhost."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            receiver.headers.append({key.lower(): text for key, text in self.headers.items()})
            receiver.asked.append(self.path)
            how = receiver.how
            if how == "hang":
                receiver.let_go.wait()
                self.close_connection = True
                return None
            if how == "broken":
                self.wfile.write(b"this is no HTTP\r\n\r\n")
                self.close_connection = True
                return None
            if how in ("take", "endless"):
                receiver.take(self.path, body)
            if how == "endless":
                return self._pour()
            self.send_response(200 if how == "take" else int(how))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None

        def _pour(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            while not receiver.let_go.is_set():
                self.wfile.write(b" " * 65536)
                receiver.poured += 65536

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:  # a client that has gone
            pass

    server = Server(("127.0.0.1", port), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "cert.pem", tls / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        receiver.url = f"https://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.let_go.set()
        server.shutdown()
        thread.join()
        server.server_close()


def collector_program() -> str:
    """A collector that is not ours: rotel, where it is installed; else ""."""
    found = importlib.util.find_spec("rotel")
    return f"{Path(found.origin).parent}/rotel-agent" if found and found.origin else ""


@contextmanager
def collecting(receiver: Receiver) -> Iterator[str]:
    """The address of a collector that hands on to this receiver."""
    with contextlib.ExitStack() as held:
        free = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        http, grpc = (f"127.0.0.1:{one.getsockname()[1]}" for one in free)
    argv = [
        collector_program(), "start", "--otlp-http-endpoint", http, "--otlp-grpc-endpoint", grpc,
        "--exporter", "otlp", "--otlp-exporter-endpoint", receiver.url, "--otlp-exporter-protocol", "http",
        "--batch-timeout", "100ms",
    ]  # fmt: skip
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _listens(http), "the collector to listen")
            yield f"http://{http}"
        finally:
            process.terminate()


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
        return True
    return False
