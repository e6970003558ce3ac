"""Changes are noticed: fast by events, surely by looking, and also where events are blind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from codex_self_iter.world.watch import Watcher, look


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work/.state/inbox").mkdir(parents=True)
    (tmp_path / "work/plan.md").write_text("- [ ] one\n")
    return tmp_path / "work"


def paths(work: Path) -> dict[str, str]:
    return {
        "plan": str(work / "plan.md"),
        "task": str(work / "TASK.md"),
        "global_stop": str(work / ".codex-stop"),
        "stop": str(work / ".state/STOP"),
        "pause": str(work / ".state/PAUSE"),
        "inbox": str(work / ".state/inbox"),
    }


async def until(true: Callable[[], bool], within: float = 20.0) -> None:
    """Wait for something that has no event of its own."""
    with anyio.fail_after(within):
        while not true():
            await anyio.sleep(0.01)


class Heard:
    """What was called back, and a way to wait for it."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def __call__(self, kind: str) -> None:
        self.kinds.append(kind)

    async def expect(self, kind: str, within: float = 20.0) -> float:
        """Wait for a kind; forget everything so far; return how long it took."""
        started = time.monotonic()
        await until(lambda: kind in self.kinds, within)
        self.kinds.clear()
        return time.monotonic() - started


@contextlib.asynccontextmanager
async def watching(watcher: Watcher) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run)
        if not watcher._force_polling:
            await until(lambda: watcher.hint_alive)
            await anyio.sleep(0.2)  # inotify itself says nothing when it is ready
        yield
        tasks.cancel_scope.cancel()


def atomic_save(path: Path, text: str) -> None:
    other = path.with_name(".saving")
    other.write_text(text)
    other.rename(path)


@pytest.mark.parametrize("polling", [True, False], ids=["polling", "events"])
@pytest.mark.anyio
async def test_every_way_to_change_a_file_is_noticed(
    work: Path, tmp_path: Path, polling: bool
) -> None:
    watcher, heard = Watcher(interval_sec=0.2, force_polling=polling), Heard()
    watcher.subscribe(paths(work), heard)
    plan = work / "plan.md"
    target = tmp_path / "elsewhere.md"
    target.write_text("far away\n")

    def link() -> None:
        plan.unlink()
        plan.symlink_to(target)

    steps: list[tuple[str, Callable[[], object]]] = [
        ("plan", lambda: plan.write_text("in place\n")),
        ("plan", lambda: atomic_save(plan, "by rename\n")),
        ("plan", lambda: atomic_save(plan, "by rename, again\n")),
        ("plan", plan.unlink),
        ("plan", lambda: plan.write_text("back\n")),
        ("plan", link),
        ("plan", lambda: target.write_text("edited through its target\n")),
        ("task", lambda: (work / "TASK.md").write_text("new")),
        ("stop", (work / ".state/STOP").touch),
        ("stop", (work / ".state/STOP").unlink),
        ("pause", (work / ".state/PAUSE").mkdir),
        ("global_stop", lambda: (work / ".codex-stop").symlink_to("nowhere")),
        ("inbox", (work / ".state/inbox/a.md").touch),
        ("inbox", lambda: (work / ".state/inbox/a.md").write_text("written later")),
    ]
    async with watching(watcher):
        for kind, step in steps:
            step()
            await heard.expect(kind)


@pytest.mark.anyio
async def test_nothing_happens_when_nothing_that_matters_changes(work: Path) -> None:
    watcher, heard = Watcher(interval_sec=0.05), Heard()
    watcher.subscribe(paths(work), heard)
    async with watching(watcher):
        for number in range(50):
            (work / f"other-{number}").touch()
            (work / ".state/status.json").write_text(str(number))
            (work / ".state/inbox/.hidden").write_text(str(number))
            (work / "plan.md").read_text()
            await anyio.sleep(0.01)
        await anyio.sleep(0.3)
    assert heard.kinds == []


