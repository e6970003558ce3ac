"""JSON-RPC 2.0, one message a line, over the pipes of a child. No decision is made here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import time
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

MAX_LINE = 32 * 1024 * 1024
"""Longest message in bytes, the limit of the protocol's own TypeScript SDK."""
_CHUNK = 1 << 20
_NO_METHOD = -32601
_FAILED = -32603
_ID = re.compile(rb'"id"\s*:\s*(\d+)\s*[,}]')


class GoneError(Exception):
    """The agent has closed its stdout."""


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""By these an end is asked for."""


class SignalledError(Exception):
    """A signal has arrived that asks for the end; `number`: which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class RefusalError(Exception):
    """The other side answered with an error.

    Attributes:
        code: of the error; 0 when it gave none.
        message: its words, with those that qwen and codex keep in the data.
        data: whatever came with it."""

    def __init__(self, error: object) -> None:
        given = error if isinstance(error, dict) else {}
        code, message = given.get("code"), given.get("message")
        self.code = code if isinstance(code, int) and not isinstance(code, bool) else 0
        self.message = message if isinstance(message, str) else ""
        self.data = given.get("data")
        more = self.data if isinstance(self.data, dict) else {}
        details = more.get("details") or more.get("message")
        if isinstance(details, str) and details not in self.message:
            self.message = f"{self.message}: {details}"
        super().__init__(self.message)


class FailedError(Exception):
    """The run has failed. `fields`: what is told beside the message, among it a `code`."""

    def __init__(self, message: str, *, code: str | int, **fields: object) -> None:
        super().__init__(message)
        self.fields: dict[str, object] = {"code": code, **fields}


Answer = Callable[[str, "Json"], "Json | None"]
"""Answers a request (method, parameters) with a result; None: it is not known."""


