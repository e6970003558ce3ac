"""One supervisor for a workspace, whatever is deleted, linked or configured; and a dead one never
blocks."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codex_self_iter.errors import UsageError, WorkspaceBusyError
from codex_self_iter.world.state import lock as module
from codex_self_iter.world.state.lock import SupervisorLock, probe
from codex_self_iter.world.state.root import StateRoot

HOLD = """
import sys
from codex_self_iter.world.state.root import StateRoot
from codex_self_iter.world.state.lock import SupervisorLock
lock = SupervisorLock(StateRoot(sys.argv[1]), sys.argv[2])
lock.acquire()
print("held", flush=True)
if len(sys.argv) > 3:
    import subprocess
    child = subprocess.Popen(["sleep", "60"], start_new_session=True, close_fds=False, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def state(workspace: Path) -> str:
    return str(workspace / ".state")


@pytest.fixture
def make():
    """Make a lock over a state directory; everything is closed at the end."""
    made: list[tuple[SupervisorLock, StateRoot]] = []

    def make_it(state: str, workspace: Path | str) -> SupervisorLock:
        root = StateRoot(state)
        made.append((SupervisorLock(root, str(workspace)), root))
        return made[-1][0]

    yield make_it
    for lock, root in made:
        lock.release()
        root.close()


@pytest.fixture
def holder(state: str, workspace: Path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, state, str(workspace)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def refused(lock: SupervisorLock) -> str:
    with pytest.raises(WorkspaceBusyError) as caught:
        lock.acquire()
    assert not lock.held
    return str(caught.value)


def test_the_second_one_is_told_who_has_it(make, holder, state: str, workspace: Path) -> None:
    message = refused(make(state, workspace))
    assert f"process {holder.pid} since 20" in message
    assert f"codex-self-iter status --workspace {workspace}" in message


def test_another_state_directory_or_path_opens_no_door(
    make, holder, workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(workspace)
    for path in (workspace, tmp_path / "link", f"{workspace}/../work"):
        message = refused(make(str(tmp_path / "elsewhere"), path))
        assert f"process {holder.pid}" in message


def test_who_has_the_state_directory_for_another_workspace_is_named(
    make, holder, state: str, workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    message = refused(make(state, tmp_path / "other"))
    assert f"state directory {state} is in use for the workspace {workspace}: process" in message
    assert f"Give {tmp_path}/other its own (state_dir)" in message


def test_deleting_the_files_opens_no_door(make, holder, state: str, workspace: Path) -> None:
    shutil.rmtree(state)
    assert f"process {holder.pid}" in refused(make(state, workspace))


def test_without_the_lock_on_the_directory_deleting_the_file_would_open_one(state: str) -> None:
    """The negative control: a lock file alone does not survive its deletion."""
    root = StateRoot(state)
    first = root.open_file("loop.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.unlink(f"{state}/loop.lock")
    second = root.open_file("loop.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(first)
    os.close(second)
    root.close()


def test_a_killed_one_never_blocks(make, holder, state: str, workspace: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads(Path(state, "loop.lock").read_bytes())["pid"] == holder.pid, (
        "the file is stale"
    )
    assert probe(state) is None
    make(state, workspace).acquire()
    assert json.loads(Path(state, "loop.lock").read_bytes())["pid"] == os.getpid()


def test_no_child_inherits_it(make, state: str, workspace: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, state, str(workspace), "child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.communicate()
        os.kill(child, 0)
        make(state, workspace).acquire()
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_same_process_may_not_have_it_twice(make, state: str, workspace: Path) -> None:
    first, second = make(state, workspace), make(state, workspace)
    first.acquire()
    refused(second)
    first.release()
    second.acquire()
    assert second.still_ours()


def test_a_look_at_the_lock_never_turns_a_starting_supervisor_away(
    make, state: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SEC", 30.0)  # on a busy machine a look takes longer
    StateRoot(state).close()
    Path(state, "loop.lock").touch()
    script = (
        "import fcntl,os,sys,time\n"
        "fds=[os.open(p,os.O_RDONLY) for p in sys.argv[1:]]\n"
        "[fcntl.flock(fd,fcntl.LOCK_SH) for fd in fds]\nprint('shared',flush=True)\ntime.sleep(0.2)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, f"{state}/loop.lock", str(workspace)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "shared\n"
    make(state, workspace).acquire()
    process.communicate()


def test_probe_says_who_and_nobody(
    make, holder, state: str, workspace: Path, tmp_path: Path
) -> None:
    found = probe(state)
    assert found is not None
    assert found.pid == holder.pid
    assert found.boot_id == module.boot_id() != ""
    assert found.since.startswith("20")
    os.unlink(f"{state}/loop.lock")
    assert probe(state) is None
    found = probe(state, workspace=str(workspace))
    assert found is not None
    assert found.pid == holder.pid
    assert probe(str(tmp_path / "nowhere")) is None
    holder.kill()
    holder.wait()
    assert probe(state, workspace=str(workspace)) is None


def test_the_kernel_names_the_holder_when_the_file_says_nothing(holder, state: str) -> None:
    os.truncate(f"{state}/loop.lock", 0)
    found = probe(state)
    assert found is not None
    assert found.pid == holder.pid


@pytest.mark.parametrize("how", ["deleted", "replaced", "directory"])
def test_it_is_locked_again_after_a_deletion(make, state: str, workspace: Path, how: str) -> None:
    lock = make(state, workspace)
    lock.acquire()
    assert lock.still_ours()
    assert lock.heal() == []
    os.unlink(f"{state}/loop.lock")
    if how == "replaced":
        Path(state, "loop.lock").write_text("something else")
    if how == "directory":
        os.mkdir(f"{state}/loop.lock")
    assert not lock.still_ours()
    assert lock.heal() == ["loop.lock"]
    assert lock.still_ours()
    found = probe(state)
    assert found is not None
    assert found.pid == os.getpid()


def test_a_workspace_made_anew_is_locked_again(make, tmp_path: Path, workspace: Path) -> None:
    lock = make(str(tmp_path / "state"), workspace)
    lock.acquire()
    workspace.rename(tmp_path / "moved")
    assert lock.still_ours()
    workspace.mkdir()
    assert not lock.still_ours()
    assert len(lock.heal()) == 1
    refused(make(str(tmp_path / "other"), workspace))


@pytest.mark.parametrize("how", ["text", "symlink", "hard link", "directory"])
def test_a_foreign_lock_file_is_set_aside_not_written_to(
    make, state: str, workspace: Path, tmp_path: Path, how: str
) -> None:
    StateRoot(state).close()
    outside = tmp_path / "outside"
    outside.write_text("precious")
    path = Path(state, "loop.lock")
    {
        "text": lambda: path.write_text("precious"),
        "symlink": lambda: path.symlink_to(outside),
        "hard link": lambda: os.link(outside, path),
        "directory": path.mkdir,
    }[how]()
    make(state, workspace).acquire()
    assert outside.read_text() == "precious"
    assert len(os.listdir(f"{state}/quarantine")) == 1


def test_a_file_system_that_cannot_lock_directories_is_a_warning(
    make, state: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a file system cannot be had in a test; the call that it fails in is replaced."""
    real = fcntl.flock

    def flock(fd: int, how: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(37, "No locks available")
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = make(state, workspace)
    lock.acquire()
    assert len(lock.warnings) == 1
    assert lock.still_ours()
    refused(make(state, workspace))


def test_a_workspace_that_is_none_is_a_usage_error(make, state: str, workspace: Path) -> None:
    with pytest.raises(UsageError, match="is not a directory"):
        make(state, workspace / "missing").acquire()


def test_many_start_at_once_and_one_wins(state: str, workspace: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, state, str(workspace)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(6)
    ]
    try:
        deadline = time.monotonic() + 30
        while sum(one.poll() is None for one in racers) > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        alive = [one for one in racers if one.poll() is None]
        assert len(alive) == 1
        assert alive[0].stdout is not None
        assert alive[0].stdout.readline() == "held\n"
    finally:
        for one in racers:
            one.kill()
            one.communicate()
