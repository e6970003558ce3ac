"""The one thing that a loop has under way: reading inputs, an agent run, the gates, or keeping.

Each ends by posting one event. `abort` makes it end early; the event comes all the same. What a
run that has ended has said is read to its end, whatever is asked meanwhile. Who is in a hurry cuts
short what may take long without a process of its own: a look at a large tree, a hook."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Iterator

import anyio
import anyio.lowlevel

from codex_self_iter.core.runs import EndCause, RunIdentity, RunOutcome, RunSample, RunSpec
from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor import scratch
from codex_self_iter.supervisor.context import Context
from codex_self_iter.supervisor.remains import Remains
from codex_self_iter.world.ports import RunHandle

Job = Callable[[], Awaitable[None]]
READING_SEC = 5.0
"""So long after a request to end all that a run has written may be gone through."""


class Work:
    """What is under way, and the process that it has, if it has one."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.handle: RunHandle | None = None
        self.directory = ""
        self.adopted: RunHandle | None = None
        self.started: set[str] = set()
        """The agents whose program could be started."""
        self.retrying = ""
        """What the present run says of its trying again to reach its model, else ""."""
        self.hook = ""
        """Why what is due waits for a hook, else ""."""
        self.settle: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint
        """Called before the end of a run is reported: what it was given meanwhile is known then."""
        self.last_look: Callable[[], None] | None = None
        """Called in a thread before the present run is ended: what it has answered counts."""
        self._remains = Remains(ctx)
        self.aborting = False
        """What is under way was asked to end."""
        self._spawning = False
        self._scope: anyio.CancelScope | None = None
        self._ended = False
        self._hurry: anyio.CancelScope | None = None
        self._hurried = False
        self._aborted_at = math.inf

    @property
    def identity(self) -> RunIdentity | None:
        """Who the present run's processes are."""
        return self.handle.identity if self.handle is not None else None

    def sample(self) -> RunSample | None:
        """The monitor's latest look at the present run."""
        return self.handle.sample() if self.handle is not None else None

    @property
    def under_way(self) -> bool:
        """True while something is on that will report its end."""
        return self._scope is not None

    def waiting_for(self) -> str:
        """Why a run that is due has not started: a place in the pool, or a hook; else ""."""
        hook = self.hook if self._ctx.state.preparing else ""
        return self._ctx.shared.pool.waiting_for(self._ctx.name) or hook

    def begin(
        self,
        what: str,
        job: Job,
        called_off: Callable[[], None] | None = None,
        *,
        reads_only: bool = False,
    ) -> None:
        """Start a job; `called_off` reports for it when it was aborted before it had a process.

        `reads_only`: it changes nothing in the workspace."""
        self.aborting = self._ended = False
        self._aborted_at = math.inf
        self._ctx.start(what, self._guarded, job, called_off, reads_only)

    async def _guarded(
        self, job: Job, called_off: Callable[[], None] | None, reads_only: bool
    ) -> None:
        with anyio.CancelScope() as scope:
            self._scope = scope
            if self.aborting and called_off is not None:
                scope.cancel()
            await job()
        if self._scope is scope:
            self._scope = None
        if not reads_only:
            for document in self._ctx.documents:
                document.leave()
        if scope.cancelled_caught and called_off is not None:
            called_off()

    def adopt(self, handle: RunHandle, directory: str) -> None:
        """Hold a run of an earlier supervisor: a STOP ends it, although nobody waits for it yet."""
        self.adopted = self.handle = handle
        self.directory = directory

    async def run_process(self, spec: RunSpec, adopted: RunHandle | None = None) -> RunOutcome:
        """Start (or take over) a process and wait until nothing of it is left."""
        self._spawning = True
        try:
            handle = adopted or await self._ctx.shared.host.start(spec)
            self.handle, self.directory = handle, spec.directory
        finally:
            self._spawning = False
        if not self.aborting:
            self._ctx.tell()
        ended = handle.end(EndCause.REQUEST) if self.aborting else handle.wait()
        outcome = await ended  # a loop that fails meanwhile still finds the handle, to end it
        self.handle = None
        self._remains.tell(outcome)
        with contextlib.suppress(StorageError):  # its output is read next
            self._ctx.store.regain()
        return outcome

    async def run_agent(self, spec: RunSpec, adopted: RunHandle | None) -> RunOutcome:
        """The same for a run whose answer counts: from its end on nothing calls it off."""
        outcome = await self.run_process(spec, adopted)
        self._ended = True
        return outcome

    @contextlib.contextmanager
    def cut_short(self) -> Iterator[anyio.CancelScope]:
        """What is done here ends at once when somebody is in a hurry; the scope says so."""
        with anyio.CancelScope() as scope:
            self._hurry = scope
            if self._hurried:
                scope.cancel()
            yield scope
        self._hurry = None

    def abort(self) -> None:
        """End what is under way. A spawn is not interrupted: its run ends as soon as it stands."""
        self.aborting = True
        self._aborted_at = min(self._aborted_at, self._ctx.shared.clock.monotonic())
        if self.handle is not None:
            self._ctx.start("end a run", self._end, self.handle, None)
        elif not (self._spawning or self._ended) and self._scope is not None:
            self._scope.cancel()

    def skip_grace(self) -> None:
        """Somebody is in a hurry: KILL now."""
        self.hurry()
        if self.handle is not None:
            self._ctx.start("kill a run", self._end, self.handle, 0.0)

    def hurry(self) -> None:
        """Cut short what may take long."""
        self._hurried = True
        if self._hurry is not None:
            self._hurry.cancel()

    def in_haste(self) -> bool:
        """True when somebody waits for the end of it, and has waited long enough. Any thread."""
        waited = self._ctx.shared.clock.monotonic() - self._aborted_at
        return self._hurried or waited > READING_SEC

    async def _end(self, handle: RunHandle, grace_sec: float | None) -> None:
        with anyio.CancelScope(shield=True):
            if self.last_look is not None and grace_sec is None:
                await self._ctx.shared.in_thread(self.last_look)
            await handle.end(EndCause.REQUEST, grace_sec=grace_sec)

    async def end_everything(self, cause: EndCause = EndCause.REQUEST) -> None:
        """End whatever is still under way (the loop is ending)."""
        if self.handle is not None:
            await self.handle.end(cause)
        if self.directory:  # nobody may have come to read what it said
            await self._ctx.shared.in_thread(scratch.remove, self.directory)
