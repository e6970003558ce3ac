"""The person's side of a loop: sentinels, inbox, plan and task edits, and the conditions of the
disk.

What is true is what `stat` says; `watchfiles` only brings the next look forward. A look costs what
it finds: when neither directory has a new entry it is over after two calls, once in LOOK_SEC each
file is looked at, and a file is opened only when it is another one than before."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import anyio

from codex_self_iter.core import events as ev
from codex_self_iter.core import waits
from codex_self_iter.core.model import State
from codex_self_iter.errors import StorageError
from codex_self_iter.world.state import inbox as files

if TYPE_CHECKING:
    from codex_self_iter.core.state import Wait
    from codex_self_iter.supervisor.documents import Document
    from codex_self_iter.supervisor.loop import Loop

LOOK_SEC = 1.0
"""Each file is looked at so often, whatever the directories' times say."""
RESTLESS_SEC = 2.0
"""For so long after a change everything is read at each look: a file may change twice within one
tick of its time.
"""
DISK_SEC = 5.0
START_SEC, START_MAX_SEC = 1.0, 30.0
"""Shortest and longest pause before a run whose files could not be written is tried again."""
TRIAL_BYTES = 256 * 1024
"""Room for prompt, snapshot and the first output: less of it is a full disk."""
WAITING = frozenset({State.BACKOFF, State.COOLDOWN, State.LIMITED, State.BLOCKED})
AFTER_ITERATION = "after-iteration"
NOW = "now"


