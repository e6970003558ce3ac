"""Ports for lanes: no two supervisors have the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codex_self_iter.world import port_ranges

HOLD = (
    "import sys; from codex_self_iter.world import port_ranges as ports; "
    "print(ports.claim(sys.argv[1], 20000, 1000)[0], flush=True); sys.stdin.read()"
)


def test_each_process_has_another_range_and_leaves_it_when_it_is_killed(tmp_path: Path) -> None:
    first, fd = port_ranges.claim(str(tmp_path), 20000, 1000)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=pipe, stdout=pipe
    ) as other:
        assert other.stdout is not None
        assert (first, int(other.stdout.readline())) == (20000, 21000)
        other.kill()
    again, second = port_ranges.claim(str(tmp_path), 20000, 1000)
    assert again == 21000
    os.close(fd)
    os.close(second)


def test_none_is_left(tmp_path: Path) -> None:
    held = [port_ranges.claim(str(tmp_path), 58000, 1000)[1] for _ in range(2)]
    with pytest.raises(OSError, match="no 1000 ports from 58000 to 60000"):
        port_ranges.claim(str(tmp_path), 58000, 1000)
    for fd in held:
        os.close(fd)