class Wire:
    """The line to one agent. Nothing blocks but `pump`, which waits for what comes next."""

    def __init__(self, stdin: int, stdout: int) -> None:
        """The descriptors of the agent's pipes; they are closed with it."""
        self._in, self._out = stdin, stdout
        self._selector = selectors.DefaultSelector()
        os.set_blocking(stdin, False)
        os.set_blocking(stdout, False)
        self._selector.register(stdout, selectors.EVENT_READ)
        self._held = bytearray()
        self._dropping = b""
        self._unsent = bytearray()
        self._last = 0
        self._waiting: set[int] = set()
        self._answers: dict[int, Json] = {}
        self._signals = _Signals(self._selector)
        self.asked: Answer = lambda _method, _given: None
        """Answers the agent's requests."""
        self.told: Callable[[str, Json], None] = lambda _method, _given: None
        """Takes the agent's notifications."""
        self.odd: Callable[[str], None] = lambda _text: None
        """Takes what is no message of the protocol, a line each."""
        self.closed = False
        """The agent has closed its stdout."""
        self.dropped = ""
        """Says that a message was too long to be read; "": none was."""

    # --- asking

    def ask(self, method: str, **given: object) -> int:
        """Send a request; returns its number, for `answer_to`."""
        self._last += 1
        self._waiting.add(self._last)
        self._send({"jsonrpc": "2.0", "id": self._last, "method": method, "params": given})
        return self._last

    def tell(self, method: str, **given: object) -> None:
        """Send a notification."""
        self._send({"jsonrpc": "2.0", "method": method, "params": given})

    def answer_to(self, number: int) -> Json | None:
        """The result of a request, once; None while there is none. Raises RefusalError."""
        answer = self._answers.pop(number, None)
        if answer is None:
            return None
        if "error" in answer:
            raise RefusalError(answer["error"])
        result = answer.get("result")
        return result if isinstance(result, dict) else {}

    def call(self, method: str, timeout_sec: float, **given: object) -> Json:
        """Ask and await the answer. Raises RefusalError, GoneError, SignalledError, TimeoutError."""
        number, end = self.ask(method, **given), time.monotonic() + timeout_sec
        while (answer := self.answer_to(number)) is None:
            left = end - time.monotonic()
            if left <= 0:
                self._waiting.discard(number)
                raise TimeoutError(f"no answer to {method} within {timeout_sec:g} s")
            self.pump(left)
        return answer

    # --- the pipes

    def pump(self, timeout_sec: float) -> None:
        """Wait for something to happen, at most so long, and see to it. Raises GoneError, SignalledError."""
        if self.closed:
            raise GoneError
        for key, _events in self._selector.select(max(0.0, timeout_sec)):
            if key.fd == self._out:
                self._read()
            elif key.fd == self._in:
                self._write()
            else:
                self._signals.raise_first()

    def hang_up(self) -> None:
        """Close the agent's stdin: it sees the end of its input. Idempotent."""
        if self._in < 0:
            return
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._in)
        os.close(self._in)
        self._in = -1

    def _read(self) -> None:
        try:
            chunk = os.read(self._out, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self.closed = True
            self._selector.unregister(self._out)
            if self._held:
                self._take(bytes(self._held))
            return
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            self._hold(part)
            if self._dropping:
                self._dropped()
            else:
                line = bytes(self._held)
                self._held.clear()
                self._take(line)
        self._hold(rest)

    def _hold(self, part: bytes) -> None:
        if self._dropping:
            return
        self._held += part
        if len(self._held) > MAX_LINE:
            self._dropping = bytes(self._held[:4096]) + b"\0" + bytes(self._held[-4096:])
            self._held = bytearray()

    def _dropped(self) -> None:
        """A message was too long. If it was an answer, the answer is that it was too long."""
        ends, self._dropping = self._dropping, b""
        text = self.dropped = f"a message longer than {MAX_LINE >> 20} MiB was not read"
        self.odd(text)
        for number in map(int, _ID.findall(ends)):
            if b'"method"' not in ends and number in self._waiting:
                self._waiting.discard(number)
                self._answers[number] = {"error": {"code": _FAILED, "message": text}}
                return

    def _take(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()
        if not text:
            return
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self.odd(text)
            return
        method, number = message.get("method"), _number(message.get("id"))
        given = message.get("params")
        given = given if isinstance(given, dict) else {}
        if isinstance(method, str) and number is None:
            self.told(method, given)
        elif isinstance(method, str):
            self._reply(message["id"], method, given)
        elif isinstance(number, int) and number in self._waiting:
            self._waiting.discard(number)
            self._answers[number] = message
        elif number is None:  # an error that it cannot say of what
            self.odd(text)
        # else: an answer that nobody waits for, such as a second one

    def _reply(self, number: object, method: str, given: Json) -> None:
        result = self.asked(method, given)
        if result is None:  # not to be silent: some agents wait for the answer for ever
            error = {"code": _NO_METHOD, "message": f"{method} is not supported"}
            self._send({"jsonrpc": "2.0", "id": number, "error": error})
        else:
            self._send({"jsonrpc": "2.0", "id": number, "result": result})

    def _send(self, message: Json) -> None:
        if self._in >= 0:
            self._unsent += json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")
            self._unsent += b"\n"
            self._write()

    def _write(self) -> None:
        try:
            while self._unsent:
                sent = os.write(self._in, self._unsent[:_CHUNK])
                del self._unsent[:sent]
        except BlockingIOError:
            with contextlib.suppress(KeyError):  # it is registered already
                self._selector.register(self._in, selectors.EVENT_WRITE)
            return
        except OSError:  # it reads no more; that it has gone is seen at its stdout
            self._unsent.clear()
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._in)


def _number(ident: object) -> object:
    """The id of a message; one that was a number and comes back as a text or a float is that number."""
    if isinstance(ident, float) and ident.is_integer():
        return int(ident)
    return int(ident) if isinstance(ident, str) and ident.isdecimal() else ident


class _Signals:
    """SIGTERM, SIGINT and SIGHUP as something that a selector sees."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._fd, write = os.pipe()
        os.set_blocking(self._fd, False)
        os.set_blocking(write, False)
        for number in SIGNALS:
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        selector.register(self._fd, selectors.EVENT_READ)

    def raise_first(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._fd, 64)[:1]:
                raise SignalledError(number)
