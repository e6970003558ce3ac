"""What this machine can build a fence with, tried by building one around a small program."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any

import codex_self_iter
from codex_self_iter.core.fence import Machine, Means
from codex_self_iter.core.text import one_line
from codex_self_iter.world.process import walls

_TRY_SEC = 20.0
_PROGRAM = """
import json, subprocess, sys
sys.path.append(sys.argv[1])
from codex_self_iter.world.process.walls import Walls
around = Walls(json.loads(sys.argv[2]))
try:
    done = subprocess.run(around.command(sys.argv[3:]), preexec_fn=around.enter_forked)
except (OSError, subprocess.SubprocessError) as error:
    sys.exit(around.close() or str(error))
sys.exit(done.returncode)
"""
_CHECK = 'echo x >"$1/in" && ! echo x 2>/dev/null >"$0/out"'
"""What is open can be written, what is beside it not."""


@functools.cache
def look() -> Machine:
    """What works here. Blocks for some ten milliseconds, once in a process."""
    abi = walls.landlock_abi()
    if not sys.platform.startswith("linux"):
        none = "Linux only"
        return Machine(0, none, none)
    bwrap = shutil.which("bwrap") or ""
    return Machine(
        abi,
        _tried({"by": str(Means.NAMESPACES)}),
        _tried({"by": str(Means.BUBBLEWRAP), "bwrap": bwrap}) if bwrap else "it is not installed",
        bwrap,
        walls.offline_possible(),
    )


def _tried(means: dict[str, Any]) -> str:
    """Why these means do not work; "" when they do."""
    with tempfile.TemporaryDirectory(prefix="csi-fence-") as made:
        place = os.path.realpath(made)
        inner = os.path.join(place, "open")
        os.makedirs(os.path.join(inner, "scratch"))
        plan = {
            "mounts": [("rw", inner)],
            "anchor": f"{inner}/scratch",
            "cwd": inner,
            "stdin": "",
            **means,
        }
        root = os.path.dirname(os.path.dirname(codex_self_iter.__file__))
        shell = ["/bin/sh", "-c", _CHECK, place, inner]
        command = [sys.executable, "-I", "-S", "-c", _PROGRAM, root, json.dumps(plan), *shell]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=_TRY_SEC, check=False,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            return one_line(str(error), 200)
    last = done.stderr.strip().splitlines()[-1:] or ["it does not hold"]
    return "" if done.returncode == 0 else one_line(last[0], 200)
