"""What stands outside for a run inside, with process 1 in a namespace of processes, by each shell."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import codex_self_iter
from codex_self_iter.core.fence_container import script
from codex_self_iter.world.guarded import read_object
from codex_self_iter.world.process import containers, inside, kill, proctable
from codex_self_iter.world.process.bare import children_of
from tests.support.harness import wait_until

pytestmark = pytest.mark.root
SHELLS = ("dash", "bash", "bash --posix", "busybox sh")
WHERE = os.path.dirname(os.path.dirname(codex_self_iter.__file__))


class First:
    """Process 1, and runs of it."""

    def __init__(self, shell: str, directory: Path) -> None:
        self.directory, self.shell = directory, shell
        self.control = directory / "control"
        os.mkfifo(self.control)
        alone = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
        words = (*alone, *shell.split(), "-c", inside.PROCESS_1, "sh", str(self.control))
        self.process = subprocess.Popen(words)
        wait_until(lambda: children_of(self.process.pid), "process 1")
        (pid,) = children_of(self.process.pid)
        self.first = pid, proctable.start_ticks(pid)
        wait_until(lambda: self.control.name in str(self._files()), "its FIFO")

    def _files(self) -> list[str]:
        place = Path(f"/proc/{self.first[0]}/fd")
        return [os.readlink(one) for one in place.iterdir() if one.is_symlink()]

    def run(self, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        order = (
            str(self.control), str(self.directory / "run"), str(self.directory / inside.REPORT),
            *map(str, self.first), "PATH", words[0], script(words, str(self.directory), os.devnull),
        )  # fmt: skip
        python = (sys.executable, "-I", "-S", "-c", inside.COMMAND, WHERE)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*python, *order], env=env or {}, stdin=subprocess.DEVNULL, **pipes)

    def left(self) -> list[int]:
        return inside.living_below(*self.first)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def ended(run: subprocess.Popen[bytes]) -> int:
    run.communicate(timeout=20)
    return run.returncode


@pytest.fixture(params=SHELLS)
def first(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[First]:
    if shutil.which(request.param.split()[0]) is None:
        pytest.skip(f"{request.param} is not installed")
    made = First(request.param, tmp_path)
    yield made
    made.close()


def test_a_run_ends_and_prints_as_the_agent_does(first: First) -> None:
    odd = 'it\'s "a" $x\nline'
    run = first.run(
        "sh", "-c", 'printf %s "$ODD"; echo err >&2; exit 3', env={"ODD": odd, "a-b": "c"}
    )
    assert run.communicate(timeout=20) == (odd.encode(), b"err\n")
    assert run.returncode == 3
    assert ended(first.run("sh", "-c", "kill -SEGV $$")) == -signal.SIGSEGV
    much = first.run("head", "-c", "3000000", "/dev/zero")
    assert len(much.communicate(timeout=20)[0]) == 3_000_000
    assert read_object(str(first.directory / inside.REPORT)) is None
    assert not (first.directory / "run").exists()


def test_a_program_that_is_not_there_is_reported(first: First) -> None:
    assert ended(first.run("no-such-program")) == 127
    report = read_object(str(first.directory / inside.REPORT)) or {}
    assert report["missing"] == "no-such-program"


def test_what_an_agent_leaves_is_ended_though_it_is_deaf(first: First) -> None:
    run = first.run("sh", "-c", "(trap '' TERM; setsid sleep 300 >/dev/null 2>&1) & sleep 0.2")
    assert ended(run) == 0
    wait_until(lambda: not first.left(), "nothing inside", 5)
    assert (read_object(str(first.directory / inside.REPORT)) or {})["swept"] > 0


def test_term_reaches_the_agent_and_what_it_says_then_is_kept(first: First) -> None:
    deaf = "trap 'echo heard; exit 7' TERM; echo ready; while :; do sleep 0.02; done"
    run = first.run("sh", "-c", deaf)
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    run.send_signal(signal.SIGTERM)
    assert run.communicate(timeout=20)[0] == b"heard\n"
    assert run.returncode == 7


def test_killing_what_stands_outside_kills_everything_inside(first: First) -> None:
    run = first.run("sh", "-c", "trap '' TERM; setsid sleep 300 & echo ready; sleep 300")
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    run.kill()
    run.communicate()
    begun = time.monotonic()
    wait_until(lambda: not first.left(), "nothing inside", 5)
    assert ended(first.run("true")) == 0  # and the next run can begin
    assert time.monotonic() - begun < 5


def test_while_it_lives_nothing_inside_is_killed(first: First) -> None:
    """The control of the one above."""
    run = first.run("sh", "-c", "echo ready; sleep 0.3; echo still")
    assert run.communicate(timeout=20)[0] == b"ready\nstill\n"


def test_an_interrupt_ends_what_an_agent_has_started(first: First) -> None:
    if first.shell.startswith("busybox"):
        pytest.skip("the `env` of busybox cannot have signals heeded again")
    run = first.run("sh", "-c", "grep SigIgn /proc/self/status")
    ignored = int(run.communicate(timeout=20)[0].split()[1], 16)
    by_shell = (1 << signal.SIGINT - 1) | (1 << signal.SIGQUIT - 1)
    assert not ignored & by_shell


def test_a_process_1_that_is_gone_is_said(tmp_path: Path) -> None:
    first = First("sh", tmp_path)
    first.close()
    assert ended(first.run("true")) == inside.LOST
    report = read_object(str(tmp_path / inside.REPORT)) or {}
    assert report["error"] == "its process 1 is gone"


def test_podmans_process_beside_a_container_is_no_stranger() -> None:
    """It becomes a child of ours that we have not started, as what a run leaves does."""
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as child:
        beside = containers.First(0, 0, child.pid, proctable.start_ticks(child.pid))
        assert child.pid in {one.pid for one in kill.children.strangers()}  # the control
        containers.spare(beside)
        assert child.pid not in {one.pid for one in kill.children.strangers()}
        containers.unspare(beside)
        assert child.pid in {one.pid for one in kill.children.strangers()}
        child.kill()
