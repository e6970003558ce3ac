"""What keeps the supervisor cheap must not make it deaf: the shared poller, heartbeats in place,
open files."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from codex_self_iter.errors import StorageError
from codex_self_iter.supervisor.poller import Poller
from codex_self_iter.world.clock import SystemClock
from codex_self_iter.world.process.descriptors import original_soft_limit, raise_limit
from codex_self_iter.world.process.host import Host
from codex_self_iter.world.state.store import StateDirectory
from tests.support.harness import Workspace
from tests.support.hosting import make_spec, stdout_of
from tests.support.program import PROGRAM

pytestmark = pytest.mark.anyio


class Looked:
    """Stands in for a loop and counts the looks."""

    def __init__(self, patience: float, fault: Exception | None = None) -> None:
        self.looks, self.failed = 0, list[Exception]()
        self.patience, self.fault = patience, fault

    def look(self) -> float:
        self.looks += 1
        if self.fault is not None:
            raise self.fault
        return self.patience

    def fail(self, error: Exception) -> None:
        self.failed.append(error)


async def until(condition: Any) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)


async def test_every_loop_is_looked_at_in_its_own_time_and_a_fault_is_its_own() -> None:
    often, seldom, broken = Looked(0.01), Looked(3600), Looked(0.01, OSError("boom"))
    poller = Poller(SystemClock())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(poller.run)
        with poller.watching(often), poller.watching(seldom) as hint, poller.watching(broken):
            await until(lambda: often.looks > 20)
            assert (seldom.looks, broken.looks) == (1, 1)
            assert [str(error) for error in broken.failed] == ["boom"]
            hint()
            await until(lambda: seldom.looks == 2)
        looks = often.looks
        hint()  # a hint that comes too late
        await anyio.sleep(0.2)
        assert (often.looks, seldom.looks) == (looks, 2)
        tasks.cancel_scope.cancel()


def test_a_heartbeat_is_written_in_place_and_a_change_is_not(tmp_path: Path) -> None:
    store = StateDirectory(str(tmp_path / "state"), str(tmp_path))
    path = tmp_path / "state/status.json"
    first, second, third = (f"2026-01-01T00:00:0{n}.000000+00:00" for n in (1, 2, 3))
    status = {"state": "running", "updated_at": first, "goal": 'say "\n \\"updated_at\\":null"'}
    store.save_status(status)
    file = path.stat().st_ino
    store.save_status(status | {"updated_at": second})
    found = json.loads(path.read_text())
    assert found == {
        "state": "running",
        "updated_at": second,
        "goal": 'say "\n \\"updated_at\\":null"',
    }
    assert path.stat().st_ino == file
    assert store.heal() == []
    store.save_status(found | {"state": "paused", "updated_at": third})
    assert path.stat().st_ino != file
    assert json.loads(path.read_text())["state"] == "paused"
    store.close()


def test_a_heartbeat_tells_of_a_change_that_could_not_be_written(tmp_path: Path) -> None:
    store = StateDirectory(str(tmp_path / "state"), str(tmp_path))
    status = {"state": "running", "updated_at": "2026-01-01T00:00:01.000000+00:00", "n": 1}
    store.save_status(status)
    in_the_way = store.root.replace

    def full(*_args: Any, **_named: Any) -> Any:
        raise StorageError("the disk is full")

    store.root.replace = full  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        store.save_status(status | {"n": 2, "updated_at": "2026-01-01T00:00:02.000000+00:00"})
    store.root.replace = in_the_way  # type: ignore[method-assign]
    store.save_status(status | {"n": 2, "updated_at": "2026-01-01T00:00:03.000000+00:00"})
    assert json.loads((tmp_path / "state/status.json").read_text())["n"] == 2
    store.close()


@pytest.mark.parametrize("meddle", ["delete", "edit", "link"])
def test_a_heartbeat_never_writes_into_what_is_not_ours(tmp_path: Path, meddle: str) -> None:
    store = StateDirectory(str(tmp_path / "state"), str(tmp_path))
    path, other = tmp_path / "state/status.json", tmp_path / "other"
    store.save_status({"state": "running", "updated_at": "2026-01-01T00:00:01.000000+00:00"})
    if meddle == "edit":
        path.write_text("x" * 500)
    else:
        path.unlink()
    if meddle == "link":
        other.write_text("y" * 500)
        path.symlink_to(other)
    store.save_status({"state": "running", "updated_at": "2026-01-01T00:00:02.000000+00:00"})
    assert json.loads(path.read_text())["updated_at"].endswith("02.000000+00:00")
    assert not path.is_symlink()
    if meddle == "link":
        assert other.read_text() == "y" * 500
    store.close()


async def test_agents_get_the_usual_number_of_open_files(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = min(1024, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(low, original_soft_limit()), before[1]))
    try:
        ours = raise_limit()
        async with Host() as host:
            spec = make_spec(tmp_path, "/bin/sh", "-c", "ulimit -Sn")
            run = await host.start(spec)
            await run.wait()
            assert int(stdout_of(spec)) == original_soft_limit()
        # Negative control: without that it would have got ours.
        assert ours == before[1]
        inherited = await anyio.run_process(["/bin/sh", "-c", "ulimit -Sn"])
        assert inherited.stdout.decode().strip() in (str(ours), "unlimited")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_loops_than_open_files_are_refused_by_number(tmp_path: Path) -> None:
    workspaces = [Workspace(tmp_path, f"repo{number}") for number in range(6)]
    try:
        for ws in workspaces:
            ws.config(max_iterations=1)
            ws.script({"append": {"w": "x"}})
        flags = [word for ws in workspaces for word in ("--workspace", str(ws.path))]
        command = [*PROGRAM, *flags, "--log-format=json"]
        done = subprocess.run(
            ["/bin/sh", "-c", 'ulimit -n 100 && exec "$@"', "sh", *command],
            cwd=tmp_path, env=workspaces[0].environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("only 3 loops fit into the 100 files") == 3
        assert sum(len(ws.journal()) for ws in workspaces) == 3
    finally:
        for ws in workspaces:
            ws.close()
