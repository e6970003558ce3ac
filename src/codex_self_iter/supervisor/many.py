"""One process, one loop or many: signals, the shared parts, reload, and the exit code.

A loop that raises is a defect of ours or of its surroundings: alone, the supervisor ends with exit
1 (the service manager starts it again); among others it is `crashed`, and starts again after a
backoff while the others go on."""

from __future__ import annotations

import dataclasses
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread

from codex_self_iter.core import backoff
from codex_self_iter.core import events as ev
from codex_self_iter.core.model import State
from codex_self_iter.errors import CodexSelfIterError, ExitCode, UsageError
from codex_self_iter.settings import Settings
from codex_self_iter.supervisor import live as live_line
from codex_self_iter.supervisor.live import LiveLine
from codex_self_iter.supervisor.loop import Ended, Loop
from codex_self_iter.supervisor.options import RunOptions
from codex_self_iter.supervisor.poller import Poller
from codex_self_iter.supervisor.shared import Shared
from codex_self_iter.world import registry
from codex_self_iter.world.clock import ClockReading, SystemClock, clock_jump, read_clock
from codex_self_iter.world.pool import Pool
from codex_self_iter.world.process.descriptors import raise_limit
from codex_self_iter.world.process.host import Host
from codex_self_iter.world.sdnotify import Notifier
from codex_self_iter.world.state.holder import boot_id
from codex_self_iter.world.watch import Watcher

SEVERITY = (1, 2, 4, 3, 75, 130, 0)
"""Exit codes, worst first: the code of a supervisor over many loops is the worst of theirs."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CRASH_BASE_SEC, CRASH_MAX_SEC = 5.0, 600.0
WATCHED = 200
"""Beyond so many loops `stat` alone serves: each watched directory costs inotify watches and
wake-ups.
"""
WATCHER_SEC = 30.0
"""The looks of the loops are the truth; the watcher's own only mend the watcher."""
OWN_FILES, FILES_A_LOOP, FILES_A_RUN = 64, 4, 12
"""Open files of the process itself, of each loop, and of each living agent run."""
TICKED = 20
"""So many loops are asked for a round each second; with more, they take turns."""
CONFIG_DIR_SEC = 1.0
FIXED = frozenset(
    {
        "workspace",
        "state_dir",
        "lock_file_name",
        "stop_file_name",
        "global_stop_file_name",
        "plan_file",
        "task_file",
    }
)
"""Keys that a reload cannot change: what they name is in use."""

Reader = Callable[[], tuple[list[Settings], list[CodexSelfIterError]]]


@dataclasses.dataclass(slots=True)
class Member:
    """One loop and its place in the supervisor."""

    settings: Settings
    loop: Loop | None = None
    ended: Ended | None = None
    leaving: bool = False
    crashes: int = 0
    settled: anyio.Event = dataclasses.field(default_factory=anyio.Event)
    """Set once the loop has recovered and holds its lock, or has ended."""