@pytest.mark.anyio
async def test_events_are_faster_than_looking(work: Path) -> None:
    """The hint works: with an hour between two looks only events can have told."""
    watcher, heard = Watcher(interval_sec=3600), Heard()
    watcher.subscribe(paths(work), heard)
    async with watching(watcher):
        (work / ".state/STOP").touch()
        assert await heard.expect("stop") < 10


@pytest.mark.anyio
async def test_looking_alone_is_enough(work: Path) -> None:
    """The negative control of the one above: without events an hour is an hour."""
    watcher, heard = Watcher(interval_sec=3600, force_polling=True), Heard()
    watcher.subscribe(paths(work), heard)
    async with watching(watcher):
        (work / ".state/STOP").touch()
        await anyio.sleep(0.5)
        assert heard.kinds == []


@pytest.mark.anyio
async def test_churn_in_the_directory_does_not_delay_a_stop(work: Path) -> None:
    watcher, heard = Watcher(), Heard()
    watcher.subscribe(paths(work), heard)
    done = threading.Event()

    def churn() -> None:
        number = 0
        while not done.wait(0.001):
            number += 1
            path = work / f"churn-{number % 50}"
            path.touch()
            path.unlink()

    thread = threading.Thread(target=churn)
    took = list[float]()
    async with watching(watcher):
        thread.start()
        try:
            for _ in range(3):
                (work / ".state/STOP").touch()
                took.append(await heard.expect("stop"))
                (work / ".state/STOP").unlink()
                took.append(await heard.expect("stop"))
        finally:
            done.set()
            thread.join()
    assert min(took) < 1.5  # a delay that churn causes is in all of them, a busy machine's is not


@pytest.mark.parametrize("how", ["deleted", "moved"])
@pytest.mark.anyio
async def test_a_directory_made_anew_is_heard_again(work: Path, tmp_path: Path, how: str) -> None:
    watcher, heard = Watcher(interval_sec=0.1), Heard()
    watcher.subscribe(paths(work), heard)
    state = work / ".state"
    async with watching(watcher):
        shutil.rmtree(state) if how == "deleted" else state.rename(tmp_path / "moved")
        await anyio.sleep(0.3)
        (state / "inbox").mkdir(parents=True)
        await until(lambda: watcher.hint_alive and not watcher._moved())
        watcher._interval_sec = 3600  # from here on only events can tell
        await anyio.sleep(0.5)
        heard.kinds.clear()
        (state / "STOP").touch()
        assert await heard.expect("stop") < 10


@pytest.mark.anyio
async def test_the_first_directories_are_heard_before_anything_else_happens(work: Path) -> None:
    watcher = Watcher(interval_sec=0.3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        watcher.subscribe(paths(work), Heard())
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        assert watcher.hint_alive
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_directory_that_does_not_exist_yet_is_no_error(tmp_path: Path) -> None:
    watcher, heard = Watcher(interval_sec=0.05), Heard()
    watcher.subscribe(paths(tmp_path / "later"), heard)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run)
        await anyio.sleep(0.2)
        (tmp_path / "later").mkdir()
        (tmp_path / "later/plan.md").write_text("x")
        await heard.expect("plan")
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_one_watcher_serves_many_loops_and_each_hears_its_own(tmp_path: Path) -> None:
    before = _inotifies()
    watcher = Watcher(interval_sec=3600)
    loops = []
    for number in range(40):
        work = tmp_path / f"work-{number}"
        (work / ".state/inbox").mkdir(parents=True)
        loops.append((work, Heard()))
        watcher.subscribe(paths(work), loops[-1][1])
    async with watching(watcher):
        for work, heard in loops[::8]:
            (work / ".state/STOP").touch()
            await heard.expect("stop")
        assert all(heard.kinds == [] for _, heard in loops)
        assert len(_inotifies() - before) == 1


def _inotifies() -> set[str]:
    return set(filter(_is_inotify, os.listdir("/proc/self/fd")))


def _is_inotify(fd: str) -> bool:
    try:
        return "inotify" in os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return False


