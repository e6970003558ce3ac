"""Notices changes of the files that steer a loop: sentinels, inbox, plan, task.

The truth is a `stat` of each path every second, in a thread. watchfiles, on the *directories* of
these paths and not recursively, is only a hint that brings the next look forward: watching a file
itself goes blind after the first atomic save, and a directory that is deleted and made again is
never heard of again. So the hint is set up anew whenever a directory is another one than before,
and when it fails the looks go on without it.

One `Watcher` serves all loops of a supervisor, because inotify instances are few (128 for each
user)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Mapping

import anyio
from watchfiles import awatch

from codex_self_iter.world import threads

Signature = tuple[object, ...]
"""Inode, size, mtime_ns of a file (symlinks followed); the entries' signatures of a directory; ()
if missing."""

_MAX_ENTRIES = 1000
_FIRST_RETRY_SEC, _LAST_RETRY_SEC = 5.0, 300.0
_THREADS = 8
"""More than it starts: others may take some meanwhile."""
_STEP_MS, _DEBOUNCE_MS = 40, 40
"""A change is told one to two steps after it; each step is a wake-up of some 0.03 ms of CPU."""


def _only_a_name(error: BaseException) -> bool:
    """True when the hint ended for an event of a name that is no UTF-8, which it cannot tell."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_only_a_name, error.exceptions))
    return isinstance(error, RuntimeError) and "Unable to decode path" in str(error)


