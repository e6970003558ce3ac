"""Many at once: events, open pages, connections. Memory and descriptors stay where they were."""

from __future__ import annotations

import os
import resource
import selectors
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from codex_self_iter.screens.page.bounded_server import MOST_CONNECTIONS
from tests.support.harness import PATIENCE, wait_until
from tests.support.web import Page

pytestmark = pytest.mark.slow
EVENT = b'"event '
PAGES, A_SECOND, SECONDS = 50, 1000, 20
GROWTH = 12 * 1024 * 1024
"""Bytes: what Python's allocator takes and gives back meanwhile."""
HALVES = 10_000


def memory(page: Page) -> int:
    return int(psutil.Process(page.process.pid).memory_info().rss)


class Readers:
    """Open pages that read all they are sent and keep what came last of each."""

    def __init__(self, page: Page, path: str, count: int) -> None:
        self.heard = [b""] * count
        self.events = [0] * count
        """How often each was told of one."""
        self._selector = selectors.DefaultSelector()
        self.socks = []
        for number in range(count):
            sock = page.connect()
            head = f"GET {path} HTTP/1.1\r\nHost: {page.host}:{page.port}\r\nCookie: {page.cookie}\r\n\r\n"
            sock.sendall(head.encode())
            sock.setblocking(False)
            self.socks.append(sock)
            self._selector.register(sock, selectors.EVENT_READ, number)

    def read(self, patience: float) -> None:
        for key, _ in self._selector.select(patience):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            data = sock.recv(1 << 20)
            assert data, f"page {key.data} was dropped"
            before = self.heard[key.data]
            both = before + data
            self.events[key.data] += both.count(EVENT) - before.count(EVENT)
            self.heard[key.data] = both[-4096:]

    def close(self) -> None:
        self._selector.close()
        for sock in self.socks:
            sock.close()


def test_a_thousand_events_a_second_to_fifty_pages(page: Page, state: Path) -> None:
    path = f"/loop/{page.ask('/api/v1/loops').json()['loops'][0]['id']}/events"
    readers = Readers(page, path, PAGES)
    log = state / "logs/runs/000012-executor/stdout.log"
    late = 0.0

    def write() -> None:
        """A tenth of a second's lines at a time; how late the last ones were is no matter."""
        nonlocal late
        began = time.monotonic()
        with log.open("a") as file:
            for tick in range(SECONDS * 10):
                first = tick * A_SECOND // 10
                file.writelines(f"event {first + n}\n" for n in range(A_SECOND // 10))
                file.flush()
                late = time.monotonic() - began - tick / 10
                time.sleep(max(0.0, 0.1 - late))

    def heard(number: int) -> bool:
        said = f'"event {number}"'.encode()
        return all(said in tail for tail in readers.heard)

    def read_until(number: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while not heard(number):
            assert time.monotonic() < deadline, [tail[-80:] for tail in readers.heard]
            readers.read(1.0)

    writer = threading.Thread(target=write)
    try:
        writer.start()
        deadline = time.monotonic() + PATIENCE
        while min(readers.events) < 2 * A_SECOND:
            assert time.monotonic() < deadline
            readers.read(1.0)
        before = memory(page)
        read_until(SECONDS * A_SECOND - 1)
        writer.join()
        assert readers.events == [SECONDS * A_SECOND] * PAGES, "nothing left out, nothing twice"
        assert memory(page) - before < GROWTH, (before, memory(page))
        print(
            f"{before / 2**20:.0f} MiB, then {memory(page) / 2**20:.0f}; the last was {late:.2f} s late"
        )
        assert page.ask("/").status == 200
    finally:
        writer.join()
        readers.close()


def test_ten_thousand_half_requests(page: Page) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = min(hard, HALVES + 500) if hard != resource.RLIM_INFINITY else HALVES + 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    process = psutil.Process(page.process.pid)
    page.ask("/")
    before = memory(page)
    try:
        with ExitStack() as stack:
            for number in range(min(HALVES, most - 400)):
                sock = stack.enter_context(page.connect())
                with suppress(OSError):  # it was dropped already
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: somebody")
                if number % 1000 == 999:
                    assert page.ask("/").status == 200, "they keep others out"
                    assert process.num_fds() < MOST_CONNECTIONS + 50
            assert memory(page) - before < GROWTH
            print(f"{before / 2**20:.0f} MiB, then {memory(page) / 2**20:.0f}")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert page.ask("/").status == 200
    wait_until(lambda: len(os.listdir(f"/proc/{page.process.pid}/fd")) < 40, "descriptors to go")
