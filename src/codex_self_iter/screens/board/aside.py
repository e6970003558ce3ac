"""Calls that may take long, aside from the board's one thread."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def aside(call: Callable[[], T]) -> T:
    """A call that may take long, in a thread that nobody waits for when the board ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(take: Callable[[Any], None], value: object) -> None:
        if not future.done():
            take(value)

    def work() -> None:
        try:
            told = functools.partial(settle, future.set_result, call())
        except Exception as error:
            told = functools.partial(settle, future.set_exception, error)
        with suppress(RuntimeError):  # the board has ended meanwhile
            loop.call_soon_threadsafe(told)

    threading.Thread(target=work, daemon=True).start()
    return await future
