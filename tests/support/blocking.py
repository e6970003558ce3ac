"""The event loop is never blocked: a coroutine of ours that blocks it fails the test.

blockbuster wraps what blocks (sleeping, files, pipes, locks) and sees whether an event loop runs in
the thread. Its error is raised where the call stands; as a handler may swallow it, it is kept too,
and the test fails at its end. What a test itself does in its coroutine is its own business."""

from __future__ import annotations

import contextlib
import fcntl
import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blockbuster
from blockbuster import blockbuster as machinery

import codex_self_iter

OURS = f"{Path(codex_self_iter.__file__).parent}{os.sep}"
FAKES = f"{OURS}testing{os.sep}"
COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

LOOKS = ("os.stat", "os.access", "os.readlink", "os.getcwd", "os.path.")
"""Not watched: to look at a local inode takes a microsecond or two, to hand it to a thread a
hundred, and a loop looks at its files four times a second."""
FOREVER = ("time.sleep", "os.fsync", "os.fdatasync", "os.waitpid", "fcntl.flock", "threading.Lock",
           "subprocess.Popen", "socket.", "ssl.", "sqlite3.", "builtins.input")  # fmt: skip
"""Never short, whoever asks: these have no place in the list below."""
SHORT = {
    "world/state/": "small private files of one loop, one at a time; what is synced has a thread",
    "world/git/index.py:discard": "two names are removed",
    "world/watch.py:subscribe": "the names in one inbox, once a start",
    "world/mounts.py:file_system": "the kernel's own list of mounts, once a start",
    "world/process/keeper.py:_call": "one byte into a pipe that is read at once",
    "settings/paths.py": "a few bytes of the named files, once at the start of a loop",
    "supervisor/:_read": "the plan or the task, bounded in size, when its stat has changed",
    "supervisor/:load_before": "one small file, once a start",
    "world/process/traces.py:read_identity": "one small file, once a start",
    "world/process/watched.py:read_report": "one small file, once a start",
    "supervisor/documents.py": "the plan or the task, bounded in size, where it was lost",
    "supervisor/:_request": "the few files of a run that is about to start",
    "supervisor/:_end_left": "the names in two directories, once a start",
    "screens/page/entering.py:secret": "32 bytes, when they have changed",
    "supervisor/:_listen": "signals' numbers from a pipe that has some",
}
"""What may do short things with files, and why. A folder, module or `module:function`; a function
after a folder may be in any of its modules."""


def allowed(module: str, function: str) -> bool:
    """Whether SHORT has it."""
    for place in SHORT:
        where, _, name = place.partition(":")
        if module.startswith(where) and name in ("", function):
            return True
    return False


def _ours_to_answer_for(name: str) -> bool:
    """Whether the blocking call below is made by a coroutine or a callback of ours that may not."""
    frame = sys._getframe(2)
    short = name.startswith(FOREVER)
    while frame is not None:
        code = frame.f_code
        ours = code.co_filename.startswith(OURS)
        if ours and not short and allowed(code.co_filename.removeprefix(OURS), code.co_name):
            return False
        if code.co_flags & COROUTINE:
            return ours and not code.co_filename.startswith(FAKES)
        frame = frame.f_back
    return True


def _where() -> str:
    """The modules and functions of ours that led to the call, the last first."""
    frame, found = sys._getframe(2), []
    while frame is not None and len(found) < 6:
        code = frame.f_code
        if code.co_filename.startswith(OURS):
            found.append(f"{code.co_filename.removeprefix(OURS)}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return " < ".join(found)


def _watched() -> Iterator[tuple[str, blockbuster.BlockBusterFunction]]:
    """What blockbuster knows, but for LOOKS, and what it does not."""
    for name, function in blockbuster.BlockBuster(codex_self_iter).functions.items():
        if not name.startswith(LOOKS):
            yield name, function
    more: dict[str, Callable[..., bool]] = {
        "os.fsync": lambda *_: False,
        "os.fdatasync": lambda *_: False,
        "os.waitpid": lambda _pid, how: bool(how & os.WNOHANG),
        "fcntl.flock": lambda _fd, how: bool(how & (fcntl.LOCK_NB | fcntl.LOCK_UN)),
    }
    make = blockbuster.BlockBusterFunction
    for name, short in more.items():
        yield name, make(None, name, scanned_modules=codex_self_iter, can_block_predicate=short)
    start = make(subprocess.Popen, "__init__", scanned_modules=codex_self_iter)
    yield "subprocess.Popen", start


def _answering(name: str, usual: Callable[..., bool]) -> Callable[..., bool]:
    def may(*args: Any, **kwargs: Any) -> bool:
        return usual(*args, **kwargs) or not _ours_to_answer_for(name)

    return may


@contextlib.contextmanager
def nothing_blocks() -> Iterator[list[str]]:
    """Watches this process. What blocked is in the list: the call, and where it stood."""
    found: list[str] = []

    class Blocked(blockbuster.BlockingError):
        def __init__(self, function: str) -> None:
            super().__init__(function)
            found.append(f"{function} blocks the event loop: {_where()}")

    watched = dict(_watched())
    usual = machinery.BlockingError
    machinery.BlockingError = Blocked  # type: ignore[misc]
    try:
        for name, function in watched.items():
            function.can_block_predicate = _answering(name, function.can_block_predicate)
            function.activate()
        yield found
    finally:
        for function in watched.values():
            function.deactivate()
        machinery.BlockingError = usual  # type: ignore[misc]
