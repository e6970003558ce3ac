"""Export traces and numbers by OTLP over HTTP: JSON lines on standard input, what became of them on
standard output. Run as a program.

The first line is `{"endpoint": ADDRESS}`, each further one is of `views.spans` (`"what": "traces"`) or
of `views.metrics` (`"metrics"`), `of` a state directory. What is not taken is tried again for an
hour, numbers only while there are no newer ones. An answer `{"what", "flaw", "lost"}` follows each try.
At the end of its input it has FLUSH_SEC, then says `{"left": LINES}` and ends, whatever it is waiting
for."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import socket
import sys
import threading
import time
from collections import deque
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from codex_self_iter import __version__
from codex_self_iter.core.backoff import exponential

KINDS = ("traces", "metrics")
MOST = 1000
"""Lines that wait; the oldest go."""
KEEP_SEC = 3600.0
AGAIN_SEC, AGAIN_MAX_SEC = 1.0, 60.0
"""Until what was not taken is tried again."""
FLUSH_SEC = 2.5
_BUSY = (408, 429)
_SCOPE = InstrumentationScope("codex-self-iter", __version__)


class Session(requests.Session):
    """Remembers how the last request ended: the exporters only say whether it was well.

    Attributes:
        status: of its answer; 0 for none.
        flaw: what went wrong, in words that are the same for the same cause, or ""."""

    status, flaw = 0, ""

    def send(self, request: requests.PreparedRequest, **how: Any) -> requests.Response:
        self.status = 0
        if self.verify is not True:  # else REQUESTS_CA_BUNDLE goes before what is named for OTLP
            how["verify"] = self.verify
        how["stream"] = True
        try:
            answer = super().send(request, **how)
            answer.close()  # what a receiver says beside its status is not read, whatever it is
            answer._content = b""
        except Exception as error:
            self.flaw = _cause(error)
            raise
        self.status = answer.status_code
        taken = 200 <= self.status < 300
        self.flaw = "" if taken else f"the receiver says {self.status} {answer.reason}"
        return answer


def _cause(error: BaseException) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    why = error.strerror if isinstance(error, OSError) else ""
    return why or f"{type(error).__name__}: {error}"


class Receiver:
    """The two exporters of the SDK, which reads the variables OTEL_…."""

    def __init__(self, endpoint: str) -> None:
        self._said: list[str] = []
        self._sessions = {what: Session() for what in KINDS}
        self._session = self._sessions["traces"]
        where = {what: f"{endpoint}/v1/{what}" for what in KINDS}
        self._traces = OTLPSpanExporter(where["traces"], session=self._sessions["traces"])
        self._metrics = OTLPMetricExporter(where["metrics"], session=self._sessions["metrics"])
        heard = logging.Handler(logging.WARNING)
        heard.emit = lambda record: self._said.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("opentelemetry").addHandler(heard)
        logging.getLogger("opentelemetry").propagate = False

    def export(self, line: dict[str, Any]) -> str:
        """Why it was not taken, or ""."""
        self._session = self._sessions[line["what"]]
        self._session.status, self._session.flaw = 0, ""
        self._said.clear()
        try:
            if line["what"] == "traces":
                taken = self._traces.export(_spans(line)) is SpanExportResult.SUCCESS
            else:
                taken = self._metrics.export(_numbers(line)) is MetricExportResult.SUCCESS
        except Exception as error:  # whatever it is, the next line is another one
            return f"{type(error).__name__}: {error}"
        why = self._session.flaw  # a redirection is a success for the exporters
        return why or ("" if taken else " ".join(self._said[-1:]) or "not taken")

    @property
    def refused(self) -> bool:
        """Whether the last answer would be the same for the same line."""
        return 300 <= self._session.status < 500 and self._session.status not in _BUSY


@functools.cache
def _resource(of: str) -> Resource:
    """Who tells: as the environment has it, else our name, this machine and the state directory."""
    told = Resource.create()
    name = str(told.attributes.get("service.name", ""))
    ours: dict[str, str] = {"service.version": __version__}
    if not name or name.startswith("unknown_service"):
        ours["service.name"] = "codex-self-iter"
    if "service.instance.id=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        ours["service.instance.id"] = f"{socket.gethostname()}:{of}"
    return told.merge(Resource(ours))


def _spans(line: dict[str, Any]) -> list[ReadableSpan]:
    resource = _resource(line["of"])
    return [
        ReadableSpan(
            one["name"],
            context=_context(one["trace"], one["id"]),
            parent=_context(one["trace"], one["parent"]) if one["parent"] else None,
            resource=resource,
            attributes=one["attributes"],
            status=Status(StatusCode.ERROR, one["error"]) if one["error"] else Status(),
            start_time=int(one["begin"] * 1e9),
            end_time=int(one["end"] * 1e9),
            instrumentation_scope=_SCOPE,
        )
        for one in line["spans"]
    ]


def _context(trace: str, span: str) -> SpanContext:
    sampled = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(int(trace, 16), int(span, 16), is_remote=False, trace_flags=sampled)


def _numbers(line: dict[str, Any]) -> MetricsData:
    at = int(line["at"] * 1e9)
    found = []
    for name, about, labels, samples, counter in line["families"]:
        points = [
            NumberDataPoint(dict(zip(labels, values, strict=True)), 0, at, value)
            for values, value in samples
        ]
        total = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        found += [Metric(name, about, "", total if counter else Gauge(points))] if points else []
    return MetricsData(
        [ResourceMetrics(_resource(line["of"]), [ScopeMetrics(_SCOPE, found, "")], "")]
    )


class Queue:
    """What is still to be exported, by a thread beside the one that reads."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._lines: deque[tuple[float, dict[str, Any]]] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._lost = self._tries = 0
        self._unsent = 0
        """Lines that are being exported, or were tried at the end in vain."""

    def add(self, line: dict[str, Any]) -> None:
        with self._changed:
            self._lines.append((time.monotonic(), line))
            if len(self._lines) > MOST:
                self._lines.popleft()
                self._lost += 1
            self._changed.notify()

    def end(self) -> None:
        """No more comes."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    @property
    def left(self) -> int:
        """Lines that are not exported yet."""
        return len(self._lines) + self._unsent

    def work(self) -> None:
        """Export one after the other, until the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._ending)
                if not self._lines:
                    return
                at, line = self._lines.popleft()
                self._unsent += 1
            flaw = self._receiver.export(line)
            with self._changed:
                self._settle(at, line, flaw)
                say({"what": line["what"], "flaw": flaw[:1000], "lost": self._lost})
                self._lost = 0
                if flaw and not self._receiver.refused:
                    self._tries += 1
                    pause = exponential(self._tries, AGAIN_SEC, AGAIN_MAX_SEC, 0.0)
                    self._changed.wait_for(lambda: self._ending, pause)
                else:
                    self._tries = 0

    def _settle(self, at: float, line: dict[str, Any], flaw: str) -> None:
        """It is over, or tried again."""
        if flaw and self._ending:
            return
        self._unsent -= 1
        if not flaw or (line["what"] == "metrics" and self._newer(line["of"])):
            return
        if self._receiver.refused or time.monotonic() - at > KEEP_SEC:
            self._lost += 1
        else:
            # at the end: what is taken does not wait for what is not
            self._lines.append((at, line))

    def _newer(self, of: str) -> bool:
        """Whether newer numbers of this loop wait."""
        return any(one["what"] == "metrics" and one["of"] == of for _, one in self._lines)


def say(told: dict[str, Any]) -> None:
    """Say it at once, from any thread; nobody may be there to hear it."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(told).encode() + b"\n")


def main() -> None:
    """Read to the end, then leave in FLUSH_SEC at most."""
    os.environ["NETRC"] = os.devnull  # it would go before what OTEL_EXPORTER_OTLP_HEADERS says
    source = sys.stdin.buffer
    queue = Queue(Receiver(json.loads(source.readline())["endpoint"]))
    worker = threading.Thread(target=queue.work, daemon=True)
    worker.start()
    left_out = {
        what
        for what in KINDS
        if os.environ.get(f"OTEL_{what.upper()}_EXPORTER", "").strip() == "none"
    }
    for text in source:
        if not text.endswith(b"\n"):
            break  # half of one: nobody is there any more
        line = json.loads(text)
        if line["what"] in left_out:
            say({"what": line["what"], "flaw": ""})
        else:
            queue.add(line)
    queue.end()
    worker.join(FLUSH_SEC)
    say({"left": queue.left})
    os._exit(0)  # a request that hangs holds nothing up


if __name__ == "__main__":
    main()
