"""The program that exports what loops tell to one receiver, as a supervisor has it.

It is handed lines without waiting; they wait in memory for as long as it takes none. One that has
ended, or says nothing any more, is started again, later each time."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from codex_self_iter.core import backoff
from codex_self_iter.core.foreign import as_int, as_text, decode
from codex_self_iter.core.text import clean
from codex_self_iter.metrics import OTLP
from codex_self_iter.supervisor.recipients import expanded
from codex_self_iter.world import installed
from codex_self_iter.world.pause import pause
from codex_self_iter.world.process.fed import Fed

MOST = 1000
"""Lines that wait for the program; the oldest go."""
SILENT_SEC = 150.0
"""One that was fed and says nothing for so long is ended: it has something to say each minute."""
AGAIN_SEC, AGAIN_MAX_SEC = 1.0, 60.0
"""Until one that has ended is started again."""
END_SEC = 3.0
"""For what is left when the last loop has ended; the program itself takes a little less."""
_LOOK_SEC = 0.2
_PROGRAM = installed.program("codex_self_iter.metrics.otlp")


class Exporter:
    """The program for one receiver, and what waits for it.

    Attributes:
        loops: names of those that have it.
        lost: lines that nobody will export any more."""

    def __init__(self, address: str, environ: Mapping[str, str]) -> None:
        """Nothing is started yet. `address` is as configured."""
        self.loops: set[str] = set()
        self.lost = 0
        self._environ = environ
        self._flaws: dict[str, str] = {}
        """By kind of what is exported; "program" for all of it."""
        self._url, self._secrets = "", list[str]()
        try:
            self._url, self._secrets = expanded(address, environ)
        except ValueError as error:
            self._flaws["program"] = str(error)
        self._lines: deque[bytes] = deque()
        self._fed: Fed | None = None
        self._lock = threading.Lock()
        """Held by whoever starts or ends the program: a thread."""
        self._busy = self._finished = False
        self._tries = 0
        self._again_at = self._looked_at = float("-inf")
        self._asked_at: float | None = None

    @property
    def flaw(self) -> str:
        """Why what is exported does not arrive, or ""."""
        return "; ".join(self._flaws.values())

    def take(self, line: Mapping[str, Any]) -> None:
        """Export this, soon."""
        self._lines.append(_line(line))
        if len(self._lines) > MOST:
            self._lines.popleft()
            self.lost += 1
            self._flaws.setdefault("program", "its program takes nothing more")

    def look(self, now: float) -> Callable[[], None] | None:
        """Hand over what waits, and hear what is said; what is to be done now, in a thread, after
        which `free` is called. `now` is monotonic."""
        fed = self._fed
        if self._busy or not self._url or now - self._looked_at < _LOOK_SEC:
            return None
        self._looked_at = now
        if fed is None:
            if now < self._again_at:
                return None
            self._busy, self._again_at = True, now + AGAIN_MAX_SEC
            return self._begin
        for said in fed.said():
            self._hear(said)
            self._asked_at = None
        if self._lines and self._asked_at is None:
            self._asked_at = now
        self._hand(fed)
        silent = self._asked_at is not None and now - self._asked_at >= SILENT_SEC
        if not (silent or fed.ended):
            return None
        self._tries += 1
        self._again_at = now + backoff.exponential(self._tries, AGAIN_SEC, AGAIN_MAX_SEC, 0.0)
        self._busy, self._asked_at = True, None
        return lambda: self._end(fed, f"was silent for {SILENT_SEC:.0f} s" if silent else "")

    def free(self) -> None:
        """What was to be done has been."""
        self._busy = False

    def finish(self) -> int | None:
        """Let it export what waits, for END_SEC at most, then end it. Blocks. How many lines are left;
        None: it is not known."""
        give_up = time.monotonic() + END_SEC
        if self._url and not self.flaw:  # it may have ended before it was looked at
            self._begin()
        with self._lock:
            fed, self._fed, self._finished = self._fed, None, True
        if fed is None:
            return len(self._lines)
        while not self._hand(fed) and time.monotonic() < give_up:
            pause(0.01)
        said, _ = fed.end(max(0.0, give_up - time.monotonic()))
        left = [as_int(found["left"]) for one in said if "left" in (found := self._hear(one))]
        return left[-1] + len(self._lines) if left else None

    def _hand(self, fed: Fed) -> bool:
        """Hand over what it takes; whether that is all."""
        while self._lines and fed.feed(self._lines[0]):
            self._lines.popleft()
        return fed.feed() and not self._lines

    def _hear(self, said: bytes) -> dict[str, Any]:
        """What became of an export."""
        answer = decode(said.decode("utf-8", "replace")) or {}
        what, flaw = as_text(answer.get("what")), as_text(answer.get("flaw"))
        self.lost += as_int(answer.get("lost"))
        for secret in self._secrets:
            flaw = flaw.replace(secret, "[redacted]")
        if flaw:
            self._flaws[what] = f"{what}: {clean(flaw, 300)}"
        elif what:
            self._flaws.pop(what, None)
            self._flaws.pop("program", None)
            self._tries = 0
        return answer

    def _begin(self) -> None:
        flaw = installed.lack(*OTLP)
        with self._lock:
            if self._finished or self._fed:
                return
            if flaw:
                self._flaws["program"] = f"it {flaw}"
                return
            try:
                self._fed = Fed(_PROGRAM, self._environ)
            except OSError as error:
                self._flaws["program"] = f"its program cannot be started: {error.strerror}"
                return
            self._fed.feed(_line({"endpoint": self._url}))

    def _end(self, fed: Fed, why: str) -> None:
        """End one that has ended, or is to."""
        with self._lock:
            if self._fed is not fed:
                return
            self._fed = None
            said, how = fed.end(0.0)
        for one in said:
            self._hear(one)
        why = why or f"has ended ({clean(how, 300)})"
        self._flaws["program"] = f"its program {why}; it is started again"


def _line(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told).encode() + b"\n"
