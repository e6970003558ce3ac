"""One process, one loop or many: signals, the shared parts, the service manager, the exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import anyio
from anyio.abc import TaskStatus
from structlog.typing import FilteringBoundLogger

from codex_self_iter.core import events as ev
from codex_self_iter.core.state import StopSource
from codex_self_iter.errors import ExitCode, first_cause
from codex_self_iter.settings import Settings
from codex_self_iter.supervisor import live as live_line
from codex_self_iter.supervisor.gates import take_configuration
from codex_self_iter.supervisor.loop import Loop
from codex_self_iter.supervisor.members import Members, per_agent
from codex_self_iter.supervisor.options import RunOptions
from codex_self_iter.supervisor.poller import Poller
from codex_self_iter.supervisor.reload import Reader, Reload
from codex_self_iter.supervisor.rounds import Rounds
from codex_self_iter.supervisor.shared import Shared
from codex_self_iter.world.clock import SystemClock, clock_jump, read_clock
from codex_self_iter.world.pool import Pool
from codex_self_iter.world.process import signals
from codex_self_iter.world.process.descriptors import raise_limit
from codex_self_iter.world.process.host import Host
from codex_self_iter.world.sdnotify import Notifier
from codex_self_iter.world.state.holder import boot_id
from codex_self_iter.world.watch import Watcher

SEVERITY = (1, 2, 4, 3, 75, 130, 0)
"""Exit codes, worst first: the code of a supervisor over many loops is the worst of theirs."""
HURRY_SEC = 15.0
"""So long after a signal, and the grace of its run, what has no process of its own may take: the
unit's TimeoutStopSec= is the grace and 35, after it come the result's last files."""
LAST_SEC = 15.0
"""So long after that a loop may still write: a call that never comes back (a hung file system) must
not hold up the end."""
DOUBT_SEC = 600.0
"""So long after a signal of which nobody knows whose it was, the next one counts."""
WATCHED = 2000
"""Beyond so many loops `stat` alone serves: each watched directory costs an inotify watch."""
FEW = 20
"""Up to so many loops are looked after as closely as one."""
WATCHER_SEC = 30.0
"""The looks of the loops are the truth; the watcher's own only mend the watcher."""
TICKED = 20
"""So many loops are asked for a round each second; with more, they take turns."""


