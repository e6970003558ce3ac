"""The loops of one supervisor: each in its place, started again after a crash.

A loop that raises is a defect of ours or of its surroundings: alone, the supervisor ends with exit
1 (the service manager starts it again); among others it is `crashed`, and starts again after a
backoff while the others go on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import partial

import anyio
from anyio.abc import TaskGroup
from structlog.typing import FilteringBoundLogger

from codex_self_iter.core import backoff
from codex_self_iter.core import events as ev
from codex_self_iter.core.state import StopSource
from codex_self_iter.core.terms import State
from codex_self_iter.errors import ExitCode, UsageError, WorkspaceBusyError, WorkspaceGoneError
from codex_self_iter.settings import Settings
from codex_self_iter.supervisor import courier, ending
from codex_self_iter.supervisor.loop import Loop
from codex_self_iter.supervisor.options import RunOptions
from codex_self_iter.supervisor.rounds import Ended, Rounds
from codex_self_iter.supervisor.shared import Shared
from codex_self_iter.world import crashlog, registry, threads

CRASH_BASE_SEC, CRASH_MAX_SEC = 5.0, 600.0
OWN_FILES, FILES_A_LOOP, FILES_A_RUN = 64, 4, 12
"""Open files of the process itself, of each loop, and of each living agent run."""


@dataclasses.dataclass(slots=True)
class Member:
    """One loop and its place in the supervisor."""

    settings: Settings
    loop: Loop | None = None
    ended: Ended | None = None
    leaving: bool = False
    """Its configuration is gone: it ends after its iteration."""
    back: Settings | None = None
    """Its configuration came back meanwhile: it starts again when it has ended."""
    crashes: int = 0
    settled: anyio.Event = dataclasses.field(default_factory=anyio.Event)
    """Set once the loop has recovered and holds its lock, or has ended."""
    over: anyio.Event = dataclasses.field(default_factory=anyio.Event)
    """Set once nothing of it is left to be done."""


class Members:
    """Loops by name. `tasks` ends when all of them have ended."""

    def __init__(
        self,
        shared: Shared,
        options: RunOptions,
        files: int,
        first: Settings,
        make: Callable[..., Loop] = Loop,
    ) -> None:
        """`files`: how many this process may have open; `first`: settings that are for all; `make`:
        makes a loop from its settings, called as `Loop` is."""
        self._make = make
        self.by_name: dict[str, Member] = {}
        self.tasks: TaskGroup = anyio.create_task_group()
        self.stop: ev.Stop | None = None
        """What every loop has been told, and those that are still to start are."""
        self._shared, self._options, self._log = shared, options, shared.log
        shared.stays = self._stays
        self._changed = anyio.Event()
        """Set, and replaced, when a loop has ended, another one is in its place, or all are to end."""
        self._files = files
        self._begun: set[str] = set()
        self._room = (files - OWN_FILES - FILES_A_RUN * first.pool.max_agents) // FILES_A_LOOP
        self._max_memory_mb = first.pool.max_memory_mb

    def living(self) -> list[Rounds]:
        """The loops that hold their lock and have not ended."""
        return [
            rounds
            for member in self.by_name.values()
            if member.ended is None and member.loop is not None
            for rounds in member.loop.living()
        ]

    def add(self, settings: Settings) -> None:
        """Start a loop, or say why it cannot be."""
        name = settings.name
        before = self.by_name.get(name)
        member = self.by_name[name] = Member(settings)
        self._tell_changed()
        if problem := self._does_not_fit(name):
            self._refuse(member, ExitCode.USAGE, problem)
            member.settled.set()
            member.over.set()
            return
        self.tasks.start_soon(self._keep_running, member, before, name=name)

    def end(self, stop: ev.Stop) -> None:
        """All are told to end, and none is started any more."""
        self.stop = stop
        self._tell_changed()

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _stays(self, name: str) -> bool:
        """Whether this process goes on when that loop has ended: another one lives."""
        return self.stop is None and any(
            member.ended is None and (member.loop is None or member.loop.settings.name != name)
            for member in self.by_name.values()
        )

    def _does_not_fit(self, name: str) -> str:
        """Why one more loop cannot be run, or ""."""
        others = (member for other, member in self.by_name.items() if other != name)
        room = max(1, self._room)
        if sum(member.ended is None for member in others) < room:
            return ""
        return (
            f"only {room} loops fit into the {self._files} files that this process may have open; "
            "raise the hard limit (LimitNOFILE= in the unit, ulimit -Hn in a shell)"
        )

    def _refuse(self, member: Member, code: ExitCode, problem: str) -> None:
        self._log.error("loop.refused", loop=member.settings.name, error=problem)
        blocked = code == ExitCode.NEEDS_HUMAN
        member.ended = Ended(int(code), State.BLOCKED if blocked else State.CRASHED, problem)

    async def _keep_running(self, member: Member, before: Member | None) -> None:
        """Run one loop; among others, start it again after a crash. `before`: who had its place."""
        if before is not None:
            await before.over.wait()
        try:
            while member.ended is None:
                try:
                    member.ended = await self._run_once(member)
                except (UsageError, WorkspaceBusyError, WorkspaceGoneError) as error:
                    if self._shared.alone:
                        raise
                    self._refuse(member, error.exit_code, str(error))
                except Exception as error:
                    if self._shared.alone:
                        raise
                    again = self._again_sec(member)
                    if not crashlog.written(error):
                        name = member.settings.name
                        await ending.say_defect(self._log.bind(loop=name), name, error, again)
                    member.crashes += 1
                    await self._after_crash(member, error, again)
        finally:
            member.settled.set()
        self._tell_changed()
        if member.back is not None and self.stop is None:
            self.add(member.back)
        await self._tell_afterwards(member)
        member.over.set()

    async def _tell_afterwards(self, member: Member) -> None:
        """Send what the ended loop's people have not been told, unless it is started again."""
        if member.loop is None or member.loop.rounds is None:
            return
        ctx = member.loop.rounds.ctx
        while self._in_place(member) and (rest := courier.rest(ctx)) is not None:
            changed = self._changed
            if self._stays(ctx.name):
                with anyio.move_on_after(rest):
                    await changed.wait()
            if self._in_place(member) and not await courier.afterwards(ctx):
                return

    def _in_place(self, member: Member) -> bool:
        return any(one is member for one in self.by_name.values())

    async def _run_once(self, member: Member) -> Ended:
        settings = member.settings
        # a STOP that is written since the first start is meant
        first = settings.name not in self._begun
        clear_stop, sentence = self._options.clear_stop and first, self._options.sentence * first
        self._begun.add(settings.name)
        again = None if self._shared.alone else self._again_sec(member)
        loop = member.loop = self._make(
            self._shared, settings, clear_stop=clear_stop, sentence=sentence, again_sec=again
        )
        loop.ready = member.settled
        loop.taken = partial(register, settings, self._log)
        if self.stop is not None:
            # nothing is awaited from here until the loop hears signals itself
            loop.post(self.stop)
        return await loop.run()

    @staticmethod
    def _again_sec(member: Member) -> float:
        """How long after its next crash it starts again."""
        return backoff.exponential(member.crashes + 1, CRASH_BASE_SEC, CRASH_MAX_SEC, 0.0)

    async def _after_crash(self, member: Member, error: Exception, delay: float) -> None:
        clock = self._shared.clock
        deadline = clock.monotonic() + delay
        while clock.monotonic() < deadline:
            if self.stop is not None or member.leaving:
                member.ended = Ended(int(ExitCode.INTERNAL), State.CRASHED, str(error))
                return
            await anyio.sleep(0.2)

    def remove(self, member: Member) -> None:
        """Its file is gone: the loop ends after its iteration."""
        member.back = None
        if member.leaving or member.ended is not None:
            return
        member.leaving = True
        self._log.info("loop.removed", loop=member.settings.name)
        self._shared.places.pop(member.settings.name, None)
        if member.loop is not None:
            member.loop.post(
                ev.Stop(
                    "its configuration was removed",
                    after_iteration=True,
                    source=StopSource.CONFIG,
                )
            )

    # -- the pool of all ---------------------------------------------------------------------------

    def bound(self, settings: Settings) -> None:
        """Bound the agents of all loops as these settings say."""
        self._max_memory_mb = settings.pool.max_memory_mb
        self._shared.pool.resize(settings.pool.max_agents, per_agent(settings))

    def memory_hold(self) -> str:
        """Why no further run may start now: those that are on use all the memory they may."""
        if not self._max_memory_mb:
            return ""
        samples = filter(None, (loop.work.sample() for loop in self.living()))
        used = sum(sample.memory_bytes for sample in samples) / 2**20
        if used < self._max_memory_mb:
            return ""
        return f"runs use {used:.0f} of {self._max_memory_mb} MiB"


def per_agent(settings: Settings) -> dict[str, int]:
    """Places of each kind of agent."""
    return {str(name): count for name, count in settings.pool.per_agent.items()}


async def register(settings: Settings, log: FilteringBoundLogger) -> None:
    """Have a loop found by those who look for all loops."""
    workspace = str(settings.workspace_path)
    state_dir = os.path.realpath(os.path.join(workspace, str(settings.state_dir)))
    try:
        await threads.run_sync(registry.register, settings.name, workspace, state_dir)
    except OSError as error:
        log.warning("registry.not_written", error=str(error))