def look(path: str) -> Signature:
    """The signature of a path now. Never raises: what cannot be looked at counts as missing."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        try:
            return ("dangling", os.lstat(path).st_ino)  # a sentinel may be a symlink to nowhere
        except OSError:
            return ()
    except OSError:
        return ()
    if stat.S_ISDIR(found.st_mode):
        return (found.st_ino, *_entries(path))
    return found.st_ino, found.st_size, found.st_mtime_ns


def _entries(path: str) -> Iterable[Signature]:
    """Of an inbox: a message that is still being written changes later than its directory."""
    found: list[Signature] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if len(found) >= _MAX_ENTRIES:
                    break
                if not entry.name.startswith(".") and not entry.is_dir(follow_symlinks=False):
                    about = entry.stat(follow_symlinks=False)
                    found.append((entry.name, about.st_ino, about.st_size, about.st_mtime_ns))
    except OSError:
        pass
    return sorted(found)


class Subscription:
    """What one loop watches. `close` ends it."""

    def __init__(
        self, watcher: Watcher, paths: Mapping[str, str], on_change: Callable[[str], None]
    ) -> None:
        """Made by `Watcher.subscribe`."""
        self._watcher = watcher
        self._paths = dict(paths)
        self._on_change = on_change
        self._seen = self._look()
        self.paths = {os.path.abspath(path) for path in paths.values()}
        self.directories = {os.path.dirname(os.path.abspath(path)) for path in self._paths.values()}
        self.directories |= {path for path in self._paths.values() if os.path.isdir(path)}

    def _look(self) -> dict[str, Signature]:
        return {kind: look(path) for kind, path in self._paths.items()}

    def refresh(self) -> list[str]:
        """The kinds that differ from the last look."""
        now = self._look()
        changed = [kind for kind in now if now[kind] != self._seen[kind]]
        self._seen = now
        return changed

    def tell(self, kinds: Iterable[str]) -> None:
        """Call back, in the event loop."""
        for kind in kinds:
            self._on_change(kind)

    def close(self) -> None:
        """Watch no longer."""
        self._watcher.drop(self)


class Watcher:
    """See the module."""

    def __init__(
        self,
        *,
        interval_sec: float = 1.0,
        force_polling: bool = False,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`force_polling`: without watchfiles. `warn` gets one line for the log when the hint
        fails."""
        self._interval_sec = interval_sec
        self._force_polling = force_polling
        self._warn = warn
        self._subscriptions: list[Subscription] = []
        self._watched: dict[str, tuple[int, int]] = {}
        self._again: anyio.Event | None = None  # set: the hint must be set up anew
        self._retry_sec = _FIRST_RETRY_SEC
        self.hint_alive = False
        self._failed = False

    def subscribe(self, paths: Mapping[str, str], on_change: Callable[[str], None]) -> Subscription:
        """Watch `paths` (kind → absolute path; files, or directories of messages).

        `on_change(kind)` is called in the event loop after a change; it must be quick and must not
        raise."""
        made = Subscription(self, paths, on_change)
        self._subscriptions.append(made)
        self._set_up_anew()
        return made

    def drop(self, subscription: Subscription) -> None:
        """End a subscription; unknown ones are ignored. What nobody asks for any more is watched
        until the next look of our own, but the last one ends the hint at once."""
        with contextlib.suppress(ValueError):
            self._subscriptions.remove(subscription)
            if not self._subscriptions:
                self._set_up_anew()

    def _set_up_anew(self) -> None:
        if self._again is not None:
            self._again.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with anyio.create_task_group() as tasks:
            if not self._force_polling:
                tasks.start_soon(self._hint)
            try:
                while True:
                    await anyio.sleep(self._interval_sec)
                    await self._refresh(self._subscriptions)
                    if self.hint_alive and await threads.run_sync(
                        self._moved, abandon_on_cancel=True
                    ):
                        self._set_up_anew()
            finally:
                # awatch's thread hears of a cancellation only through its stop event
                self._set_up_anew()

    async def _refresh(self, subscriptions: Iterable[Subscription]) -> bool:
        """Look and tell; True when the watched directories are not the ones that should be
        watched."""
        asked = list(subscriptions)

        def refresh() -> tuple[list[tuple[Subscription, list[str]]], bool]:
            return [(one, kinds) for one in asked if (kinds := one.refresh())], self._moved()

        # In a thread: one stat on a network file system that hangs must not stop the event loop.
        changed, moved = await threads.run_sync(refresh, abandon_on_cancel=True)
        for subscription, kinds in changed:
            if subscription in self._subscriptions:
                subscription.tell(kinds)
        return moved

    def _directories(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in {path for one in list(self._subscriptions) for path in one.directories}:
            with contextlib.suppress(OSError):
                about = os.stat(path)
                if stat.S_ISDIR(about.st_mode):
                    found[path] = (about.st_dev, about.st_ino)
        return found

    def _moved(self) -> bool:
        """True when a watched directory was deleted, replaced or came (back)."""
        return self._directories() != self._watched

    async def _hint(self) -> None:
        while True:
            self._again = anyio.Event()
            self._watched = self._directories()
            if not self._watched:  # at once, before an agent can use up what the library needs
                await self._again.wait()
                continue
            try:
                await self._listen(list(self._watched))
            except (
                OSError,
                RuntimeError,
                ValueError,
                ExceptionGroup,
            ) as error:  # no inotify instance left, a directory gone, a path that is no UTF-8…
                if _only_a_name(error):
                    await self._refresh(self._subscriptions)
                else:
                    await self._fail(error)
            finally:
                self.hint_alive = False
            # a directory that comes and goes must not spin us
            with anyio.move_on_after(min(1.0, self._interval_sec)):
                await anyio.Event().wait()

    async def _fail(self, error: Exception) -> None:
        if self._moved():
            return
        if not self._failed:
            self._failed = True
            self._warn(
                f"watching by events failed ({error}); looking every {self._interval_sec:g} s instead"
            )
        await anyio.sleep(self._retry_sec)
        self._retry_sec = min(self._retry_sec * 2, _LAST_RETRY_SEC)

    async def _listen(self, directories: list[str]) -> None:
        assert self._again is not None
        # The library starts a thread of its own and aborts the process where none can be had.
        if not threads.can_be_had(_THREADS):
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.hint_alive = True
        async for changes in awatch(
            *directories,
            watch_filter=None,  # the default one would hide names that we care about
            step=_STEP_MS,
            debounce=_DEBOUNCE_MS,
            recursive=False,
            stop_event=self._again,
            rust_timeout=0,
            force_polling=False,
            ignore_permission_denied=True,
        ):
            # Most changes in these directories are our own: a look at other names would cost more
            # than it tells.
            touched = {path for _, path in changes}
            touched |= {os.path.dirname(path) for path in touched}
            asked = [one for one in self._subscriptions if not touched.isdisjoint(one.paths)]
            if asked:
                await self._refresh(asked)
