"""`[[notify.replies]]`: hearing what a person answers, by a program of its own (codex_self_iter.replies).

One program listens for all loops of this supervisor, and acts by the files of the state directories as
a command does. That it fails is told, and is no reason for anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import anyio
from structlog.typing import FilteringBoundLogger

from codex_self_iter.core.backoff import exponential
from codex_self_iter.core.foreign import as_int, as_list, as_text
from codex_self_iter.core.text import clean
from codex_self_iter.settings.paths import ResolvedPaths
from codex_self_iter.settings.schema import NotifyReplies
from codex_self_iter.supervisor import recipients
from codex_self_iter.supervisor.warnings import Warnings
from codex_self_iter.world import installed, threads
from codex_self_iter.world.guarded import parse_object
from codex_self_iter.world.process.fed import Fed

EXTRA = ("notify", "requests")
FIRST_SEC, LONGEST_SEC = 5.0, 600.0
"""The wait before the program is started again; it doubles up to the longest."""
SILENT_SEC = 90.0
"""One that says nothing for so long is ended, and started again: it says each 20 seconds that it lives."""
GRACE_SEC = 2.0
"""For its end, when nobody wants to hear any more."""
_PROGRAM = installed.program("codex_self_iter.replies")
KEY = "replies"
PROGRAM, SETTINGS = "program", "settings"
"""Of what may fail, beside the channels: with KEY the name of its warning."""


class Listener(NamedTuple):
    """A loop that wants to hear."""

    name: str
    paths: ResolvedPaths
    wanted: Sequence[NotifyReplies]
    warnings: Warnings
    log: FilteringBoundLogger


class Ears:
    """What loops want to hear, and the program that hears it."""

    def __init__(self) -> None:
        self._loops: dict[str, Listener] = {}
        """By state directory."""
        self._told = {PROGRAM, SETTINGS}
        """What was complained of."""
        self._changed = anyio.Event()

    def look(self, loop: Listener) -> None:
        """Note what a loop wants by its present settings."""
        state_dir = str(loop.paths.state_dir)
        known = self._loops.get(state_dir)
        if (known.wanted if known else ()) is loop.wanted or not (known or loop.wanted):
            return
        self._loops[state_dir] = loop
        for part in self._told:
            loop.warnings.clear(f"{KEY} {part}")
        self._changed.set()

    def leave(self, paths: ResolvedPaths) -> None:
        """A loop has ended."""
        if self._loops.pop(str(paths.state_dir), None):
            self._changed.set()

    async def run(self, environ: Mapping[str, str], log: FilteringBoundLogger) -> None:
        """Have the program run while a loop wants it, for ever."""
        tries = 0
        while True:
            self._changed = anyio.Event()
            if not self._spec(environ):
                await self._changed.wait()
                continue
            began = anyio.current_time()
            if why := await self._listen(environ, log):
                self._tell(PROGRAM, why)
                tries = 1 if anyio.current_time() - began > LONGEST_SEC else tries + 1
                await anyio.sleep(exponential(tries, FIRST_SEC, LONGEST_SEC, 0.0))

    def _spec(self, environ: Mapping[str, str]) -> list[dict[str, Any]]:
        """What the program is told; loops that cannot be listened for are told why."""
        every = ((loop, _channels(loop, environ)) for loop in self._loops.values())
        return [
            {
                "name": loop.name,
                "workspace": str(loop.paths.workspace),
                "state_dir": str(loop.paths.state_dir),
                "channels": channels,
            }
            for loop, channels in every
            if channels
        ]

    def _tell(self, part: str, why: str, state_dir: str = "") -> None:
        self._told.add(part)
        for loop in self._loops.values():
            if loop.wanted and state_dir in ("", str(loop.paths.state_dir)):
                _warn(loop, part, why)

    def _clear(self, part: str) -> None:
        for loop in self._loops.values():
            loop.warnings.clear(f"{KEY} {part}")

    async def _listen(self, environ: Mapping[str, str], log: FilteringBoundLogger) -> str:
        """One life of the program; why it has ended, "" when that was wanted."""
        try:
            fed = await threads.run_sync(Fed, _PROGRAM, environ)
        except OSError as error:
            return f"the program cannot be started: {error.strerror}"
        wanted = True
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read, fed, log, tasks.cancel_scope, name="replies")
                while True:
                    self._changed = anyio.Event()
                    if not (spec := self._spec(environ)):
                        wanted = False
                        break
                    fed.feed(json.dumps({"loops": spec}).encode() + b"\n")
                    while not fed.feed():
                        await anyio.wait_writable(fed.into)
                    await self._changed.wait()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                said, how = await threads.run_sync(fed.end, GRACE_SEC)
                for line in said:
                    self._hear(parse_object(line) or {}, log)
        return f"the program has ended ({how})" if wanted else ""

    async def _read(self, fed: Fed, log: FilteringBoundLogger, over: anyio.CancelScope) -> None:
        """Take its lines until it has ended."""
        while not fed.ended:
            with anyio.move_on_after(SILENT_SEC) as silence:
                await anyio.wait_readable(fed.out)
            if silence.cancelled_caught:
                self._tell(PROGRAM, f"the program was silent for {SILENT_SEC:.0f} s")
                break
            for line in (said := fed.said()):
                self._hear(parse_object(line) or {}, log)
            if not said:
                await anyio.sleep(0.05)  # it is ending, or half a line has come
        over.cancel()

    def _hear(self, said: dict[str, Any], log: FilteringBoundLogger) -> None:
        """A line of the program."""
        texts = {
            key: clean(as_text(said.get(key)), 200)
            for key in ("channel", "sender", "command", "why", "answer")
            if as_text(said.get(key))
        }
        match said.get("event"):
            case "accepted":
                state_dirs = as_list(said.get("loops"))
                ours = [self._loops[one].log for one in state_dirs if one in self._loops]
                for its_log in ours or [log]:
                    its_log.info("reply.accepted", **texts)
            case "answered":
                log.info("reply.answered", **texts)
            case "refused":
                untold = as_int(said.get("untold"))
                log.warning("reply.refused", **texts, **({"untold": untold} if untold else {}))
            case "interrupted":
                log.warning("reply.interrupted", **texts)
            case "unanswered":
                log.warning("reply.unanswered", **texts)
            case "listening":
                log.info("reply.listening", **texts)
                self._clear(PROGRAM)
            case "waiting":
                self._clear(PROGRAM)
            case "failing":
                self._clear(PROGRAM)
                self._tell(texts.get("channel", ""), texts.get("why", ""))
            case "alive":
                pass
            case "well":
                self._clear(texts.get("channel", ""))
            case "useless":
                self._tell(SETTINGS, texts.get("why", ""), as_text(said.get("state_dir")))
            case _:
                self._tell(PROGRAM, texts.get("why", "the program says what is not understood"))


def _warn(loop: Listener, part: str, why: str) -> None:
    loop.warnings.tell(f"{KEY} {part}", f"replies are not heard: {clean(why, 300)}")


def _channels(loop: Listener, environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Where a loop listens, with the values of variables; what it cannot is told."""
    if loop.wanted and (lack := installed.lack(*EXTRA)):
        _warn(loop, SETTINGS, f"it {lack}")
        return []
    channels = []
    for one in loop.wanted:
        try:
            url, _ = recipients.expanded(one.url, environ)
            allow = [recipients.expanded(text, environ)[0] for text in one.allow]
            channels.append({"url": url, "allow": allow})
        except ValueError as error:
            _warn(loop, SETTINGS, f"{one.url.partition('://')[0]}: {error}")
    return channels
