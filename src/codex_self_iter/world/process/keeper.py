"""The keeper: one thread that watches living runs, applies their limits and sees each to its end.

Why a thread and not tasks of the event loop: limits, output caps and stop ladders must go on while
the loop is cancelled, busy or closing, and a pass over /proc is no work for it. The loop talks to
the thread through `Keeper.add` and `Keeper.stop`, and hears of an end through the run's `Latch`.
Between events it sleeps in one `select`; without runs it sleeps for ever.

How a run ends, by who is left to end it:

    recorder alive             it does the ladder and the sweep; the keeper only bounds it
    recorder silent or killed  hard sweep: recorded tree, descendants, marker, adopted strangers, cgroup
    adopted, recorder gone     the keeper's own ladder on the agent, then the hard sweep"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import selectors
import signal
import threading
import time
from collections.abc import Callable, Mapping

import structlog

from codex_self_iter.core.runs import EndCause
from codex_self_iter.world.guarded import parse_object
from codex_self_iter.world.pause import pause
from codex_self_iter.world.process import cgroup, kill, launcher, proctable
from codex_self_iter.world.process.watched import NEVER, Report, Watched, read_report, run_outcome

RECORDER_SLACK_SEC = launcher.POLITE_SEC + launcher.GIVE_UP_SEC + 1.5
"""How much longer than the grace a recorder may take before the keeper takes over."""
SCARCE_SEC = 30.0
"""How long a sweep is tried again when descriptors or memory for it cannot be had."""
SMALL_TREES = 64
"""Up to so many processes in all runs, walking their trees is cheaper than a look at all."""
QUIET_SEC = 0.25
"""Between two looks at the output of a run that prints, or may not be heard to."""
MOVED_SEC = 2 * launcher.GATHER_SEC
"""After a pipe is heard of, its recorder has moved into the file what was in it."""


class Keeper:
    """Watches runs in a thread of its own, from the first `add` to `close`."""

    def __init__(self, keep: Callable[[], set[int]]) -> None:
        """`keep` names pids that no sweep may touch (the launcher)."""
        self._keep = keep
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._runs: list[Watched] = []
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._thread: threading.Thread | None = None
        self._gate = threading.Lock()
        self._closing = self._closed = False
        self._looked_at = time.monotonic()

    def add(self, run: Watched) -> None:
        """Watch a run until its end. Thread-safe."""
        kill.children.spare(run.identity.recorder_pid, run.identity.recorder_start)
        self.ready()
        self._call(lambda: self._admit(run))

    def ready(self) -> None:
        """Have the thread run. Raises RuntimeError where none can be had: before a run, please."""
        with self._gate:
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name="csi-keeper", daemon=True)
                thread.start()
                self._thread = thread

    def stop(self, run: Watched, cause: EndCause, grace_sec: float) -> None:
        """Begin the stop ladder, or shorten the grace of one that has begun. Thread-safe."""
        self._call(lambda: self._stop(run, cause, grace_sec))

    def close(self) -> None:
        """End the thread. Blocking; living runs are left alone and their descriptors closed."""
        if self._thread is not None:
            self._closing = True
            self._call(lambda: None)
            self._thread.join()
            self._thread = None
        for run in self._runs:
            run.close()
        self._selector.close()
        with self._gate:
            self._closed = True
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _call(self, function: Callable[[], None]) -> None:
        with self._gate:  # no write into a descriptor that `close` has given back meanwhile
            if not self._closed:
                self._calls.append(function)
                os.write(self._wake_write, b"!")

    def _serve(self) -> None:
        while not self._closing:
            try:
                self._round()
            except Exception:  # a defect must not end the watch over every other run
                structlog.get_logger().exception("host.keeper_fault")
                pause(0.2)

    def _round(self) -> None:
        """Sleep until something is due or has happened, and do it."""
        for key, _ in self._selector.select(self._timeout()):
            if key.data is None:
                os.read(self._wake_read, 4096)
            elif key.fd in key.data.pipes:
                self._hear_output(key.data)
            else:
                self._hear(key.data)
        while self._calls:
            self._calls.popleft()()
        now = time.monotonic()
        for run in list(self._runs):
            self._advance(run, now)
        if any(run.next_look <= now for run in self._runs):
            try:
                self._look(now)
            except OSError as error:
                self._blind(now, error)

    def _timeout(self) -> float | None:
        due = min(
            (min(run.next_output, run.next_look, run.hurry_at, run.hard_at) for run in self._runs),
            default=NEVER,
        )
        return None if due == NEVER else max(0.0, due - time.monotonic())

    def _admit(self, run: Watched) -> None:
        if not self._runs:
            self._looked_at = time.monotonic()
        self._runs.append(run)
        ear = run.control if run.control is not None else self._pin(run)
        if ear is not None:
            self._selector.register(ear, selectors.EVENT_READ, run)

    @staticmethod
    def _pin(run: Watched) -> int | None:
        """What becomes readable when an adopted run's recorder, or else its agent, ends."""
        return next((fd for fd in (run.recorder_fd, run.agent_fd) if fd >= 0), None)

    def _hear(self, run: Watched) -> None:
        """The recorder reported, or it is gone."""
        if run.control is not None:
            try:
                data = run.control.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            *lines, run.buffer = (run.buffer + data).split(b"\n")
            for line in lines:
                run.report = Report.of(parse_object(line), run.spec.run_id)
            if data:
                return
        self._gone(run)

    def _await_output(self, run: Watched) -> None:
        """It is silent: nothing is looked at for its output's sake until its pipes have some."""
        run.next_output = NEVER
        for fd in run.pipes:
            self._selector.register(fd, selectors.EVENT_READ, run)

    def _hear_output(self, run: Watched) -> None:
        """Look at its output from now on, until it is silent again."""
        if run.next_output == NEVER:
            run.next_output, run.silent = time.monotonic() + MOVED_SEC, False
            for fd in run.pipes:
                self._selector.unregister(fd)

    def _gone(self, run: Watched) -> None:
        """Nobody will tell more: finish, after a hard sweep unless the report says all is gone."""
        self._hear_output(run)
        ear = run.control if run.control is not None else self._pin(run)
        if ear is not None and not run.sweeping:
            self._selector.unregister(ear)
        if run.report is None and not run.ours:
            run.report = read_report(run.spec)
        if run.sweeping:
            return
        run.sweeping = True
        run.next_look = run.hurry_at = run.hard_at = NEVER
        # What a run's own recorder says over its socket is believed; a file may be anybody's.
        if run.ours and run.report is not None and not run.report.left:
            self._finish(run, 0, None)
            return
        thread = threading.Thread(target=self._sweep, args=(run,), name="csi-sweep", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the limit of processes is reached, perhaps by this very run
            self._sweep(run)

    def _sweep(self, run: Watched) -> None:
        """Sweep until it has been done once: what it needs (descriptors) may be scarce just now."""
        give_up = time.monotonic() + SCARCE_SEC
        while True:
            try:
                self._hard_sweep(run)
                return
            except Exception as error:
                if time.monotonic() > give_up:
                    structlog.get_logger().exception("host.keeper_fault")
                    nobody_knows = (f"nobody knows who, for the sweep failed: {error}",)
                    self._call(functools.partial(self._finish, run, 0, None, nobody_knows))
                    return
            pause(0.1)

    def _advance(self, run: Watched, now: float) -> None:
        """Whatever is due for one run, its sample excepted."""
        if run.next_output <= now:
            grown, pauses = run.output, [QUIET_SEC]
            for stream in run.streams:
                # if the disk refuses to punch, the free-disk floor is the next defence
                with contextlib.suppress(OSError):
                    if not run.recorded:
                        stream.take()
                    pauses.append(stream.poll(now))
            # however long it was silent: what a flood writes unseen is beyond every cap
            early = now - run.identity.started_monotonic < 1.0
            run.next_output = now + min(0.02 if early else QUIET_SEC, *pauses)
            silent, run.silent = run.silent, run.output == grown
            if silent and run.silent and run.pipes and not (early or run.sweeping):
                self._await_output(run)
        if run.hurry_at <= now:
            run.hurry_at = NEVER
            if run.recorded:
                run.signal_recorder(signal.SIGUSR1)
        if run.hard_at <= now:
            self._gone(run)

    def _look(self, now: float) -> None:
        """One look at all runs, in the process table or, while they are small, their trees."""
        if proctable.LINUX and sum(len(run.seen) for run in self._runs) < SMALL_TREES:
            pids = [
                (run.identity.recorder_pid, run.identity.agent_pid, run.spec.beside[0])
                for run in self._runs
            ]
            table = proctable.walk(pid for pair in pids for pid in pair if pid)
        else:
            table = proctable.scan()
        by_parent = proctable.offspring(table)
        gap = now - self._looked_at
        self._looked_at = now
        for run in list(self._runs):
            if run.sweeping:
                continue
            for stream in run.streams if run.next_output == NEVER else ():
                with contextlib.suppress(OSError):
                    stream.poll(now)
            if gap > 10.0:  # nobody looks so seldom: we or the machine stood still
                run.tracker.skip(gap - 2.0)
            self._sample(run, now, table, by_parent)
            run.next_look = now + (1.0 if run.cause else run.tracker.next_look(now))
        kill.children.reap_strangers()

    def _blind(self, now: float, error: OSError) -> None:
        """No look is possible (no descriptor to be had): what needs none is looked at all the
        same."""
        structlog.get_logger().warning("host.keeper_fault", error=str(error))
        for run in self._runs:
            cause = run.tracker.crossed(now) if run.cause is None else None
            if cause is not None:
                self._stop(run, cause, run.spec.limits.kill_grace_sec)
            run.next_look = max(run.next_look, now + 1.0)

    def _sample(
        self,
        run: Watched,
        now: float,
        table: dict[int, proctable.Proc],
        by_parent: dict[int, list[int]],
    ) -> None:
        identity = run.identity
        recorder = table.get(identity.recorder_pid)
        if recorder is not None and recorder.start != identity.recorder_start:
            recorder = None
        roots = {identity.agent_pid} if recorder is None else {identity.recorder_pid}
        if run.spec.beside[0] and proctable.alive(table, *run.spec.beside):
            roots.add(run.spec.beside[0])
        pids = proctable.descendants(by_parent, roots)
        if proctable.alive(table, identity.agent_pid, identity.agent_start):
            pids.add(identity.agent_pid)
        elif run.agent_gone_at is None:
            run.agent_gone_at = now
        run.seen = {pid: table[pid].start for pid in pids}
        run.tracker.look(now, table, identity.recorder_pid if recorder else 0, pids, run.output)
        if recorder is not None and recorder.state in "Tt":
            run.signal_recorder(signal.SIGCONT)
        # where nothing becomes readable at an end, the look has to notice it
        unheard = run.control is None and self._pin(run) is None
        gone = recorder is None if run.recorded else run.agent_gone_at is not None
        silent = run.agent_gone_at is not None and now - run.agent_gone_at > RECORDER_SLACK_SEC
        if silent or (unheard and gone):
            self._gone(run)
        elif run.cause is None and (cause := run.tracker.crossed(now)) is not None:
            self._stop(run, cause, run.spec.limits.kill_grace_sec)

    def _stop(self, run: Watched, cause: EndCause, grace_sec: float) -> None:
        if run.latch.outcome is not None or run.sweeping:
            return
        now = time.monotonic()
        stop_at = now + grace_sec
        if stop_at >= run.stop_at:
            return  # it has begun, and this is no shorter
        run.cause = run.cause or cause
        if run.recorded:
            run.tell(grace_sec, run.cause)
            run.hard_at = stop_at + RECORDER_SLACK_SEC
            run.hurry_at = NEVER if run.control is not None else stop_at
        else:
            run.signal_agent(signal.SIGTERM, signal.SIGCONT)
            run.hard_at = stop_at
        run.stop_at = stop_at

    def _hard_sweep(self, run: Watched) -> None:
        """In a thread of its own: end everything that any ring still finds, the recorder last."""
        identity = run.identity
        agent, recorder = identity.agent_pid, (identity.recorder_pid, identity.recorder_start)

        def prey(table: Mapping[int, proctable.Proc]) -> set[int]:
            seen = run.seen.items()
            found = {pid for pid, start in seen if pid in table and table[pid].start == start}
            if proctable.alive(table, *recorder):
                found |= proctable.descendants(proctable.offspring(table), {recorder[0]})
            return (found | proctable.marked(table, run.spec.run_id)) - {recorder[0]}

        def last(table: Mapping[int, proctable.Proc]) -> set[int]:
            alive = proctable.alive(table, *recorder)
            return prey(table) | ({recorder[0]} if alive else set())

        keep, ours = self._keep(), run.ours
        ended, _ = kill.exterminate(prey, keep=keep | {recorder[0]}, adopted=ours)
        more, left = kill.exterminate(last, limit_sec=2.0, keep=keep, adopted=ours)
        ended = more | {key: status for key, status in ended.items() if more.get(key) is None}
        count = len(ended.keys() - {(agent, identity.agent_start), recorder})
        status = ended.get((agent, identity.agent_start))
        self._call(lambda: self._finish(run, count, status, left))

    def _finish(
        self, run: Watched, swept: int, status: int | None, left: tuple[str, ...] = ()
    ) -> None:
        """Compact the output, say how it ended, forget the run."""
        run.report = run.report or read_report(run.spec)
        if run.cgroup_directory:
            swept += cgroup.end(run.cgroup_directory, recorder=run.identity.recorder_pid)
        for stream in run.streams:
            try:
                stream.finish()
            except OSError as error:  # the disk is full: the file stays as it is
                stream.troubles.append(f"{stream.path} could not be finished: {error.strerror}")
        outcome = run_outcome(run, swept, status, left)
        if run in self._runs:
            self._runs.remove(run)
        run.close()
        kill.children.unspare(run.identity.recorder_pid, run.identity.recorder_start)
        if run.ours:
            kill.children.reap(run.identity.recorder_pid)
        run.latch.set(outcome)
