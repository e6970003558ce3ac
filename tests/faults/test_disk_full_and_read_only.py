"""A full disk, a quota, a read-only directory: the old file stays whole, the message is clear, and
it goes on.

Each test runs its script in a mount namespace of its own (root needed), on a tmpfs of some hundred
KiB."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def _can_unshare() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


needs_root = pytest.mark.skipif(
    not _can_unshare(), reason="NOT TESTED HERE: full disks need root and unshare"
)
pytestmark = [pytest.mark.root, needs_root]

PRELUDE = """
import json, os, subprocess, sys
from codex_self_iter.core.state import LoopState, to_json
from codex_self_iter.errors import StorageError
from codex_self_iter.world.state.redact import Redactor
from codex_self_iter.world.state.store import StateDirectory
work = sys.argv[1]
state = f"{work}/state"

def snapshot(number, size=0):
    return to_json(LoopState("loop", iteration=number, goal="g" * size))

def fails(action, *words):
    try:
        action()
    except StorageError as error:
        assert all(word in str(error) for word in words), str(error)
        return
    raise AssertionError("it did not fail")

def on_disk(name="runtime.json"):
    with open(f"{state}/{name}", "rb") as file:
        return json.loads(file.read())["iteration"]

def numbers():
    return [line["iteration"] for line in store.journal_tail(1000)]

