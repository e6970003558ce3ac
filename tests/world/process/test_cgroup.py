"""The third ring: a cgroup for each run where ours was delegated to us; never in the way where it
was not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codex_self_iter.world.process import cgroup


def fake_proc(root: Path, membership: str, mounts: str) -> str:
    (root / "cgroup").write_text(membership)
    (root / "mountinfo").write_text(mounts)
    return str(root)


def test_own_cgroup_is_read_in_unified_hybrid_and_container_layouts(tmp_path: Path) -> None:
    unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
    service = "0::/user.slice/user@1000.service/loop.service\n"
    assert cgroup.own_cgroup(proc=fake_proc(tmp_path, service, unified)) == (
        "/sys/fs/cgroup/user.slice/user@1000.service/loop.service"
    )
    hybrid = "30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    assert (
        cgroup.own_cgroup(proc=fake_proc(tmp_path, "3:cpu:/x\n0::/a\n", hybrid))
        == "/sys/fs/cgroup/unified/a"
    )
    bound = "30 23 0:26 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    assert (
        cgroup.own_cgroup(proc=fake_proc(tmp_path, "0::/docker/1/b\n", bound)) == "/sys/fs/cgroup/b"
    )
    assert cgroup.own_cgroup(proc=fake_proc(tmp_path, "0::/docker/12\n", bound)) is None
    assert cgroup.own_cgroup(proc=fake_proc(tmp_path, "3:cpu:/x\n", unified)) is None
    assert cgroup.own_cgroup(proc=str(tmp_path / "none")) is None


def test_what_is_impossible_is_nothing(tmp_path: Path) -> None:
    assert cgroup.create("/proc/none", "run") == ""
    assert cgroup.end(str(tmp_path / "none")) == 0


@pytest.fixture
def delegated(request: pytest.FixtureRequest) -> Iterator[str]:
    """A cgroup of this test's own, marked as a service manager marks it."""
    own = cgroup.own_cgroup()
    if os.geteuid() != 0 or own is None or not os.access(own, os.W_OK):
        pytest.skip("needs root and a writable cgroup v2 hierarchy")
    directory = f"{own}/codex-self-iter-test-{os.getpid()}"
    os.mkdir(directory)
    os.setxattr(directory, "trusted.delegate", b"1")
    yield directory
    os.rmdir(directory)


RUN = """
import anyio, os, sys
from tests.support.hosting import escape_script, make_spec, new_tag, tagged
from codex_self_iter.world.process.host import Host
from pathlib import Path

async def main():
    tag = new_tag()
    script = escape_script("all_at_once", tag, deaf=True, then="cat /proc/self/cgroup; " + sys.argv[2])
    async with Host(subreaper=False) as host:  # the first two rings are off
        spec = make_spec(Path(sys.argv[1]), "bash", "-c", script)
        run = await host.start(spec)
        outcome = await run.wait()
        print(outcome.swept, len(tagged(tag)))
        print(Path(spec.directory, "stdout.log").read_text())
anyio.run(main)
"""


@pytest.mark.root
def test_a_delegated_cgroup_catches_what_the_other_rings_would_lose(
    tmp_path: Path, delegated: str
) -> None:
    enter = f'echo $$ > {delegated}/cgroup.procs && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", enter, "sh", sys.executable, "-c", RUN, str(tmp_path), "exit 0"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    counts, _, rest = done.stdout.decode().partition("\n")
    assert counts == "1 0"
    assert "/csi-" in rest
    assert [entry.name for entry in Path(delegated).iterdir() if entry.is_dir()] == []
