"""An answer that was given counts: watching a run's stream for its final event, and for retries.

Agents that have answered do not always end: a tool server that hangs, a socket that stays open. From
the final event on they have `linger_sec`; then they are ended, and what they answered is used."""

from __future__ import annotations

import dataclasses
import os
import re
import threading

import anyio

from codex_self_iter.agents.cli_agent import CliAgent
from codex_self_iter.agents.run_files import LINE_BYTES
from codex_self_iter.agents.stream import EventKind
from codex_self_iter.core.runs import EndCause, RunOutcome
from codex_self_iter.settings.agent_tables import CliSettings
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.work import Work

LOOK_SEC = 0.5
"""How often it is looked whether the output has grown."""
_CHUNK_BYTES = 1024 * 1024
_TELLS = re.compile(
    rb'"(?:turn\.completed|turn\.failed|result|step_finish|error|api_retry|acp\.(?:done|failed|retry))"'
)
"""The types of all events that are final for one CLI or another, or tell of a retry."""


class Stream:
    """The growing stdout of one run, read from where the last look ended."""

    def __init__(self, agent: CliAgent, path: str) -> None:
        self._agent, self._path = agent, path
        self._looking = threading.Lock()
        self._offset = 0
        self._rest = b""
        self._whole = True
        self.final = False
        """The last event that tells was the final one."""
        self.retrying = ""
        """It says that it tries again to reach its model, and has not gone on since."""

    def look(self) -> None:
        """Read what has come since the last look. A file that is not there says nothing. Any
        thread."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        try:
            with open(self._path, "rb") as file:
                self._offset = min(self._offset, os.fstat(file.fileno()).st_size)
                file.seek(self._offset)
                while chunk := file.read(_CHUNK_BYTES):
                    self._offset += len(chunk)
                    self._take(chunk)
        except OSError:
            return
        if self._whole and self._rest.rstrip().endswith(b"}"):  # a last line without its end
            self._say(self._rest)

    def _take(self, chunk: bytes) -> None:
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            if self._whole and len(self._rest) + len(part) <= LINE_BYTES:
                self._say(self._rest + part)
            self._rest, self._whole = b"", True
        self._whole = self._whole and len(self._rest) + len(rest) <= LINE_BYTES
        self._rest = self._rest + rest if self._whole else b""

    def _say(self, line: bytes) -> None:
        if not (self.final or self.retrying) and not _TELLS.search(line):
            return  # to decode megabytes of output for nothing would cost more than the rest
        text = line.decode("utf-8", "replace")
        final = self._agent.final(text)
        self.final = self.final if final is None else final
        retries = [one.text for one in self._agent.parse_line(text) if one.kind is EventKind.RETRY]
        if retries or final is not None:
            self.retrying = retries[-1] if retries else ""


class Lingering:
    """Watches one run; ends it when it goes on for too long after its final event."""

    def __init__(self, ctx: Context, work: Work, agent: str, directory: str) -> None:
        self._ctx, self._work, self._name = ctx, work, agent
        table = ctx.settings.agents.get(agent)
        self._linger_sec = float(table.linger_sec) if isinstance(table, CliSettings) else 0.0
        adapter, path = ctx.agents[agent], os.path.join(directory, "stdout.log")
        self._stream = Stream(adapter, path) if isinstance(adapter, CliAgent) else None
        self._scope = anyio.CancelScope()

    def begin(self) -> None:
        """Start watching, if this agent's stream tells its end."""
        if self._stream is not None:
            self._work.last_look = self._stream.look
            self._ctx.start("watch for the answer", self._watch, self._stream)

    def done(self, outcome: RunOutcome) -> RunOutcome:
        """What is known of the end with what was seen before it."""
        answered = self._stream is not None and self._stream.final
        return dataclasses.replace(outcome, answered=True) if answered else outcome

    def stop(self) -> None:
        """Watch no longer. Idempotent."""
        self._work.last_look = None
        self._scope.cancel()

    def _tell_retries(self, text: str) -> None:
        """Say that the run waits for its model, and show how it goes on."""
        text = self._ctx.shown(text, 300)
        if text and not self._work.retrying:
            self._ctx.log.warning("run.retrying", agent=self._name, text=text)
        if bool(text) != bool(self._work.retrying):
            self._ctx.tell()
        self._work.retrying = text

    async def _watch(self, stream: Stream) -> None:
        clock, seen = self._ctx.shared.clock, -1
        since: float | None = None
        with self._scope:
            while True:
                await clock.sleep(LOOK_SEC)
                handle = self._work.handle
                if handle is None:
                    continue
                size = handle.sample().output_bytes
                if size != seen:
                    seen = size
                    await self._ctx.shared.in_thread(stream.look)
                    self._tell_retries(stream.retrying)
                if not stream.final:
                    since = None
                    continue
                since = clock.monotonic() if since is None else since
                if self._linger_sec and clock.monotonic() - since >= self._linger_sec:
                    self._ctx.log.info("run.lingered", agent=self._name, seconds=self._linger_sec)
                    await handle.end(EndCause.LINGERED)
                    return