class Supervisor:
    """Runs loops until all have ended."""

    def __init__(
        self,
        loops: list[Settings],
        log: Any,
        reader: Reader,
        options: RunOptions,
        live: LiveLine | None = None,
        shared: Shared | None = None,
    ) -> None:
        """`reader` reads the configuration again (SIGHUP, a changed `--config-dir`).

        `shared` replaces the real process host, clock and so on: for tests and simulations.
        """
        self._wanted = loops
        self._log = log
        self._reader = reader
        self._options = options
        self._live = live
        self._given = shared
        self._alone = len(loops) == 1 and not options.config_dir
        self._members: dict[str, Member] = {}
        self._notifier = Notifier()
        self._rounds = 0
        self._signals = 0
        self._stop: ev.Stop | None = None
        self._directory_seen: object = None
        self._files = raise_limit()

    @staticmethod
    def severity(code: int) -> int:
        """How bad an exit code is; larger is worse."""
        return len(SEVERITY) - (SEVERITY.index(code) if code in SEVERITY else 0)

    # -- life --------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Run everything; returns the exit code. Raises what a lone loop raises on purpose."""
        self.shared = self._given or self._share()
        self.shared.on_round = self._on_round
        watcher = self.shared.watcher
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                await tasks.start(self._listen)
                if watcher is not None:
                    tasks.start_soon(watcher.run)
                if self.shared.poller is not None:
                    tasks.start_soon(self.shared.poller.run)
                tasks.start_soon(self._tick)
                async with anyio.create_task_group() as members:
                    self._loops = members
                    for settings in self._wanted:
                        self._add(settings)
                    members.start_soon(self._announce)
                    if self._options.config_dir:
                        members.start_soon(self._watch_config_dir)
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            self._notifier.stopping()
            with anyio.CancelScope(shield=True):
                await self.shared.host.aclose()
        codes = [member.ended.code for member in self._members.values() if member.ended is not None]
        return max(codes, key=self.severity, default=0)

    def _share(self) -> Shared:
        """What the loops share, on the real machine."""
        clock, watched = SystemClock(), len(self._wanted) <= WATCHED
        return Shared(
            host=Host(),
            pool=self._pool(self._wanted[0]),
            clock=clock,
            boot_id=boot_id(),
            log=self._log,
            watcher=Watcher(
                interval_sec=WATCHER_SEC,
                warn=lambda text: self._log.warning("watcher.trouble", text=text),
            )
            if watched
            else None,
            poller=None if self._alone else Poller(clock),
            alone=self._alone,
            debug=self._options.debug,
        )

    def _pace(self) -> None:
        """Many loops each do more seldom what is done for nothing most of the time."""
        if self._given is None:
            count = len(self._living())
            self.shared.poll_sec = min(0.5, 0.25 + count / 400)
            self.shared.heal_sec = min(5.0, 1.0 + count / 50)
            self.shared.heartbeat_sec = min(4.5, 3.0 + count / 100)
            self.shared.housekeeping_sec = min(600.0, 60.0 + count)

    def _fits(self) -> str:
        """Why one more loop cannot be run, or ""."""
        runs = self._wanted[0].pool.max_agents if self._wanted else 1
        room = (self._files - OWN_FILES - FILES_A_RUN * runs) // FILES_A_LOOP
        living = sum(member.ended is None for member in self._members.values())
        if living < max(1, room):
            return ""
        return (
            f"only {max(1, room)} loops fit into the {self._files} files that this process may have open; raise the "
            "hard limit (LimitNOFILE= in the unit, ulimit -Hn in a shell)"
        )

    def _add(self, settings: Settings) -> None:
        name = settings.name
        if name in self._members and self._members[name].ended is None:
            self._log.error("loop.duplicate", name=name, workspace=str(settings.workspace_path))
            return
        if problem := self._fits():
            self._log.error("loop.refused", loop=name, error=problem)
            self._members[name] = Member(
                settings, ended=Ended(int(ExitCode.USAGE), State.CRASHED, problem)
            )
            self._members[name].settled.set()
            return
        member = Member(settings)
        self._members[name] = member
        self._loops.start_soon(self._keep_running, member)

    async def _keep_running(self, member: Member) -> None:
        """Run one loop; among others, start it again after a crash."""
        try:
            await self._run_until_ended(member)
        finally:
            member.settled.set()

    async def _run_until_ended(self, member: Member) -> None:
        while True:
            try:
                member.ended = await self._run_once(member)
                return
            except CodexSelfIterError as error:
                if self._alone:
                    raise
                self._log.error("loop.refused", loop=member.settings.name, error=str(error))
                member.ended = Ended(int(error.exit_code), State.CRASHED, str(error))
                return
            except Exception as error:
                member.crashes += 1
                if self._alone:
                    raise
                await self._after_crash(member, error)
                if member.ended is not None:
                    return

    async def _run_once(self, member: Member) -> Ended:
        loop = member.loop = Loop(self.shared, member.settings, clear_stop=self._options.clear_stop)
        loop.ready = member.settled
        workspace = str(member.settings.workspace_path)
        state_dir = os.path.join(workspace, str(member.settings.state_dir))
        try:
            await anyio.to_thread.run_sync(
                registry.register, loop.name, workspace, os.path.realpath(state_dir)
            )
        except OSError as error:
            self._log.warning("registry.not_written", error=str(error))
        if self._stop is not None:
            # nothing is awaited from here until the loop hears signals itself
            loop.post(self._stop)
        return await loop.run()

    async def _after_crash(self, member: Member, error: Exception) -> None:
        delay = backoff.exponential(
            member.crashes, CRASH_BASE_SEC, CRASH_MAX_SEC, self.shared.rng.random()
        )
        name = member.settings.name
        self._log.error(
            "loop.crashed", loop=name, error=f"{type(error).__name__}: {error}", seconds=round(delay, 1),
            traceback="".join(traceback.format_exception(error))[-4_000:],
        )  # fmt: skip
        deadline = self.shared.clock.monotonic() + delay
        while self.shared.clock.monotonic() < deadline:
            if self._stop is not None or member.leaving:
                member.ended = Ended(int(ExitCode.INTERNAL), State.CRASHED, str(error))
                return
            await anyio.sleep(0.2)

    def _pool(self, settings: Settings) -> Pool:
        self._max_memory_mb = settings.pool.max_memory_mb
        return Pool(settings.pool.max_agents, _per_agent(settings), self._memory_hold)

    def _memory_hold(self) -> str:
        """Why no further run may start now: the runs that are on use all the memory they may."""
        if not self._max_memory_mb:
            return ""
        samples = [loop.work.sample() for loop in self._living()]
        used = sum(sample.memory_bytes for sample in samples if sample is not None) / 2**20
        return (
            f"runs use {used:.0f} of {self._max_memory_mb} MiB"
            if used >= self._max_memory_mb
            else ""
        )

    # -- signals -----------------------------------------------------------------------------------

    async def _listen(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        try:
            with anyio.open_signal_receiver(*SIGNALS) as received:
                task_status.started()
                async for number in received:
                    if number == signal.SIGHUP:
                        self.reload()
                    else:
                        self._end(signal.Signals(number))
        finally:
            # Every loop has ended: a signal in the last moment must not turn a good end into a bad
            # one.
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)

    def _end(self, number: signal.Signals) -> None:
        """SIGTERM and SIGINT are a STOP; the second one skips the grace."""
        self._signals += 1
        if self._signals > 1:
            self._log.warning("stop.at_once", signal=number.name)
            for loop in self._living():
                loop.post(self._now(number))
                loop.work.skip_grace()
            return
        self._log.info("stop.signal", signal=number.name)
        self._notifier.stopping()
        self._stop = self._now(number)
        for loop in self._living():
            if number == signal.SIGTERM and loop.policy.finish_on_term:
                loop.post(dataclasses.replace(self._stop, after_iteration=True))
                self._tasks.start_soon(
                    self._stop_later, loop, float(loop.settings.service.finish_timeout_sec)
                )
            else:
                loop.post(self._stop)

    @staticmethod
    def _now(number: signal.Signals) -> ev.Stop:
        code = int(ExitCode.SIGINT) if number == signal.SIGINT else 0
        return ev.Stop(f"stopped by {number.name}", exit_code=code)

    async def _stop_later(self, loop: Loop, seconds: float) -> None:
        await anyio.sleep(seconds)
        assert self._stop is not None
        loop.post(self._stop)

    def _living(self) -> list[Loop]:
        return [
            m.loop
            for m in self._members.values()
            if m.loop is not None and m.ended is None and m.loop.started
        ]

    # -- configuration -----------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the configuration again; a bad one changes nothing and says why."""
        self._notifier.reloading()
        try:
            wanted, problems = self._reader()
        except UsageError as error:
            self._log.error("config.not_reloaded", error=str(error))
            self._notifier.ready()
            return
        for problem in problems:
            self._log.error("config.skipped", error=str(problem))
        broken = bool(problems)
        by_name = {settings.name: settings for settings in wanted}
        if self._alone and len(wanted) == 1:
            # Whatever the file calls it now, it is the one loop that we run.
            by_name = dict.fromkeys(self._members, wanted[0])
        for name, settings in by_name.items():
            member = self._members.get(name)
            if member is None or (member.ended is not None and self._options.config_dir):
                if not (member is not None and member.settings == settings):
                    self._log.info("loop.added", loop=name)
                    self._add(settings)
            elif member.settings != settings:
                self._change(member, settings)
        if self._options.config_dir and not broken:
            for name in self._members.keys() - by_name.keys():
                self._remove(self._members[name])
        self._notifier.ready()

    def _change(self, member: Member, settings: Settings) -> None:
        """Give a loop its new settings, or say why they cannot be used; then everything stays as it
        was.
        """
        loop = member.loop
        try:
            if loop is not None and loop.started and member.ended is None:
                loop.reload(settings, lambda: self._say_changes(member.settings, settings))
            else:
                self._say_changes(member.settings, settings)
        except UsageError as error:
            self._log.error("config.not_reloaded", loop=settings.name, error=str(error))
            return
        member.settings = settings
        self._max_memory_mb = settings.pool.max_memory_mb
        self.shared.pool.resize(settings.pool.max_agents, _per_agent(settings))

    def _say_changes(self, before: Settings, after: Settings) -> None:
        """Log key by key what is different."""
        old, new = _leaves(before), _leaves(after)
        changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
        for key in changed:
            hidden = ".env." in f".{key}."
            shown = ("[hidden]", "[hidden]") if hidden else (old.get(key), new.get(key))
            self._log.info("config.changed", loop=after.name, key=key, old=shown[0], new=shown[1])
        fixed = [key for key in changed if key in FIXED]
        if fixed:
            self._log.warning("config.needs_restart", loop=after.name, keys=fixed)

    def _remove(self, member: Member) -> None:
        """Its file is gone: the loop ends after its iteration."""
        if member.leaving or member.ended is not None:
            return
        member.leaving = True
        self._log.info("loop.removed", loop=member.settings.name)
        if member.loop is not None:
            member.loop.post(ev.Stop("its configuration file was removed", after_iteration=True))

    async def _watch_config_dir(self) -> None:
        """Notice files that come, go or change, for as long as any loop runs."""
        self._directory_seen = await anyio.to_thread.run_sync(
            _directory_signature, self._options.config_dir
        )
        while any(member.ended is None for member in self._members.values()):
            await anyio.sleep(CONFIG_DIR_SEC)
            now = await anyio.to_thread.run_sync(_directory_signature, self._options.config_dir)
            if now != self._directory_seen and self._stop is None:
                self._directory_seen = now
                self.reload()

    # -- the service manager, the clock, the terminal ----------------------------------------------

    def _on_round(self) -> None:
        self._rounds += 1

    async def _announce(self) -> None:
        """READY once every loop has recovered and holds its lock (or has ended)."""
        for member in list(self._members.values()):
            await member.settled.wait()
        self._notifier.ready()
        self._notifier.status(self._summary())

    async def _tick(self) -> None:
        """Each second: the watchdog, the status line, clock jumps, the live line."""
        reading: ClockReading = read_clock(self.shared.clock)
        rounds = -1
        while True:
            await anyio.sleep(1.0)
            now = read_clock(self.shared.clock)
            self.shared.pool.look()
            jump = clock_jump(reading, now)
            reading = now
            self._pace()
            if jump:
                self._log.warning("clock.jumped", **dataclasses.asdict(jump))
            if self._notifier.active:
                # The tick goes through the queue: only a loop that still decides and persists keeps
                # us alive.
                if self._rounds != rounds:
                    rounds = self._rounds
                    self._notifier.watchdog()
                for loop in self._turn(self._living()):
                    loop.post(ev.Tick())
                self._notifier.status(self._summary())
            if self._live is not None:
                for loop in self._living():
                    self._live.draw(live_line.text(loop))

    def _turn(self, living: list[Loop]) -> list[Loop]:
        """Some of the loops, other ones each time."""
        if len(living) <= TICKED:
            return living
        first = self._rounds % len(living)
        return (living + living)[first : first + TICKED]

    def _summary(self) -> str:
        """One line for `systemctl status`."""
        living = self._living()
        if len(living) == 1:
            return live_line.text(living[0])
        states: dict[str, int] = {}
        for loop in living:
            states[loop.state.state.value] = states.get(loop.state.state.value, 0) + 1
        return f"{len(living)} loops: " + ", ".join(
            f"{count} {state}" for state, count in sorted(states.items())
        )


def _leaves(settings: Settings) -> dict[str, Any]:
    return {".".join(map(str, path)): value for path, value in settings.leaves()}


def _per_agent(settings: Settings) -> dict[str, int]:
    return {str(name): count for name, count in settings.pool.per_agent.items()}


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a task group wraps: the one that says most to the person."""
    flat = [
        _first(error) if isinstance(error, BaseExceptionGroup) else error
        for error in group.exceptions
    ]
    return next((error for error in flat if isinstance(error, CodexSelfIterError)), flat[0])


def _directory_signature(path: str) -> tuple[tuple[str, int, int, int], ...]:
    found = []
    try:
        for entry in os.scandir(path):
            if entry.name.endswith(".toml") and not entry.name.startswith("."):
                stat = entry.stat()
                found.append((entry.name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    except OSError:
        return ()
    return tuple(sorted(found))
