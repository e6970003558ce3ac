"""A client of `codex-self-iter mcp` that reads every byte of its stdout as the protocol's."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.support.program import PROGRAM

Json = dict[str, Any]
PATIENCE_SEC = 60.0


class McpClient:
    """One server, from its start to its end."""

    def __init__(
        self, environment: Mapping[str, str], cwd: Path, *flags: str, argv: Sequence[str] = ()
    ) -> None:
        self.process = subprocess.Popen(
            argv or [*PROGRAM, "mcp", *flags], env=environment, cwd=cwd, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        self._ids = itertools.count(1)
        self._read = b""

    def send(self, *messages: Any) -> None:
        """Messages, each on its line; bytes as they are."""
        assert self.process.stdin
        for one in messages:
            data = one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n"
            while data:
                data = data[self.process.stdin.write(data) or 0 :]

    def line(self) -> bytes:
        """The next line of its stdout; b"" at the end."""
        assert self.process.stdout
        give_up = time.monotonic() + PATIENCE_SEC
        while b"\n" not in self._read:
            left = give_up - time.monotonic()
            ready = select.select([self.process.stdout], [], [], max(0.0, left))[0]
            assert ready, "no answer"
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                assert not self._read, self._read
                return b""
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        return line

    def answer(self) -> Any:
        """The next message."""
        return json.loads(self.line())

    def ask(self, method: str, **params: Any) -> Json:
        """A request and its answer, whole."""
        ident = next(self._ids)
        self.send({"jsonrpc": "2.0", "id": ident, "method": method, "params": params})
        answer: Json = self.answer()
        assert answer["id"] == ident, answer
        return answer

    def greet(self, revision: str = "2025-11-25") -> Json:
        """The handshake; what the server says of itself."""
        about = {"name": "test", "version": "1"}
        said = self.ask("initialize", protocolVersion=revision, capabilities={}, clientInfo=about)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        result: Json = said["result"]
        return result

    def call(self, tool: str, **arguments: Any) -> Json:
        """The result of a tool that worked, structured."""
        result: Json = self.ask("tools/call", name=tool, arguments=arguments)["result"]
        assert not result["isError"], result
        found: Json = result["structuredContent"]
        return found

    def wrong(self, tool: str, **arguments: Any) -> str:
        """What a tool says that did not work."""
        result: Json = self.ask("tools/call", name=tool, arguments=arguments)["result"]
        assert result["isError"], result
        return said(result)

    def begin(self, tool: str, **arguments: Any) -> int:
        """Ask for a tool without waiting for its answer."""
        ident = next(self._ids)
        params = {"name": tool, "arguments": arguments}
        self.send({"jsonrpc": "2.0", "id": ident, "method": "tools/call", "params": params})
        return ident

    def end(self) -> tuple[int, bytes]:
        """Close its stdin: exit code and stderr; nothing unread may be on its stdout."""
        assert self.process.stdin
        assert self.process.stderr
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        assert self.line() == b""
        return self.process.wait(PATIENCE_SEC), self.process.stderr.read()

    def signalled(self, number: int) -> int:
        """Its exit code after a signal, while its stdin stays open."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SEC)

    def close(self) -> None:
        """End it, however the test went."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


@contextlib.contextmanager
def serving(environment: Mapping[str, str], cwd: Path, *flags: str) -> Iterator[McpClient]:
    """A server that has been greeted; at its end it has to have been in order."""
    client = McpClient(environment, cwd, *flags)
    try:
        client.greet()
        yield client
        if client.process.poll() is None:
            assert client.end() == (0, b"")
    finally:
        client.close()


def said(result: Json) -> str:
    """The text of a result."""
    (content,) = result["content"]
    assert content["type"] == "text"
    text: str = content["text"]
    return text


def servers(mark: str) -> list[psutil.Process]:
    """Living servers, and their commands, with this text in their command line, or this home."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            ours = any("codex_self_iter" in word or "codex-self-iter" in word for word in words)
            if ours and (mark in " ".join(words) or process.environ().get("HOME") == mark):
                found.append(process)
    return found