def fill():
    with open(f"{work}/ballast", "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"b" * 4096)
        except OSError:
            pass

def drain():
    os.unlink(f"{work}/ballast")

store = StateDirectory(state, work, redactor=Redactor())
store.acquire_lock()
store.append_journal({"iteration": 1})
store.save_runtime(snapshot(1))
store.append_journal({"iteration": 2})
store.save_runtime(snapshot(2))
store.save_status({"state": "running"})
"""


def in_namespace(tmp_path: Path, script: str, mount: str = "size=256k", wrap: str = "") -> None:
    """Run PRELUDE and the script on a small tmpfs that nobody else sees and that ends with the
    process."""
    code = tmp_path / "script.py"
    code.write_text(PRELUDE + textwrap.dedent(script))
    work = tmp_path / "work"
    work.mkdir()
    command = f'mount -t tmpfs -o {mount},mode=0700 none "$1" && exec {wrap} "$2" "$3" "$1"'
    done = subprocess.run(
        [
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            command,
            "sh",
            work,
            sys.executable,
            code,
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert os.listdir(work) == []


def test_a_full_disk_keeps_what_is_whole_and_goes_on_later(tmp_path: Path) -> None:
    in_namespace(
        tmp_path,
        """
        fill()
        for _ in range(3):
            fails(lambda: store.save_runtime(snapshot(3, 20_000)), "disk is full", "ENOSPC", "runtime.json")
            fails(lambda: store.append_journal({"iteration": 3, "x": "y" * 20_000}), "disk is full", "iterations.jsonl")
            fails(lambda: store.save_status({"x": "y" * 20_000}), "disk is full", "status.json")
            fails(lambda: store.save_prompt(3, "executor", "x" * 20_000), "prompts/000003-executor.md")
            assert on_disk() == 2 and on_disk("runtime.json.1") == 1 and numbers() == [1, 2]
            assert not [name for name in os.listdir(state) if name.endswith(".tmp")], "no space is kept for nothing"
        assert store.heal() == []
        drain()
        store.append_journal({"iteration": 3})
        store.save_runtime(snapshot(3))
        assert on_disk() == 3 and numbers() == [1, 2, 3]
        with open(f"{state}/logs/iterations.jsonl", "rb") as file:
            assert [json.loads(line)["iteration"] for line in file] == [1, 2, 3], "no half line is left"
        """,
    )


def test_a_short_write_is_noticed(tmp_path: Path) -> None:
    """A disk that fills up within a write takes a part and reports no error: the count must be
    checked."""
    in_namespace(
        tmp_path,
        """
        fill()
        os.truncate(f"{work}/ballast", os.stat(f"{work}/ballast").st_size - 12_288)
        fd = os.open(f"{work}/control", os.O_WRONLY | os.O_CREAT)
        assert 0 < os.write(fd, b"x" * 50_000) < 50_000, "the negative control: a plain write stops half way in silence"
        os.close(fd)
        os.unlink(f"{work}/control")
        fails(lambda: store.append_journal({"iteration": 3, "x": "y" * 50_000}), "ENOSPC")
        fails(lambda: store.save_runtime(snapshot(3, 50_000)), "ENOSPC")
        assert on_disk() == 2 and numbers() == [1, 2]
        store.append_journal({"iteration": 3})
        assert numbers() == [1, 2, 3]
        """,
    )


def test_a_half_line_that_cannot_be_taken_back_is_never_believed(tmp_path: Path) -> None:
    in_namespace(
        tmp_path,
        """
        fill()
        real, os.ftruncate = os.ftruncate, None  # the taking back fails
        def broken(fd, size):
            raise OSError(5, "Input/output error")
        os.ftruncate = broken
        os.truncate(f"{work}/ballast", os.stat(f"{work}/ballast").st_size - 4096)
        fails(lambda: store.append_journal({"iteration": 3, "x": "y" * 50_000}), "ENOSPC")
        os.ftruncate = real
        with open(f"{state}/logs/iterations.jsonl", "rb") as file:
            assert not file.read().endswith(b"\\n"), "a half line is there"
        assert numbers() == [1, 2]
        drain()
        store.append_journal({"iteration": 3})
        assert numbers() == [1, 2, 3]
        """,
    )


def test_no_inode_is_a_full_disk_too(tmp_path: Path) -> None:
    in_namespace(
        tmp_path,
        """
        made = 0
        try:
            while True:
                open(f"{work}/f{made}", "w").close()
                made += 1
        except OSError:
            pass
        fails(lambda: store.save_runtime(snapshot(3)), "ENOSPC")
        store.append_journal({"iteration": 3})
        os.unlink(f"{work}/f0")
        store.save_runtime(snapshot(3))
        assert on_disk() == 3
        """,
        mount="size=1m,nr_inodes=60",
    )


def test_a_directory_deleted_while_the_disk_is_full_comes_back_later(tmp_path: Path) -> None:
    in_namespace(
        tmp_path,
        """
        for number in range(3, 40):
            store.append_journal({"iteration": number, "x": "y" * 1000})
        subprocess.run(["rm", "-rf", state], check=True)
        fill()
        for _ in range(3):
            fails(store.heal, "disk is full")
        drain()
        assert "logs/iterations.jsonl" in store.heal() or numbers()
        assert on_disk() == 2 and numbers() == list(range(1, 40))
        assert store.heal() == []
        """,
    )


@pytest.mark.parametrize("what", ["work", "state"])
def test_read_only_is_said_and_survived(tmp_path: Path, what: str) -> None:
    """A bind mount of the state directory hides nothing: the descriptors still lead to the writable
    one. So the whole file system is made read-only, or the directory is opened through the
    read-only mount."""
    in_namespace(
        tmp_path,
        """
        store.journal.close()  # an open file for writing would keep the file system writable
        held = store.lock
        store.lock.release()
        what = WHAT
        target = work if what == "work" else state
        if what == "state":
            subprocess.run(["mount", "--bind", state, state], check=True)
            store.root.reopen()
            subprocess.run(["mount", "-o", "remount,ro,bind", state], check=True)
        else:
            subprocess.run(["mount", "-o", "remount,ro", work], check=True)
        fails(lambda: store.save_runtime(snapshot(3)), "read-only", "EROFS")
        fails(lambda: store.save_status({}), "read-only")
        fails(lambda: store.append_journal({"iteration": 3}), "read-only")
        fails(lambda: store.run_directory(3, "executor"), "read-only")
        fails(lambda: StateDirectory(state, work).acquire_lock(), "read-only")
        assert on_disk() == 2 and numbers() == [1, 2]
        subprocess.run(["mount", "-o", "remount,rw" + (",bind" if what == "state" else ""), target], check=True)
        store.append_journal({"iteration": 3})
        store.save_runtime(snapshot(3))
        assert on_disk() == 3 and numbers() == [1, 2, 3]
        """.replace("WHAT", repr(what)),
    )


def test_lost_permission_is_said_and_survived(tmp_path: Path) -> None:
    """Without the capabilities by which permissions do not bind root."""
    in_namespace(
        tmp_path,
        """
        os.chmod(state, 0o500)
        fails(lambda: store.save_runtime(snapshot(3)), "permission denied", "runtime.json")
        fails(lambda: store.save_status({}), "permission denied")
        store.append_journal({"iteration": 3})  # the open journal needs none
        os.chmod(state, 0o000)  # STOP could not be seen in it: taken back by the open descriptor
        store.save_runtime(snapshot(3))
        assert on_disk() == 3 and numbers() == [1, 2, 3]
        assert [name for name in store.heal() if "rights" in name]
        assert store.heal() == []
        """,
        wrap="setpriv --bounding-set=-dac_override,-dac_read_search",
    )


def test_a_size_limit_of_the_process_is_a_storage_error(tmp_path: Path) -> None:
    in_namespace(
        tmp_path,
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))  # Python ignores SIGXFSZ
        fails(lambda: store.save_runtime(snapshot(3, 20_000)), "EFBIG")
        fails(lambda: store.append_journal({"iteration": 3, "x": "y" * 20_000}), "EFBIG")
        store.append_journal({"iteration": 3})
        store.save_runtime(snapshot(3))
        assert on_disk() == 3 and numbers() == [1, 2, 3]
        """,
    )


def test_log_lines_that_find_no_space_are_counted_and_told(tmp_path: Path) -> None:
    in_namespace(
        tmp_path,
        """
        import json, sys
        from codex_self_iter.supervisor import logger
        from codex_self_iter.world.console import Console
        from codex_self_iter.world.state.logfile import LogFile
        file = LogFile(store.root, "logs/supervisor.log")
        log = logger.configure(
            level="info", form="json", environ={}, console=Console(sys.stdout), terminal=False
        )
        logger.FILES["a loop"] = file
        log.info("one")
        fill()
        for _ in range(3):
            log.info("x" * 20_000)
        assert file.lost_lines
        drain()
        log.info("three")
        with open(f"{state}/logs/supervisor.log") as text:
            told = [json.loads(line) for line in text]
        events = [line["event"] for line in told]
        assert (events[0], events[-2], events[-1]) == ("one", "log.lines_lost", "three")
        assert sum(line.get("lines", 0) for line in told) == 3
        """,
    )
