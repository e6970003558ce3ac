"""A disk that fills up, becomes read-only or small, under the real program.

Each test has the state directory on a small tmpfs in a mount namespace of its own, which ends with
the test."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import PATIENCE, Workspace, wait_until


def _can_unshare() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    return (
        subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    )


pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.skipif(
        not _can_unshare(), reason="NOT TESTED HERE: full disks need root and unshare"
    ),
]
DONE = {"block": {"completed": True}}
SHORT = {"sleep": 0.2, "append": {"work.txt": "x\n"}, "number": True}


class SmallDisk(Workspace):
    """A workspace whose state directory lies on a tmpfs of its own."""

    def __init__(self, root: Path, size: str = "2m") -> None:
        super().__init__(root)
        self.real_state = self.state
        self.real_state.mkdir(mode=0o700)
        mount = (
            f'mount -t tmpfs -o size={size},mode=700 tmpfs "$1" && echo mounted && exec sleep 600'
        )
        self.holder = subprocess.Popen(
            ["unshare", "-m", "/bin/sh", "-c", mount, "sh", str(self.real_state)],
            stdout=subprocess.PIPE,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"mounted\n"
        self.state = Path(f"/proc/{self.holder.pid}/root{self.real_state}")
        self.inside = ["nsenter", "-t", str(self.holder.pid), "-m"]
        self.config()
        self.script(SHORT)

    def config(self, tables: str = "", **keys: object) -> None:
        super().config(tables, **{"min_free_disk_mb": 0, "max_stagnation": 0, **keys})

    def begin(self, *flags: str) -> subprocess.Popen[bytes]:
        return self.start(*flags, prefix=self.inside)

    def remount(self, how: str) -> None:
        subprocess.run(
            [*self.inside, "mount", "-o", f"remount,{how}", str(self.real_state)], check=True
        )

    def fill(self, leave: int = 0) -> None:
        """Take all the room, but for so many bytes."""
        with (self.state / "ballast.tmp").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"b" * 4096)
            except OSError:
                pass
            if leave:
                file.truncate(max(0, file.tell() - leave))

    def drain(self) -> None:
        (self.state / "ballast.tmp").unlink()

    def quiet(self) -> int:
        """Wait until no agent runs start any more; returns how many there were."""
        count, since = self.started(), time.monotonic()
        while time.monotonic() - since < 3.0:
            if self.started() != count:
                count, since = self.started(), time.monotonic()
            time.sleep(0.05)
        return count

    def numbers(self) -> list[int]:
        return [line["iteration"] for line in self.journal()]

    def close(self) -> None:
        super().close()
        self.holder.kill()
        self.holder.wait()
        assert self.holder.stdout is not None
        self.holder.stdout.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    made = SmallDisk(tmp_path)
    yield made
    made.close()


def goes_on(disk: SmallDisk, process: subprocess.Popen[bytes], before: int) -> None:
    """The loop works again by itself; stopped, it leaves a whole journal."""
    wait_until(lambda: disk.started() >= before + 2, f"more runs; log:\n{disk.log()[-3000:]}", 90)
    process.send_signal(signal.SIGTERM)
    assert disk.ended(process) == 0, disk.log()[-3000:]
    numbers = disk.numbers()
    assert numbers == list(range(1, len(numbers) + 1))
    lines = disk.journal()
    for before_line, line in itertools.pairwise(lines):
        assert line["goal_in"] == before_line["next_goal"]
    assert "Traceback" not in disk.log()
    assert not (disk.control / "overlaps.log").exists()


@pytest.mark.parametrize(
    "leave",
    [0, *(pytest.param(room, marks=pytest.mark.slow) for room in (8192, 40960))],
    ids=lambda room: f"{room} bytes left",
)
def test_a_full_disk_stops_the_work_but_not_the_supervisor(disk: SmallDisk, leave: int) -> None:
    process = disk.begin()
    disk.wait_runs(2)
    for _ in range(4):  # what the loop itself deletes and writes meanwhile
        disk.fill(leave)
        time.sleep(0.3)
    disk.fill()
    count = disk.quiet()
    assert process.poll() is None, disk.log()[-3000:]
    assert "the disk is full" in disk.log()
    disk.drain()
    goes_on(disk, process, count)


def test_what_was_noted_on_a_full_disk_is_kept_when_there_is_room(disk: SmallDisk) -> None:
    gate = f"until test -e '{disk.control}/go'; do sleep 0.05; done"
    disk.config(f"[verify]\nevery_iteration = true\ncommands = [{json.dumps(gate)}]\n")
    disk.script({**SHORT, "block": {"notes": ["redis must run"]}}, SHORT)
    process = disk.begin()
    wait_until(lambda: disk.status().get("state") == "verifying", "the gate")
    disk.fill()
    (disk.control / "go").touch()
    wait_until(lambda: "state.cannot_write" in disk.log(), "the full disk")
    assert not (disk.state / "notes.md").exists()
    disk.drain()
    goes_on(disk, process, 1)
    assert "- redis must run\n" in (disk.state / "notes.md").read_text()
    assert "redis must run" in disk.prompt(2)


@pytest.mark.parametrize(
    "in_run", [pytest.param(True, marks=pytest.mark.slow), False], ids=["in a run", "between runs"]
)
def test_a_stop_works_on_a_full_disk(disk: SmallDisk, in_run: bool) -> None:
    disk.script(SHORT, {**SHORT, "sleep": 60, "until": "go"})
    process = disk.begin()
    disk.wait_runs(2)
    disk.fill()
    if not in_run:
        (disk.control / "go").touch()
        disk.quiet()
    (disk.path / ".codex-stop").touch()
    assert disk.ended(process, 40) in (0, 4)
    assert "Traceback" not in disk.log()
    assert disk.log().count("state.cannot_write") < 20  # said, not spun
    (disk.path / ".codex-stop").unlink()
    disk.drain()
    (disk.control / "go").touch()
    count = disk.started()
    goes_on(disk, disk.begin(), count)


def test_a_file_system_that_becomes_read_only_is_waited_out(disk: SmallDisk) -> None:
    disk.script(SHORT, {**SHORT, "sleep": 60, "until": "go"}, SHORT)
    process = disk.begin()
    disk.wait_runs(2)
    # A remount is refused while files are open for writing; a bind mount on top of it is not.
    real = str(disk.real_state)
    subprocess.run([*disk.inside, "mount", "--bind", real, real], check=True)
    subprocess.run([*disk.inside, "mount", "-o", "remount,bind,ro", real], check=True)
    (disk.control / "go").touch()
    count = disk.quiet()
    assert process.poll() is None, disk.log()[-3000:]
    assert count == 2
    assert "read-only" in disk.log()
    subprocess.run([*disk.inside, "umount", real], check=True)
    goes_on(disk, process, count)


def test_below_the_floor_no_run_starts_and_status_says_why(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path, "16m")
    try:
        disk.config(min_free_disk_mb=8)
        process = disk.begin()
        disk.wait_runs(2)
        disk.fill(2 * 2**20)
        disk.wait_state("blocked")
        assert "min_free_disk_mb" in disk.status()["reason"]
        count = disk.quiet()
        assert disk.status()["disk"]["free_mb"] < 8
        disk.drain()
        goes_on(disk, process, count)
    finally:
        disk.close()


@pytest.mark.slow
def test_a_start_below_the_floor_waits_for_room(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path, "16m")
    try:
        disk.config(min_free_disk_mb=8)
        disk.fill(2 * 2**20)
        process = disk.begin()
        disk.wait_state("blocked")
        assert disk.quiet() == 0
        disk.drain()
        goes_on(disk, process, 0)
    finally:
        disk.close()


@pytest.mark.parametrize(
    "size", ["256m", "24m"], ids=["room for the flood", "a flood that fills the disk"]
)
def test_an_agent_that_floods_its_output_is_capped(tmp_path: Path, size: str) -> None:
    disk = SmallDisk(tmp_path, size)
    try:
        disk.config("[output]\nmax_run_mb = 4")
        flood = {"flood_mb": 200, "block": {"next_goal": "dry", "summary": "after the flood"}}
        disk.script(flood, DONE)
        assert disk.ended(disk.begin(), PATIENCE) == 0, disk.log()[-3000:]
        lines = disk.journal()
        assert [line["iteration"] for line in lines] == [1, 2]
        assert lines[0]["summary"] == "after the flood"
        assert lines[1]["verdict"] == "completed"
        used = sum(path.stat().st_blocks * 512 for path in disk.state.rglob("*") if path.is_file())
        assert used < 8 * 2**20
    finally:
        disk.close()
