"""Process tables, identities, and telling our children from orphans that we adopted."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from codex_self_iter.world.process import bare, kill, proctable
from tests.support.hosting import eventually

OWN_GROUP: Any = {"stdout": subprocess.PIPE, "start_new_session": True}


def test_the_fast_pass_agrees_with_psutil() -> None:
    name = "a (b) c) d"
    script = (
        f"import ctypes, time; ctypes.CDLL(None).prctl(15, b'{name}'); print(flush=True); "
        f"time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            fast, slow = proctable._scan_proc()[child.pid], proctable._scan_psutil()[child.pid]
        finally:
            child.kill()
    assert (fast.name, fast.parent, fast.session) == (name, os.getpid(), os.getsid(0))
    assert (slow.pid, slow.parent, slow.session, slow.living) == (
        fast.pid,
        fast.parent,
        fast.session,
        True,
    )


def test_a_walk_finds_the_tree_and_nothing_else() -> None:
    with subprocess.Popen(
        ["bash", "-c", "sleep 60 & (sleep 60 & wait) & echo; wait"], **OWN_GROUP
    ) as shell:
        try:
            assert shell.stdout is not None
            shell.stdout.readline()
            assert eventually(lambda: len(proctable.walk({shell.pid})) == 4)
            table = proctable.scan()
            expected = {shell.pid} | proctable.descendants(proctable.offspring(table), {shell.pid})
            assert proctable.walk({shell.pid}).keys() == expected
        finally:
            os.killpg(shell.pid, signal.SIGKILL)


def test_descendants_are_transitive_and_exclude_their_roots() -> None:
    def proc(pid: int, parent: int) -> proctable.Proc:
        return proctable.Proc(pid, "x", "S", parent, 1, 1)

    table = {pid: proc(pid, parent) for pid, parent in [(2, 1), (3, 2), (4, 3), (5, 1), (6, 5)]}
    by_parent = proctable.offspring(table)
    assert proctable.descendants(by_parent, {2}) == {3, 4}
    assert proctable.descendants(by_parent, {2, 5}) == {3, 4, 6}
    assert proctable.descendants(by_parent, {99}) == set()


def test_the_marker_must_match_exactly() -> None:
    mark = f"run-{secrets.token_hex(4)}-1"
    env = os.environ | {proctable.MARKER: mark}
    with subprocess.Popen(["sleep", "60"], env=env) as child:
        try:
            assert eventually(lambda: proctable.marked(proctable.scan(), mark) == {child.pid})
            assert proctable.marked(proctable.scan(), mark[:-1]) == set()
            assert proctable.marked(proctable.scan(), mark + "1") == set()
        finally:
            child.kill()


def test_a_kill_needs_the_right_start_time() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        start = proctable.start_ticks(child.pid)
        assert not kill.kill(child.pid, start + 1)
        assert child.poll() is None
        assert kill.kill(child.pid, start)
        assert child.wait(10) == -signal.SIGKILL
        assert not kill.kill(child.pid, start)
    assert not kill.kill(1, proctable.start_ticks(1))
    assert not kill.kill(os.getpid(), proctable.start_ticks(os.getpid()))


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["true"])
    start = proctable.start_ticks(child.pid)
    try:
        assert eventually(lambda: proctable.scan()[child.pid].state == "Z")
        assert not proctable.alive(proctable.scan(), child.pid, start)
    finally:
        child.wait()


def test_run_lock_heirs_are_those_that_hold_the_lock_not_those_that_open_the_file(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "run.lock")
    holder = subprocess.Popen(["flock", path, "sleep", "60"], start_new_session=True)
    with open(path, "a+") as file:
        reader = subprocess.Popen(["sleep", "60"], stdin=file)
    try:
        assert eventually(lambda: holder.pid in proctable.lock_heirs(proctable.scan(), path))
        assert reader.pid not in proctable.lock_heirs(proctable.scan(), path)
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        reader.kill()
        holder.wait()
        reader.wait()


def test_a_moving_target_is_ended(tmp_path: Path) -> None:
    """A process that forks a successor in a new session every few milliseconds and ends."""
    trail = tmp_path / "trail"
    script = f"""
import os, sys, time
until = time.monotonic() + 20
while time.monotonic() < until:
    if os.fork():
        os._exit(0)
    os.setsid()
    open({str(trail)!r}, "a").write("x")
    time.sleep(0.003)
"""
    before = bare.child_subreaper(True)
    try:
        with subprocess.Popen([sys.executable, "-S", "-c", script], start_new_session=True):
            pass
        assert eventually(lambda: trail.exists() and trail.stat().st_size > 10)
        ended, left = kill.exterminate(lambda table: (), adopted=True)
        assert left == ()
        assert ended
        size = trail.stat().st_size
        time.sleep(0.2)
        assert trail.stat().st_size == size
    finally:
        bare.child_subreaper(bool(before))


def test_only_adopted_orphans_are_strangers_and_only_they_are_reaped() -> None:
    before = bare.child_subreaper(True)
    own = subprocess.Popen(["true"])  # shares our session
    try:
        with kill.children.spawning() as register:
            registered = subprocess.Popen(["true"], start_new_session=True)
            register(registered.pid)
        maker = subprocess.run(
            ["sh", "-c", "setsid sleep 0.3 >/dev/null & echo $!"],
            stdout=subprocess.PIPE,
            check=True,
        )
        orphan = int(maker.stdout)
        assert eventually(lambda: all(is_zombie(pid) for pid in (own.pid, registered.pid, orphan)))
        strangers = {proc.pid for proc in kill.children.strangers()}  # other tests may leave some
        assert strangers & {own.pid, registered.pid, orphan} == {orphan}
        kill.children.reap_strangers()
        assert is_zombie(orphan)  # an owner would have had the time until the second look
        kill.children.reap_strangers()
        assert not Path(f"/proc/{orphan}").exists()
        assert (own.wait(), registered.wait()) == (0, 0)
        kill.children.forget(registered.pid)
    finally:
        bare.child_subreaper(bool(before))


def is_zombie(pid: int) -> bool:
    proc = proctable.scan().get(pid)
    return proc is not None and not proc.living


def test_shared_memory_is_counted_once() -> None:
    script = """
import os, time
block = bytearray(64 << 20)
for _ in range(3):
    if os.fork() == 0: time.sleep(60)
print(flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            table = proctable.scan()
            pids = {child.pid} | proctable.descendants(proctable.offspring(table), {child.pid})
            rss = sum(psutil.Process(pid).memory_info().rss for pid in pids)
            pss = proctable.pss_bytes(pids)
        finally:
            os.killpg(child.pid, signal.SIGKILL)
    assert len(pids) == 4
    assert pss < rss / 2
    assert pss > 64 << 20


def test_identity_is_by_boot() -> None:
    assert proctable.boot_id() == proctable.boot_id() != ""
    assert (
        abs(
            psutil.Process().create_time()
            - (psutil.boot_time() + proctable.start_ticks(os.getpid()) * proctable.TICK)
        )
        < 5
    )
    assert time.monotonic() > 0