@pytest.mark.anyio
async def test_a_closed_subscription_is_silent(work: Path) -> None:
    watcher, heard = Watcher(interval_sec=0.05), Heard()
    subscription = watcher.subscribe(paths(work), heard)
    async with watching(watcher):
        subscription.close()
        subscription.close()
        (work / ".state/STOP").touch()
        await anyio.sleep(0.4)
    assert heard.kinds == []


@pytest.mark.anyio
async def test_a_subscription_made_while_it_runs_is_heard(work: Path, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    watcher, heard = Watcher(interval_sec=0.2), Heard()
    watcher.subscribe({"plan": str(tmp_path / "first/plan.md")}, Heard())
    async with watching(watcher):
        watcher.subscribe(paths(work), heard)
        (work / ".state/STOP").touch()
        await heard.expect("stop")


LEFT = """
import os, sys, threading, time, anyio
from codex_self_iter.world.watch import Watcher

def held():
    there = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
             if os.path.lexists(f"/proc/self/fd/{fd}")}
    threads = [one.name for one in threading.enumerate() if "anyio" not in one.name.lower()]
    return any("inotify" in one for one in there), threads

async def main():
    watcher = Watcher(interval_sec=0.05)
    watcher.subscribe({"stop": sys.argv[1] + "/STOP"}, print)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run)
        while not held()[0]:
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()

anyio.run(main)
for _ in range(500):  # the native watcher's own thread closes its descriptor when it is told
    if held() == (False, ["MainThread"]):
        break
    time.sleep(0.01)
else:
    raise AssertionError(held())
"""


def test_nothing_is_left_behind(work: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", LEFT, str(work)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=60,
    )


NO_EVENTS = """
import sys, anyio
from pathlib import Path
from codex_self_iter.world.watch import Watcher

async def main():
    said, heard = [], []
    watcher = Watcher(interval_sec=0.1, warn=said.append)
    watcher.subscribe({"stop": sys.argv[1] + "/STOP"}, heard.append)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run)
        await anyio.sleep(0.5)
        Path(sys.argv[1], "STOP").touch()
        with anyio.fail_after(20):
            while not heard:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    print(len(said), said)

anyio.run(main)
"""


@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0, reason="NOT TESTED HERE: taking inotify away needs root and unshare"
)
def test_without_inotify_it_says_so_once_and_looks(work: Path) -> None:
    command = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$0" -c "$1" "$2"'
    done = subprocess.run(
        ["unshare", "-U", "-r", "sh", "-c", command, sys.executable, NO_EVENTS, str(work)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 ["), done.stdout
    assert "watching by events failed" in done.stdout


@pytest.mark.anyio
async def test_a_name_that_is_no_utf8_deafens_nobody(work: Path) -> None:
    """watchfiles gives up at an event of such a name; what else changed then is not lost."""
    heard, said = Heard(), list[str]()
    watcher = Watcher(interval_sec=60.0, warn=said.append)
    watcher.subscribe(paths(work), heard)
    async with watching(watcher):
        for number in range(3):
            Path(os.fsdecode(bytes(work) + b"/caf\xe9-%d" % number)).touch()
            (work / ".state/STOP").write_text("x" * number)
            await heard.expect("stop")
            await until(lambda: watcher.hint_alive)
            await anyio.sleep(0.2)
        (work / ".codex-stop").touch()
        await heard.expect("global_stop")
    assert said == []


@pytest.mark.anyio
async def test_an_idle_watcher_costs_little(work: Path) -> None:
    watcher = Watcher()
    watcher.subscribe(paths(work), Heard())
    async with watching(watcher):
        await anyio.sleep(1.0)
        started = time.process_time()
        await anyio.sleep(3.0)
        spent = (time.process_time() - started) / 3.0
    assert spent < 0.02, f"{spent * 1000:.2f} ms of CPU a second"


def test_a_look_tells_files_apart(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert look(str(path)) == ()
    path.write_text("a")
    first = look(str(path))
    assert first == look(str(path)) != ()
    atomic_save(path, "a")
    assert look(str(path)) != first
    assert look(f"{path}/below") == ()
