"""The person's side of a loop: sentinels, inbox, plan and task edits, and the conditions of the disk.

`watchfiles` only wakes this task early; what is true is what `stat` says, every `poll_sec`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio

from codex_self_iter.core import events as ev
from codex_self_iter.core import waits
from codex_self_iter.core.model import State
from codex_self_iter.errors import StorageError
from codex_self_iter.world import inbox as files

if TYPE_CHECKING:
    from codex_self_iter.supervisor.documents import Document
    from codex_self_iter.supervisor.loop import Loop

__all__ = ["Control"]

HEAL_SEC = 1.0
DISK_SEC = 5.0
AFTER_ITERATION = "after-iteration"
NOW = "now"


class Control:
    """Looks at the control files of one loop and posts what changed."""

    def __init__(self, loop: Loop) -> None:
        """Nothing is looked at yet."""
        self.loop = loop
        settings, paths = loop.settings, loop.paths
        self.state_dir, self.workspace = str(paths.state_dir), str(paths.workspace)
        self.stop_path = os.path.join(self.state_dir, settings.stop_file_name)
        self.global_stop_path = os.path.join(self.workspace, settings.global_stop_file_name)
        self.pause_path = os.path.join(self.state_dir, files.PAUSE_FILE)
        self.wake = anyio.Event()
        self._stop: ev.Stop | None = None
        self._pause: ev.Pause | None = None
        self._names: set[str] = set()
        self._healed = self._disk = float("-inf")
        self._plan_problem = ""

    # -- one-off looks -------------------------------------------------------------------------------------------

    def stop_request(self) -> ev.Stop | None:
        """What the STOP files ask for now."""
        settings = self.loop.settings
        for directory, name, path in (
            (self.state_dir, settings.stop_file_name, self.stop_path),
            (self.workspace, settings.global_stop_file_name, self.global_stop_path),
        ):
            text = files.read_stop(directory, name)
            if text is not None:
                after = text.strip().splitlines()[:1] == [AFTER_ITERATION]
                return ev.Stop(f"stopped by {path}; remove this file to run again", after_iteration=after)
        return None

    def clear_stop(self) -> None:
        """Remove the STOP files that are there."""
        settings = self.loop.settings
        files.remove_stop(self.state_dir, settings.stop_file_name)
        files.remove_stop(self.workspace, settings.global_stop_file_name)

    def paused_now(self) -> bool:
        """True when a PAUSE file is there; remembers it."""
        self._pause = self._pause_request()
        return self._pause is not None

    def _pause_request(self) -> ev.Pause | None:
        text = files.read_pause(self.state_dir)
        if text is None:
            return None
        return ev.Pause(f"paused by {self.pause_path}", now=text.strip().splitlines()[:1] == [NOW])

    # -- the task ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look for ever; a hint of the watcher only makes the next look come sooner."""
        loop = self.loop
        watcher = loop.shared.watcher
        if watcher is not None:
            watched = {
                "stop": self.stop_path,
                "global_stop": self.global_stop_path,
                "pause": self.pause_path,
                "inbox": os.path.join(self.state_dir, "inbox"),
                "plan": loop.plan.path,
                "task": loop.task.path,
            }
            subscription = watcher.subscribe(watched, lambda _kind: self.hint())
        try:
            while True:
                self.look()
                if loop.has_pending:
                    await loop.flush()
                with anyio.move_on_after(self._patience()):
                    await self.wake.wait()
                self.wake = anyio.Event()
        finally:
            if watcher is not None:
                subscription.close()

    def hint(self) -> None:
        """Look soon."""
        self.wake.set()

    def _patience(self) -> float:
        """Seconds until the next look: at most `poll_sec`, less when a wait ends sooner."""
        loop = self.loop
        patience = loop.shared.poll_sec
        # While something else holds the loop, the end of a wait changes nothing: looking for it would spin.
        if loop.state.wait is not None and not loop.state.paused and not loop.state.blocked_by:
            patience = min(patience, max(0.01, waits.rest(loop.state.wait, loop.shared.moment())))
        return patience

    def look(self) -> None:
        """One look at everything."""
        now = self.loop.shared.clock.monotonic()
        self._look_stop()
        self._look_pause()
        if now - self._healed >= HEAL_SEC:
            self._healed = now
            self._heal()
        self._look_inbox()
        self._look_documents(now)
        if now - self._disk >= DISK_SEC:
            self._disk = now
            self.look_disk()
        self._look_wait()
        self.loop.heartbeat()

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
            goal = (
                loop.inbox.goal()
                if os.path.exists(os.path.join(self.state_dir, "inbox", files.GOAL))
                else None
            )
            if goal is not None:
                loop.post(ev.GoalSet(goal))
                loop.inbox.mark_done([files.GOAL], loop.state.iteration)
        except StorageError as error:
            loop.log.debug("inbox.not_read", error=str(error))
            return
        taken = {message.name for message in loop.state.open.messages} if loop.state.open else set()
        fresh = names - self._names - taken
        self._names = names
        if fresh:
            loop.log.info("inbox.message", names=sorted(fresh))
            loop.post(ev.Steer(now=any(files.is_now(name) for name in fresh)))

    def _look_documents(self, now: float) -> None:
        loop = self.loop
        in_run = loop.state.open is not None and loop.state.open.run is not None
        for document in (loop.plan, loop.task):
            edit = document.poll(now)
            if edit is not None:
                loop.post(ev.Edited(edit.what, edit.added, edit.removed, edit.ticks_only, in_run))
        self.look_problem(loop.plan, loop.task)

    def look_problem(self, *documents: Document) -> None:
        """Hold the loop while a document cannot be used."""
        problem = "; ".join(document.problem for document in documents if document.problem)
        if problem == self._plan_problem:
            return
        self._plan_problem = problem
        self.loop.post(ev.Block("plan", problem) if problem else ev.Unblock("plan"))

    def look_disk(self) -> None:
        """Hold the loop while there is less free disk than configured."""
        loop, floor = self.loop, self.loop.settings.min_free_disk_mb
        try:
            loop.free_mb = float(
                loop.shared.free_disk_mb(self.state_dir if os.path.isdir(self.state_dir) else self.workspace)
            )
        except OSError:
            return
        if floor and loop.free_mb < floor:
            text = f"only {loop.free_mb:.0f} MiB of disk are free, min_free_disk_mb is {floor}: free some to go on"
            # The figure moves all the time; the reason is posted once.
            if "disk" not in loop.state.blocked_by:
                loop.post(ev.Block("disk", text))
        elif "disk" in loop.state.blocked_by:
            loop.post(ev.Unblock("disk"))

    def _look_wait(self) -> None:
        loop = self.loop
        waiting = {State.BACKOFF, State.COOLDOWN, State.LIMITED, State.BLOCKED}
        if loop.state.wait is None or loop.state.paused or loop.state.state not in waiting:
            return
        if waits.rest(loop.state.wait, loop.shared.moment()) <= 0:
            loop.post(ev.Tick())