class Control:
    """Looks at the control files of one loop and posts what changed."""

    def __init__(self, loop: Loop) -> None:
        """Nothing is looked at yet."""
        self.loop = loop
        settings, paths = loop.settings, loop.paths
        self.state_dir, self.workspace = str(paths.state_dir), str(paths.workspace)
        # The names of the start stay: `stop` and every script follow what status.json says.
        self._stops = (
            (self.state_dir, settings.stop_file_name),
            (self.workspace, settings.global_stop_file_name),
        )
        self.stop_path, self.global_stop_path = (os.path.join(*stop) for stop in self._stops)
        self.pause_path = os.path.join(self.state_dir, files.PAUSE_FILE)
        self._inbox_path = os.path.join(self.state_dir, "inbox")
        self.wake = anyio.Event()
        self.on_hint: Callable[[], None] = lambda: self.wake.set()
        self._places: object = None
        self._files: object = None
        self._looked = self._restless = float("-inf")
        self._stop: ev.Stop | None = None
        self._pause: ev.Pause | None = None
        self._names: set[str] = set()
        self._goal: str | None = None
        self._healed = self._disk = float("-inf")
        self._plan_problem = ""
        self._start_problem = ""
        self._start_failures, self._start_at = 0, 0.0
        self._wait: Wait | None = None
        self._wait_read = self._wait_ends = float("-inf")

    # -- one-off looks -----------------------------------------------------------------------------

    def stop_request(self) -> ev.Stop | None:
        """What the STOP files ask for now."""
        found = [
            (os.path.join(directory, name), text)
            for directory, name in self._stops
            if (text := files.read_stop(directory, name)) is not None
        ]
        if not found:
            return None
        # Two files may ask for different things: the one that is in a hurry counts.
        path, text = next(
            ((path, text) for path, text in found if text != AFTER_ITERATION), found[0]
        )
        reason = f"stopped by {path}; remove this file to run again"
        return ev.Stop(reason, after_iteration=text == AFTER_ITERATION)

    def clear_stop(self) -> None:
        """Remove the STOP files that are there."""
        for directory, name in self._stops:
            files.remove_stop(directory, name)

    def paused_now(self) -> bool:
        """True when a PAUSE file is there; remembers it."""
        self._pause = self._pause_request()
        return self._pause is not None

    def _pause_request(self) -> ev.Pause | None:
        text = files.read_pause(self.state_dir)
        if text is None:
            return None
        return ev.Pause(f"paused by {self.pause_path}", now=text == NOW)

    # -- the task ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look for ever (a loop that is alone; many share a `Poller`)."""
        while True:
            self.look()
            self.loop.retry()
            with anyio.move_on_after(self.patience()):
                await self.wake.wait()
            self.wake = anyio.Event()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Let the watcher's hints make the next look come sooner."""
        loop, watcher = self.loop, self.loop.shared.watcher
        if watcher is None:
            yield
            return
        watched = {
            "stop": self.stop_path,
            "global_stop": self.global_stop_path,
            "pause": self.pause_path,
            "inbox": self._inbox_path,
            "plan": loop.plan.path,
            "task": loop.task.path,
        }
        subscription = watcher.subscribe(watched, lambda _kind: self.hint())
        try:
            yield
        finally:
            subscription.close()

    def hint(self) -> None:
        """Look soon, and at everything."""
        self._looked = float("-inf")
        self.on_hint()

    def patience(self) -> float:
        """Seconds until the next look: at most `poll_sec`, less when a wait ends sooner."""
        return min(self.loop.shared.poll_sec, max(0.01, self._rest()))

    def _rest(self) -> float:
        """Seconds until the present wait ends, infinite without one. The clocks are asked once in
        LOOK_SEC.
        """
        loop, wait = self.loop, self.loop.state.wait
        # While something else holds the loop, the end of a wait changes nothing: looking for it
        # would spin.
        if wait is None or loop.state.paused or loop.state.blocked_by:
            self._wait = None
            return math.inf
        now = loop.shared.clock.monotonic()
        if wait is not self._wait or now >= self._wait_ends or now - self._wait_read >= LOOK_SEC:
            self._wait, self._wait_read = wait, now
            self._wait_ends = now + waits.rest(wait, loop.shared.moment())
        return self._wait_ends - now

    def look(self) -> None:
        """One look at everything."""
        now = self.loop.shared.clock.monotonic()
        places = self._stat(self.state_dir), self._stat(self.workspace)
        if places != self._places or now - self._looked >= LOOK_SEC or now < self._restless:
            self._places, self._looked = places, now
            self._look_at_files(now)
        self._look_wait()
        self.loop.heartbeat()

    def _look_at_files(self, now: float) -> None:
        found = tuple(
            map(
                self._stat,
                (self.stop_path, self.global_stop_path, self.pause_path, self._inbox_path),
            )
        )
        if found != self._files:
            self._files, self._restless = found, now + RESTLESS_SEC
        restless = now < self._restless
        if restless:
            self._look_stop()
            self._look_pause()
        if now - self._healed >= self.loop.shared.heal_sec:
            self._healed = now
            self._heal()
        if restless or self.loop.inbox.occupied:
            self._look_inbox()
        self._look_documents(now)
        if self.loop.plan.settling or self.loop.task.settling:
            self._restless = max(self._restless, now + RESTLESS_SEC)
        if now - self._disk >= DISK_SEC:
            self._disk = now
            self.look_disk()
        self._look_start(now)

    @staticmethod
    def _stat(path: str) -> tuple[int, int, int, int] | None:
        """What is another one after each change; None for what cannot be looked at."""
        try:
            found = os.lstat(path)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def look_requests(self) -> None:
        """What was asked for before a run starts is decided before it does."""
        self._look_stop()
        self._look_pause()
        with contextlib.suppress(StorageError):
            self._look_goal()

    def _look_stop(self) -> None:
        request = self.stop_request()
        if request == self._stop:
            return
        self._stop = request
        self.loop.post(request if request is not None else ev.Unstop())

    def _look_pause(self) -> None:
        request = self._pause_request()
        if request == self._pause:
            return
        self._pause = request
        self.loop.post(request if request is not None else ev.Resume())

    def _heal(self) -> None:
        loop = self.loop
        try:
            restored = loop.store.heal()
        except StorageError as error:
            loop.log.debug("state.not_restored", error=str(error))
            return
        loop.say_warnings(loop.store.take_warnings())
        if restored:
            loop.log.warning("state.restored", files=restored)
            loop.save_status()

    def _look_inbox(self) -> None:
        loop = self.loop
        try:
            names = set(loop.inbox.names())
            self._look_goal()
        except StorageError as error:
            loop.log.debug("inbox.not_read", error=str(error))
            self._files = None  # and again
            return
        opened = loop.state.open
        waiting = names - ({message.name for message in opened.messages} if opened else set())
        fresh = waiting - self._names
        self._names = names
        if fresh:
            loop.log.info("inbox.message", names=sorted(fresh))
        # One that came while the inputs were being read was too early to end the run that started
        # without it.
        urgent = tuple(sorted(filter(files.is_now, waiting)))
        working = opened is not None and (
            opened.run is not None or loop.state.state is State.VERIFYING
        )
        if fresh or (urgent and working):
            loop.post(ev.Steer(bool(urgent), urgent))

    def _look_goal(self) -> None:
        """Post a new goal once; its file is put aside when the goal is kept. Raises
        StorageError.
        """
        there = os.path.lexists(os.path.join(self._inbox_path, files.GOAL))
        goal = self.loop.inbox.goal() if there else None
        if goal is not None and goal != self._goal:
            self.loop.post(ev.GoalSet(goal, (files.GOAL,)))
        self._goal = goal

    def take(self, names: tuple[str, ...], iteration: int) -> None:
        """Put messages aside that are kept elsewhere by now. Raises StorageError."""
        inbox = self.loop.inbox
        if files.GOAL in names and inbox.goal() != self._goal:
            # it was replaced: the next look posts it
            names = tuple(name for name in names if name != files.GOAL)
        if names:
            inbox.mark_done(names, iteration)

    def _look_documents(self, now: float) -> None:
        loop = self.loop
        in_run = loop.state.open is not None and loop.state.open.run is not None
        for document in (loop.plan, loop.task):
            self.look_document(document, now, in_run=in_run)
        self.look_problem(loop.plan, loop.task)

    def look_document(self, document: Document, now: float, *, in_run: bool) -> None:
        """Look at plan or task and post its edit. `in_run`: while an agent is working, or has just
        ended.
        """
        edit = document.poll(now)
        if edit is not None:
            self.loop.post(ev.Edited(edit.what, edit.added, edit.removed, edit.ticks_only, in_run))
        if edit is not None and not in_run:
            self.loop.work.tree.look_again()

    def look_problem(self, *documents: Document) -> None:
        """Hold the loop while a document cannot be used."""
        problem = "; ".join(document.problem for document in documents if document.problem)
        if problem == self._plan_problem:
            return
        self._plan_problem = problem
        self.loop.post(ev.Block(ev.Hold.PLAN, problem) if problem else ev.Unblock(ev.Hold.PLAN))

    def look_disk(self) -> None:
        """Hold the loop while there is less free disk than configured."""
        loop, floor = self.loop, self.loop.settings.min_free_disk_mb
        try:
            loop.free_mb = float(
                loop.shared.free_disk_mb(
                    self.state_dir if os.path.isdir(self.state_dir) else self.workspace
                )
            )
        except OSError:
            return
        if floor and loop.free_mb < floor:
            text = f"only {loop.free_mb:.0f} MiB of disk are free, min_free_disk_mb is {floor}: free some to go on"
            # The figure moves all the time; the reason is posted once.
            if "disk" not in loop.state.blocked_by:
                loop.post(ev.Block(ev.Hold.DISK, text))
        elif "disk" in loop.state.blocked_by:
            loop.post(ev.Unblock(ev.Hold.DISK))

    def hold_start(self, reason: str) -> None:
        """A run's files cannot be written: start nothing until a trial shows that they can."""
        if reason != self._start_problem:
            self.loop.log.error("run.cannot_start", error=reason)
        self._start_problem = reason
        self._start_failures += 1
        pause = min(START_SEC * 2.0 ** (self._start_failures - 1), START_MAX_SEC)
        self._start_at = self.loop.shared.clock.monotonic() + pause
        self.loop.post(ev.Block(ev.Hold.START, f"cannot start a run: {reason}"))

    def _look_start(self, now: float) -> None:
        loop = self.loop
        if "start" not in loop.state.blocked_by:
            if loop.work.handle is not None:
                self._start_failures, self._start_problem = 0, ""
            return
        if now < self._start_at:
            return
        try:
            loop.store.try_room(TRIAL_BYTES)
        except StorageError as error:
            loop.log.debug("run.cannot_start_yet", error=str(error))
            self._start_at = now + START_SEC
            return
        loop.post(ev.Unblock(ev.Hold.START))

    def _look_wait(self) -> None:
        loop = self.loop
        if loop.state.state in WAITING and self._rest() <= 0:
            loop.post(ev.Tick())
