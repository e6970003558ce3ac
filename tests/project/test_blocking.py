"""The watch over the event loop sees what it is there for, and lets pass what may be."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import blockbuster
import pytest

from tests.support.blocking import FOREVER, OURS, SHORT, allowed, nothing_blocks

PLANTED = """
import contextlib, fcntl, os, subprocess, sys, threading, time

def sleep(directory):
    time.sleep(0.001)

def sync(directory):
    with open(directory / "file", "wb") as file:
        os.fsync(file.fileno())

def start(directory):
    subprocess.Popen([sys.executable, "-c", ""]).wait()

def write(directory):
    (directory / "file").write_text("x")

def read(directory):
    (directory / "there").read_bytes()

def remove(directory):
    os.unlink(directory / "there")

def scan(directory):
    with os.scandir(directory) as entries:
        list(entries)

def lock(directory):
    one = threading.Lock()
    one.acquire()
    one.acquire(timeout=0.01)

def hold(directory):
    with open(directory / "there") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

def look(directory):
    (directory / "there").stat()
    os.path.realpath(directory)
    threading.Lock().acquire()
    with open(directory / "there") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

async def run(function, directory):
    function(directory)

async def swallow(function, directory):
    with contextlib.suppress(Exception):
        function(directory)
"""
BLOCKING = ("sleep", "sync", "start", "write", "read", "remove", "scan", "lock", "hold")


def planted(module: str) -> dict[str, Any]:
    """The functions above, as if they stood in a module of ours."""
    names: dict[str, Any] = {}
    exec(compile(PLANTED, f"{OURS}{module}", "exec"), names)
    return names


def seen(make: Callable[[], Awaitable[None]]) -> list[str]:
    """What the watch finds while this runs in an event loop."""

    async def main() -> None:
        with contextlib.suppress(blockbuster.BlockingError):
            await make()

    with nothing_blocks() as found:
        anyio.run(main)
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "there").write_text("x")
    return tmp_path


@pytest.mark.parametrize("name", BLOCKING)
@pytest.mark.parametrize("runner", ["run", "swallow"])
def test_negative_control_a_planted_blocking_call_is_found(
    name: str, runner: str, directory: Path
) -> None:
    ours = planted("world/planted.py")
    (found,) = seen(lambda: ours[runner](ours[name], directory))
    assert "blocks the event loop: world/planted.py" in found
    assert f"{name} < world/planted.py" in found


@pytest.mark.parametrize("name", BLOCKING)
def test_it_may_block_in_a_thread_and_without_an_event_loop(name: str, directory: Path) -> None:
    function = planted("world/planted.py")[name]
    assert seen(lambda: anyio.to_thread.run_sync(function, directory)) == []
    (directory / "there").write_text("x")
    with nothing_blocks() as found:
        function(directory)
    assert found == []


def test_looking_is_let_through(directory: Path) -> None:
    ours = planted("world/planted.py")
    assert seen(lambda: ours["run"](ours["look"], directory)) == []


def test_what_a_tests_own_coroutine_does_is_let_through(directory: Path) -> None:
    async def mine() -> None:
        planted("world/planted.py")["sleep"](directory)

    assert seen(mine) == []


@pytest.mark.parametrize(("name", "count"), [("write", 0), ("read", 0), ("sleep", 1), ("sync", 1)])
def test_the_list_allows_files_and_never_waiting(name: str, count: int, directory: Path) -> None:
    ours = planted("world/state/planted.py")
    assert len(seen(lambda: ours["run"](ours[name], directory))) == count


def test_a_callback_of_ours_is_watched_too(directory: Path) -> None:
    sleep = planted("world/planted.py")["sleep"]

    async def main() -> None:
        called = anyio.Event()

        def call() -> None:
            called.set()
            with contextlib.suppress(blockbuster.BlockingError):
                sleep(directory)

        asyncio.get_running_loop().call_soon(call)
        await called.wait()

    assert len(seen(main)) == 1


@pytest.mark.parametrize("place", SHORT)
def test_everything_on_the_list_exists_and_says_why(place: str) -> None:
    where, _, name = place.partition(":")
    path = Path(OURS, where)
    modules = sorted(path.rglob("*.py")) if where.endswith("/") else [path]
    assert modules
    assert not name or any(f"def {name}(" in module.read_text() for module in modules)
    assert len(SHORT[place]) > 10


def test_the_list_is_no_wider_than_it_says() -> None:
    assert allowed("world/state/root.py", "anything")
    assert not allowed("world/pool.py", "anything")
    assert not allowed("world/git/commits.py", "_remember")
    assert not allowed("supervisor/loop.py", "run")
    assert "time.sleep".startswith(FOREVER)


def test_the_watch_is_on_for_every_test(request: pytest.FixtureRequest) -> None:
    assert "_the_event_loop_is_never_blocked" in request.fixturenames
    assert inspect.isfunction(time.sleep)  # else it is the built-in one
