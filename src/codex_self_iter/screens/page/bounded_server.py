"""The server below the page: uvicorn, bounded against whoever does not mean well.

A connection gets a moment to say what it wants, an answer that nobody takes is dropped, and of too
many connections those that have asked for nothing go first. So nobody who holds a thousand of them
keeps anybody else out, and nothing grows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import struct
from asyncio import Transport
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from uvicorn.config import Config

ASK_SEC = 10.0
"""For the head of a request, and for a TLS handshake."""
TAKE_SEC = 20.0
"""For whoever reads: an answer that stands still for so long is dropped."""
MOST_CONNECTIONS = 256
MOST_HEAD = 16 * 1024
"""Bytes of a request line with its headers."""
SEND_BUFFER = 128 * 1024
"""Bytes that the kernel holds for one reader."""
DATE_SEC = 10.0
"""So often the answers' date is set anew."""
END_SEC = 2
"""For answers that are under way when it ends."""


class BoundedProtocol(H11Protocol):
    """One connection."""

    _asking: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None
    began = 0.0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Wait for a request, but not for ever; make room where there is none."""
        super().connection_made(transport)
        self.began = self.loop.time()
        self._await_request()
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # a phone that went away without a word
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(TAKE_SEC * 1000))
        if len(self.connections) > MOST_CONNECTIONS:
            idle = [one for one in self.connections if isinstance(one, BoundedProtocol)]
            idle = [one for one in idle if not one.answering and one is not self]
            min(idle, key=lambda one: one.began, default=self).drop()

    @property
    def answering(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def drop(self) -> None:
        """End the connection at once, whatever is still to be sent."""
        self.connections.discard(self)
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            # else the kernel keeps what nobody takes, and goes on offering it for minutes
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """What came; half a request does not buy more time."""
        super().data_received(data)
        self._await_request()

    def _await_request(self) -> None:
        if self.answering:
            _cancel(self._asking)
            self._asking = None
        elif self._asking is None:
            self._asking = self.loop.call_later(ASK_SEC, self.drop)

    def on_response_complete(self) -> None:
        """The next request is waited for as the first was."""
        super().on_response_complete()
        self._await_request()

    def pause_writing(self) -> None:
        """The reader is slow."""
        super().pause_writing()
        self._taking = self._taking or self.loop.call_later(TAKE_SEC, self.drop)

    def resume_writing(self) -> None:
        """It has caught up."""
        _cancel(self._taking)
        self._taking = None
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        _cancel(self._asking, self._taking)
        super().connection_lost(exc)


def _cancel(*timers: asyncio.TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()


class BoundedServer(uvicorn.Server):
    """uvicorn on a socket of ours; it sleeps until there is something to do."""

    def __init__(self, app: Any, tls: ssl.SSLContext | None, over: asyncio.Event) -> None:
        """`tls`: None for plain HTTP; `over`: is set when it ends, so that whoever streams ends, too."""
        super().__init__(_config(app))
        self._tls, self._over = tls, over
        self.ended_by = 0
        """The signal that ended it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        make = lambda: BoundedProtocol(self.config, self.server_state, {})  # noqa: E731
        more: dict[str, Any] = {}
        if self._tls is not None:
            more = {"ssl": self._tls, "ssl_handshake_timeout": ASK_SEC}
        self.servers = [
            await loop.create_server(make, sock=sock, backlog=MOST_CONNECTIONS, **more)
            for sock in sockets or ()
        ]
        self.started = True

    async def main_loop(self) -> None:
        """Until a signal."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), DATE_SEC)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end it, once everybody was told; a second one at once."""
        loop, heard = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        for number in heard:
            loop.add_signal_handler(number, self._end, number)
        try:
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)

    def _end(self, number: int) -> None:
        self.force_exit, self.should_exit, self.ended_by = self.should_exit, True, number
        self._over.set()


def _config(app: Any) -> Config:
    # a defect of a page is in the crash log; all else that is said there anybody can cause
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MOST_HEAD,
        timeout_graceful_shutdown=END_SEC,
    )


async def serve(
    app: Any, sock: socket.socket, tls: ssl.SSLContext | None, over: asyncio.Event
) -> int:
    """Answer on an open socket until a signal comes; its number."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    server = BoundedServer(app, tls, over)
    await server.serve([sock])
    return server.ended_by


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(MOST_CONNECTIONS)
    except BaseException:
        sock.close()
        raise
    return sock
