"""A message for the turn that is running, where the agent takes one: `steer --now` need not end it.

The agent's program is given it by a file in the run's directory and says on its stdout whether the
turn has it (see `acp_host.control`). Where it says no, or nothing, the run is ended for it, as with
every other agent."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable

import anyio

from codex_self_iter.core import events as ev
from codex_self_iter.core.acp_agents import CONTROL
from codex_self_iter.core.foreign import decode
from codex_self_iter.core.prompt import in_turn
from codex_self_iter.core.state import Message
from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.work import Work
from codex_self_iter.world.guarded import open_guarded
from codex_self_iter.world.state.durable import replace_private, storing

PATIENCE_SEC = 30.0
"""So long the program has for its word. It looks every half second; a turn that is cancelled for the
message took up to a second to end, and 25 where a tool held the agent up."""
_LOOK_SEC = 0.2


class MidTurn:
    """Gives the run of one loop its messages, one delivery at a time."""

    def __init__(self, ctx: Context, work: Work) -> None:
        self._ctx, self._work = ctx, work
        self._over: anyio.Event | None = None
        work.settle = self.settle

    def give(self, run_id: str, names: Iterable[str]) -> None:
        """Begin to give these messages of the inbox to the run, unless that is under way."""
        if self._over is None:
            self._over = anyio.Event()
            self._ctx.start("steer a run", self._give, run_id, tuple(names))

    async def _give(self, run_id: str, names: tuple[str, ...]) -> None:
        ctx = self._ctx
        try:
            messages = self._messages(names)
            if messages and await self._taken(run_id, messages):
                ctx.post(ev.Steered(run_id, messages))
            elif messages:
                ctx.post(ev.Steer(now=True, names=names, refused=True))
        except (OSError, StorageError):
            ctx.post(ev.Steer(now=True, names=names, refused=True))
        finally:
            if self._over is not None:
                self._over.set()
            self._over = None

    async def settle(self) -> None:
        """A run has ended: what becomes of its messages is said before its end is."""
        if self._over is not None:
            await self._over.wait()

    def _messages(self, names: tuple[str, ...]) -> tuple[Message, ...]:
        found = self._ctx.inbox.messages(wall=self._ctx.shared.clock.wall())
        return tuple(Message(one.name, one.text, one.mark) for one in found if one.name in names)

    async def _taken(self, run_id: str, messages: tuple[Message, ...]) -> bool:
        """Hand them over, and wait for the program's word."""
        ctx, directory = self._ctx, self._work.directory
        if self._work.handle is None:
            return False
        path = os.path.join(directory, CONTROL)
        ident = f"{run_id}:{'+'.join(message.mark for message in messages)}"
        order = {"id": ident, "steer": in_turn([message.text for message in messages])}
        output = os.path.join(directory, "stdout.log")
        # what was said already was said to a supervisor that was killed before it heard it
        word, offset = await ctx.shared.in_thread(_word, output, 0, ident)
        if word is not None:
            return word
        with storing("write", path):
            replace_private(path, json.dumps(order, ensure_ascii=False).encode("utf-8", "replace"))
        clock = ctx.shared.clock
        end = clock.monotonic() + PATIENCE_SEC
        while self._work.handle is not None and clock.monotonic() < end:
            await clock.sleep(_LOOK_SEC)
            word, offset = await ctx.shared.in_thread(_word, output, offset, ident)
            if word is not None:
                return word
        with contextlib.suppress(OSError):
            os.unlink(path)
        return False


def _word(path: str, offset: int, ident: str) -> tuple[bool | None, int]:
    """Whether the run has taken an order, None while that is not said; and the offset after the
    whole lines that were looked at."""
    with open(open_guarded(path), "rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                break
            offset += len(line)
            said = decode(line.decode("utf-8", "replace")) if b"acp.control" in line else None
            if said is not None and said.get("type") == "acp.control" and said.get("id") == ident:
                return said.get("ok") is True, offset
    return None, offset
