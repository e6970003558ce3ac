"""Conditions that hold a loop, whatever people want: free disk, files of a run, ends of waits."""

from __future__ import annotations

import math
import os
import stat

from codex_self_iter.core import asked, waits
from codex_self_iter.core import events as ev
from codex_self_iter.core.state import Wait
from codex_self_iter.errors import StorageError, WorkspaceGoneError
from codex_self_iter.supervisor import notify
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.work import Work

WAIT_SEC = 1.0
"""The end of a wait is asked of the clocks so often; in between `monotonic` tells."""
DISK_SEC = 5.0
GONE_SEC = 5.0
"""A workspace may be away for so long: something is putting it in place anew."""
START_SEC, START_MAX_SEC = 1.0, 30.0
"""Shortest and longest pause before a run whose files could not be written is tried again."""
HELD_SEC = 600.0
"""What has held a loop for so long a person is told of: it may be for a person to mend."""
TRIAL_BYTES = 256 * 1024
"""Room for prompt, snapshot and the first output: less of it is a full disk."""


class Conditions:
    """Looks at the surroundings of one loop and posts what changed."""

    def __init__(self, ctx: Context, work: Work) -> None:
        self._ctx, self._work = ctx, work
        self._healed = self._disk = float("-inf")
        self.disk_low = False
        """There is less free disk than configured, at the last look."""
        self._start_problem = ""
        self._start_failures, self._start_at = 0, 0.0
        self._wait: Wait | None = None
        self._gone_since = math.inf
        self._held_since: float | None = None
        self._device = os.stat(ctx.paths.workspace).st_dev
        self._wait_read = self._wait_ends = float("-inf")

    def look(self) -> None:
        """Look at what is due."""
        now = self._now()
        if now - self._healed >= self._ctx.shared.heal_sec:
            self._healed = now
            if self._look_workspace(now):
                self._heal()
        if now - self._disk >= DISK_SEC:
            self._disk = now
            self.look_disk()
        self._look_start(now)
        self._look_held(now)
        if asked.told_wait(self._ctx.state) is not None and self._rest() <= 0:
            self._ctx.post(ev.Tick())

    def _now(self) -> float:
        return self._ctx.shared.clock.monotonic()

    def patience(self, longest: float) -> float:
        """Seconds until the next look: at most `longest`, less when a wait ends sooner."""
        return min(longest, max(0.01, self._rest()))

    def _rest(self) -> float:
        """Seconds until the wait ends that holds the loop, infinite without one."""
        # While something else holds it, the end of a wait changes nothing: looking for it would
        # spin.
        wait, now = asked.deciding_wait(self._ctx.state), self._now()
        if wait is None:
            self._wait = None
            return math.inf
        if wait is not self._wait or now >= self._wait_ends or now - self._wait_read >= WAIT_SEC:
            self._wait, self._wait_read = wait, now
            self._wait_ends = now + waits.rest(wait, self._ctx.shared.moment())
        return self._wait_ends - now

    def _look_workspace(self, now: float) -> bool:
        """End the loop when the ground it stands on is gone: nothing could be written, and nothing
        is made in its place. False while it is away. Raises WorkspaceGoneError."""
        workspace = str(self._ctx.paths.workspace)
        if not self._away(workspace):
            self._gone_since = math.inf
            return True
        self._gone_since = min(self._gone_since, now)
        if now - self._gone_since >= GONE_SEC:
            raise WorkspaceGoneError(
                f"the workspace {workspace} is gone (deleted, moved or not mounted); the loop has "
                "ended, and nothing was made in its place"
            )
        return False

    def _away(self, workspace: str) -> bool:
        """Whether it is certainly not there; one that only cannot be looked at may be."""
        try:
            there = os.stat(workspace)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        # unmounted, it leaves a bare mount point
        return not stat.S_ISDIR(there.st_mode) or there.st_dev != self._device

    def _heal(self) -> None:
        ctx = self._ctx
        try:
            restored = ctx.store.heal()
        except StorageError as error:
            ctx.log.debug("state.not_restored", error=str(error))
            return
        ctx.warn(ctx.store.take_warnings())
        if restored:
            ctx.log.warning("state.restored", files=restored)
            ctx.tell()

    def look_disk(self) -> None:
        """Hold the loop while there is less free disk than configured."""
        ctx, floor = self._ctx, self._ctx.settings.min_free_disk_mb
        place = ctx.paths.state_dir if ctx.paths.state_dir.is_dir() else ctx.paths.workspace
        try:
            ctx.free_mb = float(ctx.shared.free_disk_mb(str(place)))
        except OSError:
            return
        self.disk_low = low = bool(floor) and ctx.free_mb < floor
        if low == (ev.Hold.DISK in ctx.state.blocked_by):
            return  # the figure moves all the time; the reason is posted once
        free = f"only {ctx.free_mb:.0f} MiB of disk are free"
        text = f"{free}, min_free_disk_mb is {floor}: free some to go on"
        ctx.post(ev.Block(ev.Hold.DISK, text) if low else ev.Unblock(ev.Hold.DISK))

    def hold_start(self, reason: str) -> None:
        """A run's files cannot be written: start nothing until a trial shows that they can."""
        if reason != self._start_problem:
            self._ctx.log.error("run.cannot_start", error=reason)
        self._start_problem = reason
        self._start_failures += 1
        pause = min(START_SEC * 2.0 ** (self._start_failures - 1), START_MAX_SEC)
        self._start_at = self._now() + pause
        self._ctx.post(ev.Block(ev.Hold.START, f"cannot start a run: {reason}"))

    def _look_start(self, now: float) -> None:
        ctx = self._ctx
        if "start" not in ctx.state.blocked_by:
            if self._work.handle is not None:
                self._start_failures, self._start_problem = 0, ""
            return
        if now < self._start_at:
            return
        try:
            ctx.store.try_room(TRIAL_BYTES)
        except StorageError as error:
            ctx.log.debug("run.cannot_start_yet", error=str(error))
            self._start_at = now + START_SEC
            return
        ctx.post(ev.Unblock(ev.Hold.START))

    def _look_held(self, now: float) -> None:
        """Tell a person once of what holds the loop. Not by a command: a full disk holds those."""
        state = self._ctx.state
        if not state.blocked_by or state.paused or self._work.under_way:
            self._held_since = None
        elif self._held_since is None:
            self._held_since = now
        elif now - self._held_since >= HELD_SEC:
            self._held_since = math.inf
            reasons = "; ".join(state.blocked_by.values())
            text = f"held for {HELD_SEC / 60:.0f} minutes: {reasons}"
            notify.tell(self._ctx, "blocked", text, state)
