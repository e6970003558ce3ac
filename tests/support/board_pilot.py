"""The board in a terminal of any size, without a terminal: keys in, text out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from codex_self_iter.screens.board.looking import Reader
from codex_self_iter.screens.board.terminal import Board
from codex_self_iter.screens.loops import Target


class Seat:
    """Who sits before it."""

    def __init__(self, board: Board, pilot: Any) -> None:
        self.board, self.pilot = board, pilot

    def text(self) -> str:
        """What is on the screen."""
        strips = self.board.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)

    async def press(self, *keys: str) -> str:
        """Press keys; the screen after them."""
        await self.pilot.press(*keys)
        await self.pilot.pause()
        return self.text()

    async def looked(self, times: int = 2) -> str:
        """Wait until the files were looked at anew; the screen then."""
        before = self.board.looks
        self.board._wake.set()
        while self.board.looks < before + times:
            self.board._wake.set()
            await anyio.sleep(0.01)
        await self.pilot.pause()
        return self.text()

    async def until(self, true: Callable[[str], bool]) -> str:
        """Wait until the screen is as wanted."""
        while not true(text := await self.looked()):
            pass
        return text


@asynccontextmanager
async def at_board(
    size: tuple[int, int],
    named: list[Target] | None = None,
    chosen: str = "",
    reader: Reader | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Seat]:
    """The board, after its first look."""
    board = Board(reader or Reader(named or []), chosen, clock)
    async with board.run_test(size=size) as pilot:
        seat = Seat(board, pilot)
        await seat.looked()
        yield seat
    board._reader.close()
    if board.failed is not None:
        raise board.failed
