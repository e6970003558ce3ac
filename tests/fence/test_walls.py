"""The walls around one process, as root and as an ordinary user, without a loop."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.core.fence import EXACT, Ground, Means, walls
from codex_self_iter.world.process.fence_machine import look

NOBODY = 65534
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
"""One that an ordinary user may start."""
ROOT = Path(__file__).parents[2] / "src"
PROGRAM = """
import ctypes, json, os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from codex_self_iter.world.process.walls import Walls
plan, user, command = json.loads(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
if user:
    os.setgroups([]); os.setgid(user); os.setuid(user)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as after an exec: its /proc is its own
around = Walls(plan) if plan else None
stdin = open(plan["stdin"]) if plan and plan.get("stdin") else subprocess.DEVNULL
argv = around.command(command) if around else command
done = subprocess.run(argv, stdin=stdin, preexec_fn=around.enter_forked if around else None, cwd=plan["cwd"] if plan else None)
sys.exit(done.returncode)
"""
"""Imports before it gives root up: the sources may be nobody else's to read."""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="NOT TESTED HERE: needs root to be two users"
)


class Place:
    """A directory that an ordinary user reaches, with something in it to keep."""

    def __init__(self, root: Path, user: int) -> None:
        self.root, self.user = root, user
        for name in ("ws/.git/hooks", "ws/deep/gate", "state/run/tmp", "home/.ssh", "home/.tool"):
            (root / name).mkdir(parents=True)
        for name in ("home/.ssh/id", "home/.rc", "ws/deep/gate/test", "state/run/prompt"):
            (root / name).write_text("KEY\n")
        for path in (root, *root.rglob("*")):
            os.chown(path, user, user)

    def ground(self, **changes: Any) -> Ground:
        at = str(self.root)
        values: dict[str, Any] = {
            "workspace": f"{at}/ws", "state": f"{at}/state", "run": f"{at}/state/run",
            "scratch": f"{at}/state/run/tmp", "open": (f"{at}/home/.tool",),
            "sealed": (f"{at}/ws/.git/hooks", f"{at}/ws/deep/gate"), "closed": (f"{at}/home/.ssh",),
            "readable": ("/proc", "/usr", "/bin", "/lib", "/lib64", "/etc", f"{at}/ws", f"{at}/home/.rc", sys.prefix,
                         sys.base_prefix, os.path.realpath(sys.executable)),
        }  # fmt: skip
        return Ground(**{**values, **changes})

    def run(self, plan: dict[str, Any] | None, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PYTHON, "-I", "-S", "-c", PROGRAM, str(ROOT), json.dumps(plan), str(self.user), "/bin/sh", "-c", command],
            env={"HOME": str(self.root / "home"), "PATH": os.defpath}, capture_output=True, text=True,
            check=False, timeout=60, cwd=self.root,
        )  # fmt: skip

    def plan(self, means: Means, ground: Ground | None = None, **options: Any) -> dict[str, Any]:
        return walls(ground or self.ground(), means, bwrap=look().bwrap, **options)


