"""What all loops of one supervisor share: the process host, the pool, the watcher, the clock."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar, TypeVarTuple

from structlog.typing import FilteringBoundLogger

from codex_self_iter.core import asked
from codex_self_iter.core.events import LimitSeen
from codex_self_iter.core.state import Wait
from codex_self_iter.core.terms import Moment
from codex_self_iter.supervisor.ears import Ears
from codex_self_iter.supervisor.exporter import Exporter
from codex_self_iter.supervisor.poller import Poller
from codex_self_iter.world import console, threads
from codex_self_iter.world.git.scan import ScanLimits
from codex_self_iter.world.git.worktree import GitWorkTree
from codex_self_iter.world.pool import Pool
from codex_self_iter.world.ports import Clock, ProcessHost, WorkTree
from codex_self_iter.world.process.inhibitor import Inhibitor
from codex_self_iter.world.process.output import free_disk_mb
from codex_self_iter.world.process.tool import run_tool
from codex_self_iter.world.state.store import StateDirectory
from codex_self_iter.world.watch import Watcher

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class InThread(Protocol):
    """Runs a blocking call without holding up the event loop."""

    def __call__(self, function: Callable[[*Ts], T], /, *args: *Ts) -> Awaitable[T]:
        """Call `function(*args)` and return what it returns."""


def _git_work_tree(
    workspace: str, state_dir: str, timeout_sec: float, limits: ScanLimits
) -> WorkTree:
    return GitWorkTree(workspace, state_dir, run_tool, timeout_sec, limits)


class LimitBoard:
    """Known limits of accounts: what one loop finds out, the others are told."""

    def __init__(self) -> None:
        self._listeners: dict[object, Callable[[LimitSeen], None]] = {}
        self._known: dict[str, Wait] = {}

    def join(self, who: object, listener: Callable[[LimitSeen], None]) -> None:
        """Tell `listener` of every limit that another one finds, and of those already known."""
        self._listeners[who] = listener
        for account, wait in self._known.items():
            listener(LimitSeen(account, wait))

    def leave(self, who: object) -> None:
        """Stop telling."""
        self._listeners.pop(who, None)

    def share(self, who: object, account: str, wait: Wait, spread: Callable[[], float]) -> None:
        """Tell all but `who`; each its own end a little later, so that they come back one by one."""
        self._known[account] = wait
        for other, listener in self._listeners.items():
            if other is not who:
                listener(LimitSeen(account, asked.spread(wait, spread())))


@dataclasses.dataclass(slots=True)
class Shared:
    """Everything that one process has once.

    Attributes:
        environ: the supervisor's own environment.
        exporters: programs that export traces and numbers, by address of the receiver.
        output_files: the files that stdout and stderr go to, if they do: no work of an agent.
        log: a structlog logger, unbound.
        poller: looks at the control files of all loops; without it each loop has a task for that.
        poll_sec: how often a loop looks at its sentinels by `stat`.
        heal_sec: how often it looks whether its state directory is whole.
        heartbeat_sec: how often `status.json` is written when nothing changes.
        housekeeping_sec: how often it looks at the size of its state directory.
        in_thread: runs a blocking call beside the event loop.
        open_store: opens a loop's state directory (path, workspace).
        open_work_tree: what tells the workspace's content (workspace, state directory, seconds for
            git, bounds).
        free_disk_mb: free disk where a path is.
        alone: True when this process supervises one loop only.
        card: True when a person is to see a card at the end.
        branchless: True for a work tree of ours that is on no branch, whatever a run checks out: what
            is committed there must not move a branch of a person."""

    host: ProcessHost
    pool: Pool
    clock: Clock
    boot_id: str
    log: FilteringBoundLogger
    watcher: Watcher | None = None
    environ: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(os.environ))
    output_files: tuple[str, ...] = dataclasses.field(default_factory=console.output_files)
    limits: LimitBoard = dataclasses.field(default_factory=LimitBoard)
    inhibitor: Inhibitor = dataclasses.field(default_factory=Inhibitor)
    ears: Ears = dataclasses.field(default_factory=Ears)
    exporters: dict[str, Exporter] = dataclasses.field(default_factory=dict)
    rng: random.Random = dataclasses.field(default_factory=random.Random)
    poller: Poller | None = None
    poll_sec: float = 0.25
    heal_sec: float = 1.0
    heartbeat_sec: float = 3.0
    housekeeping_sec: float = 60.0
    alone: bool = True
    card: bool = False
    branchless: bool = False
    debug: bool = False
    causes: dict[str, tuple[str, float]] = dataclasses.field(default_factory=dict)
    """What was told to a person: by cause the loop that did, and when (Unix seconds)."""
    places: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    """By the names of the loops that were begun here: workspace and state directory."""
    fault: BaseException | None = None
    """A defect of what the loops share, which ends them all."""
    stays: Callable[[str], bool] = lambda _name: False
    """Whether this process goes on when the loop of this name has ended."""
    on_round: Callable[[], None] = lambda: None
    """Called after every decide-and-persist round (the service manager's watchdog)."""

    in_thread: InThread = threads.run_sync
    open_store: Callable[[str, str], StateDirectory] = StateDirectory
    open_work_tree: Callable[[str, str, float, ScanLimits], WorkTree] = _git_work_tree
    free_disk_mb: Callable[[str], int] = free_disk_mb

    def moment(self) -> Moment:
        """Now, with a random number for jitter."""
        return Moment(self.clock.wall(), self.clock.boottime(), self.boot_id, self.rng.random())