class Supervisor:
    """Runs loops until all have ended."""

    def __init__(
        self,
        loops: list[Settings],
        log: FilteringBoundLogger,
        reader: Reader,
        options: RunOptions,
        live: Callable[[str], None] | None = None,
        card: bool = False,
        shared: Shared | None = None,
        make: Callable[..., Loop] = Loop,
    ) -> None:
        """`reader` reads the configuration again (SIGHUP, a changed `--config-dir`); `live` shows
        what the only loop does; `card`: its end is to be summed up for a person.

        `make` makes a loop, called as `Loop` is; `shared` replaces the real process host, clock and
        so on: for tests and simulations."""
        files = raise_limit()
        self._loops, self._log, self._options, self._live = loops, log, options, live
        self._shared = shared or self._share()
        self._shared.card = card
        self._shared.on_round = self._on_round
        self._members = Members(self._shared, options, files, loops[0], make)
        self._reload = Reload(self._members, reader, options, self._shared)
        self._tasks = anyio.create_task_group()
        self._notifier = Notifier()
        self._rounds = 0
        self._signals = 0
        self._doubted_at = float("-inf")

    @staticmethod
    def severity(code: int) -> int:
        """How bad an exit code is; larger is worse."""
        return len(SEVERITY) - (SEVERITY.index(code) if code in SEVERITY else 0)

    # -- life --------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Run everything; returns the exit code. Raises what a lone loop raises on purpose."""
        shared, members = self._shared, self._members
        try:
            async with self._tasks as tasks:
                await tasks.start(self._listen, name="signals")
                if shared.watcher is not None:
                    self._begin("watcher", shared.watcher.run)
                if shared.poller is not None:
                    self._begin("poller", shared.poller.run)
                self._begin("tick", self._tick)
                self._begin("replies", shared.ears.run, shared.environ, self._log)
                if self._options.config_dir:
                    self._begin("configuration", self._reload.watch_directory, self.reload)
                async with members.tasks as loops:
                    for settings in self._loops:
                        members.add(settings)
                    loops.start_soon(self._announce, name="announce")
                tasks.cancel_scope.cancel()
                await self._close()  # while the watcher's thread ends
        except BaseExceptionGroup as group:
            raise first_cause(group) from None
        finally:
            self._notifier.stopping()
            await self._close()
        ends = (member.ended for member in members.by_name.values())
        return max((end.code for end in ends if end is not None), key=self.severity, default=0)

    def cards(self) -> list[str]:
        """What is shown of each loop that has ended, to a person who has waited for it."""
        ends = (member.ended for member in self._members.by_name.values())
        return [end.card for end in ends if end is not None and end.card]

    def _begin(
        self, name: str, function: Callable[..., Coroutine[Any, Any, None]], *args: object
    ) -> None:
        """Start what serves every loop; a defect of it is told by each."""

        async def part() -> None:
            with self._faults():
                await function(*args)

        self._tasks.start_soon(part, name=name)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._shared.fault = first_cause(error)
            raise

    async def _close(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._shared.host.aclose()

    def _share(self) -> Shared:
        """What the loops share, on the real machine."""
        clock, first = SystemClock(), self._loops[0]
        alone = len(self._loops) == 1 and not self._options.config_dir
        few = len(self._loops) <= FEW
        watcher = Watcher(
            interval_sec=WATCHER_SEC,
            warn=lambda text: self._log.warning("watcher.trouble", text=text),
        )
        return Shared(
            host=Host(),
            pool=Pool(first.pool.max_agents, per_agent(first), lambda: self._members.memory_hold()),
            clock=clock,
            boot_id=boot_id(),
            log=self._log,
            watcher=watcher if len(self._loops) <= WATCHED else None,
            poller=None if alone else Poller(clock),
            # Many loops do more seldom what is mostly done for nothing; a heart beats within 5 s.
            poll_sec=0.25 if few else 0.5,
            heal_sec=1.0 if few else 5.0,
            heartbeat_sec=3.0 if few else 3.5,
            housekeeping_sec=60.0 if few else 300.0,
            alone=alone,
            debug=self._options.debug or first.log.level == "debug",
        )

    # -- signals -----------------------------------------------------------------------------------

    async def _listen(self, *, task_status: TaskStatus[None]) -> None:
        async with signals.listen(set(signals.HEARD)) as heard:
            task_status.started()
            with self._faults():
                await self._hear(heard)

    async def _hear(self, heard: AsyncIterator[signals.Received]) -> None:
        async for received in heard:
            stray = received.number in signals.STRAY
            if self._from_a_run(received) or (not stray and self._doubtful(received)):
                continue
            if stray:
                name = signals.name_of(received.number)
                self._log.warning("signal.ignored", signal=name)
            elif received.number == signal.SIGHUP:
                for loop in self.reload():
                    self._begin("take configuration", take_configuration, loop.ctx)
            else:
                self._end(signal.Signals(received.number))

    def _from_a_run(self, received: signals.Received) -> bool:
        """True, and said, for a signal that something we had started sent: no person's."""
        found = False
        for loop in self._members.living():
            who = loop.work.identity
            pids = {who.recorder_pid, who.agent_pid} - {0} if who else set()
            if signals.same_run(received, pids, f"{loop.ctx.state.loop_id}-"):
                name = signals.name_of(received.number)
                text = (
                    f"{name} came from a process that a run of this loop had started and was "
                    "ignored: only a person stops the loop. Do not signal what you did not start"
                )
                loop.ctx.warnings.tell("signal", text, agent=True)
                self._log.warning("signal.ignored", signal=name, loop=loop.ctx.name)
                found = True
        return found

    def _doubtful(self, received: signals.Received) -> bool:
        """True, and said, for a signal that a run may have sent, or a person: it takes two then."""
        at_work = [loop for loop in self._members.living() if loop.work.identity]
        now = self._shared.clock.monotonic()
        doubted = now - self._doubted_at < DOUBT_SEC or self._signals
        if not (received.gone and at_work) or received.number == signal.SIGHUP or doubted:
            return False
        self._doubted_at, name = now, signals.name_of(received.number)
        text = (
            f"{name} came from a process that was gone at once, while a run was on; in case that "
            f"was the run's it was not obeyed: whoever means it sends it again, or uses `stop`"
        )
        for loop in at_work:
            loop.ctx.warnings.tell("signal", text, agent=True)
        self._log.warning("signal.doubtful", signal=name)
        return True

    def reload(self) -> list[Rounds]:
        """Read the configuration again; a bad one changes nothing and says why. The loops that have
        it."""
        self._notifier.reloading()
        taken = self._reload.run()
        self._notifier.ready()
        return taken

    def _end(self, number: signal.Signals) -> None:
        """SIGTERM, SIGINT and SIGQUIT are a STOP; the second one skips the grace."""
        code = int(ExitCode.SIGINT) if number == signal.SIGINT else 0
        stop = ev.Stop(f"stopped by {number.name}", exit_code=code, source=StopSource.SIGNAL)
        self._signals += 1
        if self._signals > 1:
            self._log.warning("stop.at_once", signal=number.name)
            for loop in self._members.living():
                loop.ctx.post(stop)
                loop.work.skip_grace()
                self._begin("force later", self._force_later)
            return
        self._log.info("stop.signal", signal=number.name)
        self._notifier.stopping()
        self._members.end(stop)
        for loop in self._members.living():
            if number == signal.SIGTERM and loop.ctx.policy.finish_on_term:
                loop.ctx.post(dataclasses.replace(stop, after_iteration=True))
                self._begin("stop later", self._stop_later, loop, stop)
            else:
                loop.ctx.post(stop)
                self._begin("hurry later", self._hurry_later, loop)

    async def _hurry_later(self, loop: Rounds) -> None:
        await anyio.sleep(HURRY_SEC + float(loop.ctx.settings.kill_grace_sec))
        loop.work.hurry()
        await self._force_later()

    async def _force_later(self) -> None:
        """The last resort: the next start goes on from what was written."""
        await anyio.sleep(LAST_SEC)
        waiting = [loop.ctx.name for loop in self._members.living()]
        self._log.error("stop.forced", loops=waiting, error="a call never came back")
        await self._close()
        stop = self._members.stop
        os._exit((stop.exit_code if stop else None) or 0)

    async def _stop_later(self, loop: Rounds, stop: ev.Stop) -> None:
        await anyio.sleep(float(loop.ctx.settings.service.finish_timeout_sec))
        loop.ctx.post(stop)
        await self._hurry_later(loop)

    # -- the service manager, the clock, the terminal ----------------------------------------------

    def _on_round(self) -> None:
        self._rounds += 1

    async def _announce(self) -> None:
        """READY once every loop has recovered and holds its lock (or has ended)."""
        for member in list(self._members.by_name.values()):
            await member.settled.wait()
        self._notifier.ready()
        self._notifier.status(self._summary())

    async def _tick(self) -> None:
        """Each second: the watchdog, the status line, clock jumps, the live line."""
        reading = read_clock(self._shared.clock)
        rounds = -1
        while True:
            await anyio.sleep(1.0)
            now = read_clock(self._shared.clock)
            self._shared.pool.look()
            jump = clock_jump(reading, now)
            reading = now
            if jump:
                self._log.warning("clock.jumped", **dataclasses.asdict(jump))
            if self._notifier.active:
                # The tick goes through the queue: only a loop that still decides and persists keeps
                # us alive.
                if self._rounds != rounds:
                    rounds = self._rounds
                    self._notifier.watchdog()
                for loop in self._turn(self._members.living()):
                    loop.ctx.post(ev.Tick())
                self._notifier.status(self._summary())
            if self._live is not None:
                for loop in self._members.living()[:1]:  # the others are its lanes
                    self._live(live_line.text(loop.ctx, loop.work))

    def _turn(self, living: list[Rounds]) -> list[Rounds]:
        """Some of the loops, other ones each time."""
        if len(living) <= TICKED:
            return living
        first = self._rounds % len(living)
        return (living + living)[first : first + TICKED]

    def _summary(self) -> str:
        """One line for `systemctl status`."""
        living = self._members.living()
        if len(living) == 1:
            return live_line.text(living[0].ctx, living[0].work)
        states = Counter(loop.ctx.state.state.value for loop in living)
        said = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        return f"{len(living)} loops: {said}"