@pytest.fixture(params=[0, NOBODY], ids=["root", "user"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    root = Path(tempfile.mkdtemp(prefix="csi-walls-"))
    root.chmod(0o755)
    yield Place(root, request.param)
    shutil.rmtree(root)


means = pytest.mark.parametrize("means", list(Means))
exact = pytest.mark.parametrize("means", EXACT)


@means
def test_what_is_open_can_be_written_and_nothing_beside_it(place: Place, means: Means) -> None:
    command = "echo a >new && mkdir -p d/e && echo b >d/e/f && echo c >$HOME/.tool/x && echo d >../state/run/y"
    done = place.run(place.plan(means), command)
    assert done.returncode == 0, done.stderr
    for command in (
        "echo x >>$HOME/.rc",
        "echo x >$HOME/new",
        "rm $HOME/.rc",
        "echo x >../state/z",
        "mv $HOME/.rc $HOME/.rd",
        "truncate -s 0 $HOME/.rc",
    ):
        assert place.run(place.plan(means), command).returncode != 0, command
    assert (place.root / "home/.rc").read_text() == "KEY\n"


@means
def test_what_is_closed_cannot_be_read(place: Place, means: Means) -> None:
    command = "cat $HOME/.ssh/id"
    assert "KEY" not in place.run(place.plan(means), command).stdout
    assert (
        "KEY" in place.run(place.plan(means, place.ground(closed=())), command).stdout
    )  # the control
    assert "KEY" in place.run(place.plan(means), "cat $HOME/.rc").stdout


def test_what_comes_beside_something_closed_is_closed_under_landlock(place: Place) -> None:
    """What stands in docs/security.md: only what was there is open."""
    from codex_self_iter.world.git.ground import _all_but

    readable = tuple(_all_but([str(place.root / "home/.ssh")]))
    plan = place.plan(Means.LANDLOCK, place.ground(readable=readable, open=()))
    for name, seen in (("later", False), (".rc", True)):
        path = place.root / "home" / name
        path.write_text("KEY\n")
        os.chown(path, place.user, place.user)
        assert ("KEY" in place.run(plan, f"cat $HOME/{name}").stdout) is seen


@exact
def test_what_is_sealed_in_something_open_cannot_be_written(place: Place, means: Means) -> None:
    for command in (
        "echo x >.git/hooks/pre-commit",
        "echo x >>deep/gate/test",
        "rm deep/gate/test",
        "mv .git/hooks h",
        "mv deep d2",
    ):
        assert place.run(place.plan(means), command).returncode != 0, command
    assert place.run(place.plan(means), "echo x >.git/index && echo x >deep/other").returncode == 0
    assert (
        place.run(
            place.plan(means, place.ground(sealed=())), "mv deep d2 && echo x >.git/hooks/h"
        ).returncode
        == 0
    )  # the control


@exact
def test_a_sandbox_inside_works_and_opens_nothing(place: Place, means: Means) -> None:
    where = '--ro-bind / / --bind "$PWD" "$PWD" --proc /proc --dev /dev'
    inner = f"bwrap --unshare-user --unshare-pid {where} sh -c"
    done = place.run(
        place.plan(means),
        f"{inner} 'echo x >made && ! echo x 2>/dev/null >.git/hooks/h && ! umount .git/hooks 2>/dev/null'",
    )
    if place.user == 0 and means is Means.BUBBLEWRAP:  # namespaces are taken, if one may choose
        assert done.returncode != 0
        return
    assert done.returncode == 0, done.stderr
    assert (place.root / "ws/made").exists()
    assert not (place.root / "ws/.git/hooks/h").exists()


def test_landlock_lets_no_sandbox_mount(place: Place) -> None:
    """What `weakness` says of it."""
    inner = "bwrap --unshare-user --ro-bind / / --dev /dev true"
    assert place.run(place.plan(Means.LANDLOCK), inner).returncode != 0
    assert place.run(None, inner).returncode == 0  # the control


def test_a_descriptor_leads_to_nothing_outside(place: Place) -> None:
    prompt = place.root / "state/prompt"
    prompt.write_text("go\n")
    os.chown(prompt, place.user, place.user)
    plan = place.plan(Means.NAMESPACES, place.ground(stdin=str(prompt)))
    assert place.run(plan, "cat; echo x >/proc/self/fd/0").returncode != 0
    assert prompt.read_text() == "go\n"
    assert place.run(plan, "cat").stdout == "go\n"


@means
def test_sockets_beside_local_ones_are_refused(place: Place, means: Means) -> None:
    code = "import socket\nfor one in (1, 2, 10, 17):\n try: socket.socket(one, 2); print(one)\n except OSError: pass"
    command = f"{PYTHON} -I -S -c '{code}'"
    ground = place.ground(closed=())
    assert place.run(place.plan(means, ground, offline=True), command).stdout.split() == ["1"]
    assert {"1", "2", "10"} <= set(
        place.run(place.plan(means, ground), command).stdout.split()
    )  # the control


@means
def test_root_keeps_no_right_over_the_machine(place: Place, means: Means) -> None:
    """No mounts, no modules, no devices, no tracing of others."""
    status = place.run(place.plan(means), "grep -E 'CapEff|NoNewPrivs' /proc/self/status").stdout
    capabilities = int(status.split("CapEff:")[1].split()[0], 16)
    assert capabilities & ~sum(1 << n for n in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31)) == 0
    assert "NoNewPrivs:\t1" in status


@means
def test_root_reaches_no_disk(place: Place, means: Means) -> None:
    """Through a device, all that is closed could be read and written."""
    if place.user:
        return  # it has no right to them
    ground = place.ground()
    assert "/dev" not in ground.readable
    command = (
        "for one in $(find /dev -xdev -type b); do head -c1 $one >/dev/null 2>&1 && echo $one; done"
    )
    assert place.run(place.plan(means, ground), command).stdout == ""
    assert (
        place.run(
            place.plan(means, ground), "echo x >/dev/null && head -c1 /dev/urandom >/dev/null"
        ).returncode
        == 0
    )


def test_walls_that_cannot_be_built_are_told_and_nothing_runs(place: Place) -> None:
    from codex_self_iter.world.process.walls import Walls, WallsError

    plan = place.plan(Means.NAMESPACES) | {"anchor": str(place.root / "nowhere")}
    around = Walls(plan)
    with pytest.raises(subprocess.SubprocessError):
        subprocess.run(
            ["touch", str(place.root / "ran")], preexec_fn=around.enter_forked, check=False
        )
    assert "nowhere" in around.close()
    assert not (place.root / "ran").exists()
    with pytest.raises(WallsError):
        raise WallsError("said")
