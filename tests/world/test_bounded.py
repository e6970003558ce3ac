"""Short commands without an event loop: the same bounds, and nothing of the group stays."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from codex_self_iter.world.bounded import ShortCommand, run
from tests.support.hosting import eventually, new_tag, tagged


def test_result_is_what_the_command_did(tmp_path: Path) -> None:
    done = run(["sh", "-c", "pwd; echo oops >&2; exit 3"], cwd=str(tmp_path))
    assert (done.exit_code, done.stdout, done.stderr) == (3, f"{tmp_path}\n".encode(), b"oops\n")
    assert not done.ok
    assert run(["sh", "-c", "kill -9 $$"]).signal == 9


def test_both_streams_can_be_one() -> None:
    done = run(["sh", "-c", "echo a; echo b >&2; echo c"], merge=True)
    assert (done.stdout, done.stderr) == (b"a\nb\nc\n", b"")


def test_input_and_environment_are_what_is_given() -> None:
    done = run(["sh", "-c", "cat; echo $A-$HOME"], env={"A": "b", "PATH": os.defpath}, stdin=b"in ")
    assert done.stdout == b"in b-\n"


def test_what_cannot_be_started_is_an_error_and_leaves_no_file_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            run(["no-such-tool"], stdin=b"x")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_flood_is_cut_while_it_runs() -> None:
    seen = []

    class Watched(ShortCommand):
        def _take(self) -> None:
            super()._take()
            seen.append(sum(len(taken) for taken in self._taken))

    script = "import os, time\nfor _ in range(80): os.write(1, b'x' * 100_000); time.sleep(0.01)"
    done = Watched([sys.executable, "-c", script], None, None, 60, 1000, None).run()
    assert done.ok
    assert done.truncated
    assert done.stdout == b"x" * 1000
    assert len(seen) > 3
    assert max(seen) < 7_000_000, "without the cut it grows to 8 MB"


def test_time_out_ends_the_whole_group_deaf_or_not() -> None:
    tag = new_tag()
    script = f"trap '' TERM; echo up; sleep {tag} & sleep {tag}"
    done = run(["bash", "-c", script], timeout_sec=2)  # it must have said `up` by then
    assert (done.timed_out, done.ok, done.stdout) == (True, False, b"up\n")
    assert eventually(lambda: not tagged(tag))


def test_a_grandchild_that_keeps_the_output_open_delays_nothing_and_is_ended() -> None:
    tag = new_tag()
    done = run(["sh", "-c", f"sleep {tag} & echo done"])
    assert done.stdout == b"done\n"
    assert done.duration_sec < 30
    assert eventually(lambda: not tagged(tag))


@pytest.mark.parametrize("how", ["> /dev/stderr", "| tee /dev/stderr", "> /proc/self/fd/2"])
def test_what_a_hook_prints_anew_takes_back_nothing(how: str) -> None:
    done = run(["bash", "-c", f"echo LINT >&2; (echo says no) {how}; exit 1"])
    assert done.stderr == b"LINT\nsays no\n"
