"""What the supervisor needs of the world: a small Protocol for each part. Fakes: `testing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from codex_self_iter.core.evidence import Snapshot
from codex_self_iter.core.runs import EndCause, RunIdentity, RunOutcome, RunSample, RunSpec


class Clock(Protocol):
    """Time as an object, so that tests own it."""

    def monotonic(self) -> float:
        """Seconds that never jump and stand still in suspend; the same for all of one boot."""

    def wall(self) -> float:
        """Unix seconds; may jump. For records and for ends of waits that must survive a restart."""

    def boottime(self) -> float:
        """Like monotonic, but goes on in suspend."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class RunHandle(Protocol):
    """A run that was started or adopted."""

    @property
    def identity(self) -> RunIdentity:
        """Who its processes are; persisted by the supervisor at once."""

    def sample(self) -> RunSample:
        """The monitor's latest look."""

    async def wait(self) -> RunOutcome:
        """Wait until it has ended *and* nothing is left (bounded). Cancelling leaves the run."""

    async def end(
        self, cause: EndCause = EndCause.REQUEST, *, grace_sec: float | None = None
    ) -> RunOutcome:
        """Run the stop ladder, shielded and bounded: TERM+CONT, grace, KILL, sweep. Idempotent; a
        second call with a shorter grace shortens the first."""


class ProcessHost(Protocol):
    """Starts, finds and ends runs. One for each supervisor process."""

    async def start(self, spec: RunSpec) -> RunHandle:
        """Start a run; shielded from cancellation. A program that cannot be started gives a handle
        whose `wait` returns at once with cause SPAWN_FAILED."""

    async def adopt(self, spec: RunSpec, identity: RunIdentity | None) -> RunHandle | None:
        """Find what an earlier supervisor left of this run: by run lock, recorded identity and
        marker. A living run gives a handle (deadline from its true start); a run that ended
        meanwhile gives one whose `wait` returns its recorded exit; None when there is no trace that
        it ever started."""

    async def sweep(self, spec: RunSpec, identity: RunIdentity | None) -> int:
        """End all that an earlier supervisor left of this run; returns how many processes."""

    async def sweep_strays(self, workspace: str, keep: str) -> int:
        """End what was started in this workspace for any run but `keep` ("" for none), although no
        record of it may be left; returns how many processes were ended. Only while holding the
        workspace's lock."""

    async def aclose(self) -> None:
        """End everything and leave nothing behind."""


class WorkTree(Protocol):
    """The workspace's content. `timeout_sec`: for one git command; may be changed."""

    timeout_sec: float

    @property
    def repository(self) -> object | None:
        """The git repository at the last look; None: nothing can be committed or kept."""

    async def snapshot(self, previous: Snapshot | None) -> Snapshot:
        """Take one snapshot; `previous` saves hashing files that did not change."""

    async def committed(self, old_head: str, new_head: str) -> Mapping[str, tuple[str, str]]:
        """What two commits differ in: path -> (old, new) content; {} when it cannot be told."""
