"""The monitor: what counts as a sign of life, and which limit ends a run."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import anyio
import pytest

from codex_self_iter.core.runs import EndCause, RunLimits, RunOutcome
from codex_self_iter.world.process import proctable
from codex_self_iter.world.process.host import Host, Run
from codex_self_iter.world.process.monitor import FileWatch, Sampler, Tracker, Usage, newest_change
from tests.support.hosting import eventually, make_spec, stdout_of

RECORDER, AGENT, CHILD = 10, 11, 12


def proc(pid: int, parent: int) -> proctable.Proc:
    return proctable.Proc(pid, "x", "S", parent, 1, 1)


class Lab:
    """A tracker on a clock and a process table of the test's own."""

    def __init__(self, limits: RunLimits, files: float | None = None) -> None:
        self.now = 1000.0
        self.asked = 0
        self.files = files
        self.cpu, self.reaped, self.rss, self.grown_at, self.size = 0.0, 0.0, 1000, None, 0
        self.children = 0
        self.tracker = Tracker(limits, self.now, self.now, self._age, self._sample)

    def _sample(
        self,
        now: float,
        table: Mapping[int, proctable.Proc],
        recorder: int,
        pids: Collection[int],
    ) -> Usage:
        """A sampler for processes that do not exist: the children use nothing but memory."""
        return Usage(self.cpu + self.reaped, self.rss + 1000 * (len(pids) - 1))

    def _age(self, window: float) -> float | None:
        self.asked += 1
        return self.files

    def run_for(self, seconds: float, *, cores: float = 0.0, step: float = 2.0) -> EndCause | None:
        """Let time pass with this use of CPU; stops at the first limit crossed."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            self.cpu += cores * step
            table = {
                RECORDER: proc(RECORDER, 1),
                AGENT: proc(AGENT, RECORDER),
            }
            table |= {pid: proc(pid, AGENT) for pid in range(100, 100 + self.children)}
            self.tracker.look(
                self.now, table, RECORDER, set(table) - {RECORDER}, (self.size, self.grown_at)
            )
            if cause := self.tracker.crossed(self.now):
                return cause
        return None


def test_wall_limit_counts_from_the_true_start_and_without_standstill() -> None:
    lab = Lab(RunLimits(wall_sec=100))
    lab.now += 60
    lab.tracker.skip(60)  # a suspend that the monotonic clock counted, or a stopped supervisor
    assert lab.run_for(90, cores=1) is None
    assert lab.run_for(20, cores=1) is EndCause.WALL_TIMEOUT


def test_without_limits_nothing_ends_a_run() -> None:
    lab = Lab(RunLimits(processes=0))
    lab.rss, lab.children = 1 << 40, 10_000
    assert lab.run_for(1000, step=100) is None


def test_silence_without_cpu_is_idle() -> None:
    assert Lab(RunLimits(idle_sec=60)).run_for(100) is EndCause.IDLE_TIMEOUT


def test_timer_wakeups_are_idle_and_work_is_not() -> None:
    assert Lab(RunLimits(idle_sec=600)).run_for(700, cores=0.003) is EndCause.IDLE_TIMEOUT
    assert Lab(RunLimits(idle_sec=600)).run_for(3000, cores=0.05) is None
    compiling = Lab(RunLimits(idle_sec=60))
    # half a second of work every 50 seconds, done by children that are gone by then
    for _ in range(20):
        assert compiling.run_for(50) is None
        compiling.reaped += 0.5


def test_an_agent_that_is_noisy_while_it_waits_is_idle_all_the_same() -> None:
    """opencode, as measured: 2.6 % of a core in bursts while the server is silent."""

    def wait(limits: RunLimits) -> EndCause | None:
        lab = Lab(limits)
        for _ in range(20):
            lab.cpu += 0.25
            if (cause := lab.run_for(10)) is not None:
                return cause
        return None

    assert wait(RunLimits(idle_sec=60, noise_cores=0.04)) is EndCause.IDLE_TIMEOUT
    assert wait(RunLimits(idle_sec=60)) is None  # the negative control
    assert Lab(RunLimits(idle_sec=60, noise_cores=0.04)).run_for(600, cores=0.2) is None


def test_output_is_a_sign_of_life() -> None:
    lab = Lab(RunLimits(idle_sec=60))
    for _ in range(5):
        assert lab.run_for(50) is None
        lab.size, lab.grown_at = lab.size + 1, lab.now
    assert lab.run_for(70) is EndCause.IDLE_TIMEOUT


def test_files_are_looked_at_only_when_everything_else_is_silent() -> None:
    lab = Lab(RunLimits(idle_sec=60), files=10.0)
    assert lab.run_for(58) is None
    assert lab.asked == 0
    assert lab.run_for(50) is None  # the change was 10 s old: 50 more seconds of patience
    assert lab.asked == 1
    lab.files = None
    assert lab.run_for(10) is EndCause.IDLE_TIMEOUT


def test_memory_and_processes_of_the_tree_are_limits() -> None:
    hungry = Lab(RunLimits(memory_bytes=10_000))
    assert hungry.run_for(10) is None
    hungry.rss = 20_000
    assert hungry.run_for(10) is EndCause.MEMORY
    bomb = Lab(RunLimits(processes=50))
    bomb.children = 48
    assert bomb.run_for(10) is None
    bomb.children = 60
    assert bomb.run_for(10) is EndCause.MEMORY


def test_looks_are_seldom_in_the_long_run_and_frequent_near_a_limit() -> None:
    lab = Lab(RunLimits(wall_sec=1000))
    assert lab.tracker.next_look(lab.now) <= 0.25
    assert lab.run_for(100) is None
    assert lab.tracker.next_look(lab.now) == 2.0
    assert lab.tracker.next_look(lab.now + 899.5) == pytest.approx(0.5)


def test_file_changes_leave_out_git_the_state_directory_and_symbolic_links(tmp_path: Path) -> None:
    state, outside = tmp_path / "work" / "state", tmp_path / "outside"
    for directory in (state, tmp_path / "work" / ".git", tmp_path / "work" / "src", outside):
        directory.mkdir(parents=True)
    (tmp_path / "work" / "link").symlink_to(outside)
    work = str(tmp_path / "work")
    before = newest_change(work, {str(state)})
    time.sleep(0.02)
    for path in (state / "status.json", tmp_path / "work" / ".git" / "index", outside / "file"):
        path.write_text("x")
    assert newest_change(work, {str(state)}) == before
    assert newest_change(work, set()) > before
    (tmp_path / "work" / "src" / "a.py").write_text("x")
    assert newest_change(work, {str(state)}) > before


def test_file_watch_survives_a_wall_clock_that_was_set(tmp_path: Path) -> None:
    watch = FileWatch(str(tmp_path), set())
    os.utime(tmp_path)
    assert watch.age(60) == pytest.approx(0, abs=5)
    time.sleep(0.05)
    assert watch.age(0.01) is None
    (tmp_path / "new").write_text("x")
    time.sleep(0.05)
    assert watch.age(0.01) == 0.0  # by its time too old, but it was not there at the last look
    assert FileWatch(None, set()).age(60) is None


# --- real processes -------------------------------------------------------------------------------


async def outcome_of(root: Path, script: str, limits: RunLimits, **fields: object) -> RunOutcome:
    async with Host() as host:
        run = await host.start(make_spec(root, "bash", "-c", script, limits=limits, **fields))  # type: ignore[arg-type]
        with anyio.fail_after(60):
            return await run.wait()


IDLE = RunLimits(idle_sec=1.5, kill_grace_sec=0.3)
PATIENT = RunLimits(idle_sec=3, kill_grace_sec=0.3)
"""For agents that do something every half second, as far as a busy machine lets them."""
WORK = "while :; do i=0; until [ $i = 10000 ]; do i=$((i+1)); done; sleep 0.1; done"
"""A fifth of a core or so: more than the wake-ups of timers use."""


@pytest.mark.anyio
@pytest.mark.parametrize(
    "script",
    [
        "sleep 600",
        "kill -STOP $$",
        "trap '' TERM; echo once; while :; do sleep 600; done",
        "setsid sleep 600 & wait",
    ],
)
async def test_silent_stopped_and_deaf_agents_are_idle(tmp_path: Path, script: str) -> None:
    assert (await outcome_of(tmp_path, script, IDLE)).cause is EndCause.IDLE_TIMEOUT


@pytest.mark.anyio
@pytest.mark.parametrize(
    "script",
    [
        f"timeout 5 sh -c '{WORK}'; exit 0",
        f"(setsid timeout 5 sh -c '{WORK}' &); sleep 5",
        "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.5; done",
        "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i > file; sleep 0.5; done",
    ],
    ids=["compiles", "compiles-in-the-background", "prints", "writes-files"],
)
async def test_working_agents_are_not_idle(tmp_path: Path, script: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    outcome = await outcome_of(tmp_path, script, PATIENT, cwd=str(work), watch_root=str(work))
    assert outcome.ok, outcome


@pytest.mark.anyio
async def test_memory_of_the_whole_tree_is_bounded(tmp_path: Path) -> None:
    grow = f"{shlex.quote(sys.executable)} -S -c 'import time; x = b\"x\" * (150 << 20); time.sleep(60)'"
    limits = RunLimits(memory_bytes=250 << 20, kill_grace_sec=0.3)
    outcome = await outcome_of(tmp_path, f"{grow} & {grow} & {grow} & wait", limits)
    assert outcome.cause is EndCause.MEMORY
    assert (await outcome_of(tmp_path, "sleep 1.5", limits)).ok


@pytest.mark.anyio
async def test_negative_control_without_sampling_no_limit_on_use_ends_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sampler, "__call__", lambda *_: Usage())
    grow = (
        f"{shlex.quote(sys.executable)} -S -c 'import time; x = b\"x\" * (60 << 20); time.sleep(2)'"
    )
    limits = RunLimits(memory_bytes=20 << 20, kill_grace_sec=0.3)
    assert (await outcome_of(tmp_path, grow, limits)).ok
    works = f"timeout 60 sh -c '{WORK}'; exit 0"
    assert (await outcome_of(tmp_path, works, IDLE)).cause is EndCause.IDLE_TIMEOUT


def test_a_sample_counts_threads_bytes_and_open_files(tmp_path: Path) -> None:
    script = (
        "import os, sys, threading; threads = [threading.Thread(target=sys.stdin.read) for _ in '12']; "
        "[one.start() for one in threads]; files = [open('/dev/null') for _ in range(20)]; "
        "file = open(sys.argv[1], 'wb', 0); file.write(b'x' * (1 << 20)); os.fsync(file.fileno()); "
        "\nwhile sum(os.times()[:2]) < 0.1: pass  # the kernel counts in hundredths"
        "\nprint('up', flush=True)"
    )
    argv = [sys.executable, "-c", script, str(tmp_path / "written")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        table = proctable.scan()
        usage = Sampler()(time.monotonic(), table, 0, {process.pid})
        process.kill()
    assert usage.threads >= 3
    assert usage.open_files >= 23
    assert usage.memory_bytes > 1 << 20
    assert usage.cpu_sec > 0


def test_a_sampler_tells_a_namesake_from_who_had_the_number() -> None:
    sampler, me = Sampler(), os.getpid()
    table = proctable.scan()
    sampler(0.0, table, 0, {me})
    first = sampler._known[me][1]
    sampler(1.0, table, 0, {me})
    assert sampler._known[me][1] is first
    sampler(2.0, {me: table[me]._replace(start=1)}, 0, {me})
    assert sampler._known[me][1] is not first
    sampler(3.0, {}, 0, {me})
    assert sampler._known == {}, "who has gone is forgotten"


@pytest.mark.anyio
async def test_a_fork_bomb_is_ended_by_the_process_limit(tmp_path: Path) -> None:
    # each process forks two for at most 9 generations (1,023 in all): bounded even if the limit
    # failed
    bomb = 'f() { if [ "$1" -gt 0 ]; then f $(($1 - 1)) & f $(($1 - 1)) & fi; sleep 40; }; f 9'
    limits = dataclasses.replace(IDLE, idle_sec=0, processes=100)
    outcome = await outcome_of(tmp_path, bomb, limits)
    assert outcome.cause is EndCause.MEMORY
    assert eventually(
        lambda: (
            not [
                p
                for p in proctable.scan().values()
                if p.living and proctable.has_marker(p.pid, outcome.run_id)
            ]
        )
    )


@pytest.mark.anyio
async def test_samples_show_what_the_tree_does(tmp_path: Path) -> None:
    async with Host() as host:
        spec = make_spec(
            tmp_path, "bash", "-c", "echo hello; (setsid sh -c 'while :; do :; done' &); sleep 60"
        )
        run = await host.start(spec)
        await until_sampled(run)
        sample = run.sample()
        await run.end()
    assert stdout_of(spec) == "hello\n"
    assert sample.processes >= 3 - 1
    assert sample.cpu_sec > 0.1
    assert sample.cpu_percent > 1
    assert sample.memory_bytes > 1 << 20
    assert sample.output_bytes == 6
    assert sample.last_output_at == pytest.approx(time.time(), abs=30)
    assert sample.age_sec < 30


async def until_sampled(run: Run) -> None:
    with anyio.fail_after(30):
        while run.sample().cpu_sec <= 0.1:
            await anyio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_flood_stays_under_its_cap_while_it_runs_and_afterwards(tmp_path: Path) -> None:
    limits = RunLimits(output_bytes=8 << 20, kill_grace_sec=0.3)
    script = "echo begin; head -c 600M /dev/zero | tr '\\0' 'x'; echo; echo the answer"
    peak = 0
    async with Host() as host:
        spec = make_spec(tmp_path, "bash", "-c", script, limits=limits)
        run = await host.start(spec)
        while run.outcome is None:
            peak = max(peak, os.stat(f"{spec.directory}/stdout.log").st_blocks * 512)
            await anyio.sleep(0.005)
        outcome = await run.wait()
    assert outcome.ok
    assert outcome.output_bytes > 600 << 20
    # between two looks a fast writer gets ahead; without the cap it is 600 MiB
    assert peak < 200 << 20
    final = Path(spec.directory, "stdout.log").read_bytes()
    assert len(final) <= 8 << 20
    assert final.startswith(b"begin\n")
    assert final.endswith(b"\nthe answer\n")


@pytest.mark.anyio
async def test_a_supervisor_that_stood_still_does_not_end_a_healthy_run(tmp_path: Path) -> None:
    """The keeper's look after a long gap takes the gap off the run's age (here by its own clock's
    arithmetic)."""
    async with Host() as host:
        run = await host.start(
            make_spec(tmp_path, "sleep", "60", limits=RunLimits(wall_sec=50, idle_sec=50))
        )
        await anyio.sleep(0.3)
        host._keeper._looked_at -= 1000  # as if nobody had looked for 1000 s
        run._watched.tracker._started -= 1000  # type: ignore[union-attr]
        run._watched.tracker._active_at -= 1000  # type: ignore[union-attr]
        await anyio.sleep(1.0)
        assert run.outcome is None
        assert (await run.end()).signal == signal.SIGTERM


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_silent_run_wakes_nobody_for_its_output_and_a_late_flood_is_capped(
    tmp_path: Path,
) -> None:
    """The keeper hears of output by the run's pipes; it does not look now and then for some."""
    go = tmp_path / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.1; done; yes | head -c 200M; exec sleep 600"
    limits = RunLimits(output_bytes=8 << 20, kill_grace_sec=0.3)
    async with Host() as host:
        run = await host.start(make_spec(tmp_path, "bash", "-c", script, limits=limits))
        while run.sample().age_sec < 3.5:
            await anyio.sleep(0.1)
        keeper = host._keeper._thread
        assert keeper is not None
        before = _woken(keeper.native_id)
        await anyio.sleep(3.0)
        woken = _woken(keeper.native_id) - before
        assert woken < 9  # it looks at the tree each second
        go.touch()
        with anyio.fail_after(60):
            while run.sample().output_bytes < 200 << 20:
                await anyio.sleep(0.1)
        output = Path(run.spec.directory, "stdout.log")
        assert output.stat().st_blocks * 512 <= limits.output_bytes
        await run.end()


def _woken(thread: int | None) -> int:
    """How often a thread of ours has slept."""
    text = Path(f"/proc/self/task/{thread}/status").read_text()
    return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
