"""The page from outside: as a process with real connections, and as an application without any."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from codex_self_iter.screens.page.entering import Door, Keys
from codex_self_iter.screens.page.gatekeeper import Address, Gatekeeper
from codex_self_iter.screens.page.site import site
from tests.support.harness import PATIENCE
from tests.support.program import PROGRAM

PORT = 8420
HERE = f"127.0.0.1:{PORT}"
HOME = f"http://{HERE}"
TOKEN = "a-token-that-nobody-can-guess"


class Clock:
    """Unix seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1_893_456_000.0

    def __call__(self) -> float:
        return self.now


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def words(self) -> str:
        return unescape(re.sub(r"<[^>]+>", " ", self.text))

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.text)
        assert found, self.text[:500]
        return found[1]


class App:
    """The whole application in this process, on a clock of the test's."""

    def __init__(self, directory: Path, *, control: bool = False, **more: Any) -> None:
        self.clock = Clock()
        port, token = more.pop("port", PORT), more.pop("token", "")
        self.keys = Keys(str(directory / "page"), self.clock)
        self.door = Door(self.keys, port, token=token, clock=self.clock)
        origins = more.pop("origins", (f"http://127.0.0.1:{port}", f"http://localhost:{port}"))
        self.gate = Gatekeeper(site, self.door, Address(origins, control=control, **more))
        self.host = origins[0].partition("://")[2]
        self.cookies: dict[str, str] = {}
        self.source = "127.0.0.1"

    async def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        body: bytes = b"",
        bare: bool = False,
    ) -> Answer:
        """One request; with a form, as a page of ours would send it. `bare`: no cookies."""
        sent = {"host": self.host}
        if form is not None:
            method, body = "POST", urlencode(form).encode()
            sent |= {
                "origin": self.gate.address.origins[0],
                "content-type": "application/x-www-form-urlencoded",
            }
        if self.cookies and not bare:
            sent["cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        sent |= headers or {}
        raw, _, query = path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": raw, "raw_path": raw.encode(), "query_string": query.encode(),
            "root_path": "", "client": (self.source, 50000), "server": ("127.0.0.1", PORT),
            "headers": [(k.encode(), v.encode()) for k, v in sent.items() if v], "state": {},
        }  # fmt: skip
        parts = [{"type": "http.request", "body": body, "more_body": False}]
        got: list[Any] = []

        async def receive() -> Any:
            return parts.pop(0) if parts else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            got.append(message)

        await self.gate(scope, receive, send)  # type: ignore[arg-type]
        told = {k.decode(): v.decode() for k, v in got[0]["headers"]}
        text = b"".join(one.get("body", b"") for one in got[1:]).decode()
        answer = Answer(got[0]["status"], told, text)
        if cookie := told.get("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            if not bare:
                self.cookies[name] = value
        return answer

    def link(self) -> str:
        """A new link's path."""
        return f"/enter?key={self.keys.new_link(self.door.port)}"

    async def enter(self) -> None:
        """Come in by a link."""
        assert (await self.ask(self.link())).status == 200


class Page:
    """`serve` as a process."""

    def __init__(self, environment: Mapping[str, str], cwd: Path, *flags: str) -> None:
        self.environment = environment
        self.process = subprocess.Popen(
            [*PROGRAM, "serve", *(("--port", "0") if "--port" not in flags else ()), *flags],
            env=dict(environment), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.said = ""
        self.link = ""
        watchdog = threading.Timer(PATIENCE, self.process.kill)
        watchdog.start()
        assert self.process.stdout
        for line in self.process.stdout:
            self.said += line
            self.link = self.link or "".join(re.findall(r"https?://\S+key=\S+", line))
            if line.startswith("For another device"):
                break
        watchdog.cancel()
        assert self.link, self.said
        self.origin = self.link.partition("/enter")[0]
        host, _, port = self.origin.partition("://")[2].rpartition(":")
        self.host, self.port = host.strip("[]"), int(port)
        self.cookie = ""

    def ask(self, path: str, form: Mapping[str, str] | None = None, **headers: str) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        sent = {"Cookie": self.cookie, **{k.replace("_", "-"): v for k, v in headers.items()}}
        if form is not None:
            sent |= {"Origin": self.origin, "Content-Type": "application/x-www-form-urlencoded"}
        method, body = ("GET", None) if form is None else ("POST", urlencode(form))
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        told = {k.lower(): v for k, v in response.getheaders()}
        answer = Answer(response.status, told, response.read().decode())
        connection.close()
        return answer

    def enter(self) -> None:
        """Come in by the link."""
        answer = self.ask(self.link.removeprefix(self.origin))
        assert answer.status == 200, answer
        self.cookie = answer.headers["set-cookie"].partition(";")[0]

    def events(self, path: str, last: str = "", patience: float = PATIENCE) -> Events:
        """An open stream."""
        return Events(self, path, last, patience)

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection((self.host, self.port), timeout=PATIENCE)

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout
            if not self.process.stdout.closed:
                self.said += self.process.stdout.read()
                self.process.stdout.close()


class Events:
    """Server-sent events, read one by one."""

    def __init__(self, page: Page, path: str, last: str, patience: float) -> None:
        self.connection = http.client.HTTPConnection(page.host, page.port, timeout=patience)
        headers = {"Cookie": page.cookie, **({"Last-Event-ID": last} if last else {})}
        self.connection.request("GET", path, headers=headers)
        self.response = self.connection.getresponse()
        self.last = last
        if self.response.status != 200:
            said = self.response.read()
            self.close()
            raise AssertionError(said)

    def next(self, kind: str = "") -> Any:
        """The next event, or the next of that kind: (kind, data). Raises TimeoutError."""
        fields: dict[str, str] = {}
        while line := self.response.readline().decode():
            if line != "\n":
                name, _, value = line.rstrip("\n").partition(": ")
                fields[name] = value
                continue
            self.last = fields.get("id", self.last)
            if fields.get("event") and kind in ("", fields["event"]):
                data = fields.get("data", "")
                return fields["event"], json.loads(data) if data else None
            fields = {}
        return "end", None

    def texts(self, until: str) -> list[str]:
        """The lines of output up to the one that is waited for."""
        found: list[str] = []
        while until not in found:
            kind, data = self.next("output")
            if kind == "end":
                break
            found += [item["text"] for item in data]
        return found

    def close(self) -> None:
        self.response.close()
        self.connection.close()


@contextmanager
def served(environment: Mapping[str, str], cwd: Path, *flags: str) -> Iterator[Page]:
    """A page that is ended whatever happens."""
    page = Page(environment, cwd, *flags)
    try:
        yield page
    finally:
        page.end()
