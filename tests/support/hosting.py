"""What the process host's tests share: run specifications, agents that escape in every known way, a
head count.

Every process that an agent here leaves behind has a tag in its command line, so that it can be
counted from outside whatever it did to its session, its environment and its descriptors."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from codex_self_iter.core.runs import RunLimits, RunSpec

CLOSE_FDS = 'for f in /proc/$$/fd/*; do n=${f##*/}; eval "exec $n>&-"; done 2>/dev/null;'

OVERWRITE_ENVIRON = """
import ctypes, os, time
fields = open('/proc/self/stat').read().rpartition(')')[2].split()
start, end = int(fields[47]), int(fields[48])
ctypes.memset(start, 0, end - start)
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
time.sleep(TAG)
"""

ESCAPES: Mapping[str, str] = {
    "plain": "sleep TAG &",
    "setsid": "setsid sleep TAG &",
    "nohup": "nohup sleep TAG >/dev/null 2>&1 &",
    "disown": "bash -mc 'sleep TAG & disown'",
    "daemon": "(setsid sh -c 'sleep TAG &' &)",
    "daemon_closed": f"(setsid bash -c '{CLOSE_FDS} sleep TAG &' &)",
    "daemon_env_i": "(setsid env -i bash -c 'PATH=/usr/bin:/bin; sleep TAG &' &)",
    "all_at_once": f"(setsid env -i bash -c '{CLOSE_FDS} PATH=/usr/bin:/bin; sleep TAG &' &)",
    "overwrites_environ": f'{shlex.quote(sys.executable)} -S -c "{OVERWRITE_ENVIRON}"',
}
"""Shell text that leaves one `sleep TAG` (or a Python that sleeps TAG) behind."""


def new_tag() -> str:
    """A duration in seconds that no other process on this machine sleeps for."""
    return f"9{secrets.randbelow(10**8):08d}.{secrets.randbelow(10**6):06d}"


def escape_script(kind: str, tag: str, *, deaf: bool, then: str) -> str:
    """Shell text of an agent that leaves something behind, shows that it is there, and goes on with
    `then`."""
    deafness = "trap '' TERM;" if deaf else ""  # an ignored signal stays ignored across exec
    return f"{deafness} {ESCAPES[kind].replace('TAG', tag)}\nsleep 0.2\necho ready\n{then}"


def tagged(tag: str) -> set[int]:
    """Living processes with the tag in their command line."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                cmdline = Path(f"/proc/{entry}/cmdline").read_bytes()
                state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if tag.encode() in cmdline and state not in "ZX":
                found.add(int(entry))
    return found


def kill_tagged(tag: str) -> None:
    """Clean up after a negative control."""
    for pid in tagged(tag):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def make_spec(
    root: Path, *argv: str, name: str = "run", limits: RunLimits | None = None, **fields: object
) -> RunSpec:
    """A run in `root`, with a run lock of its own. Its id is its own on the whole machine: the end
    of a run ends every process that carries its id, those of a test that runs beside it, too."""
    run_id = f"{name}-{secrets.token_hex(4)}"
    defaults: dict[str, object] = {
        "env": {"PATH": os.environ["PATH"], "HOME": str(root)},
        "cwd": str(root),
        "directory": str(root / "runs" / run_id),
        "run_lock_path": str(root / f"{run_id}.lock"),
        "limits": limits or RunLimits(kill_grace_sec=0.3),
    }
    return RunSpec(run_id=run_id, argv=argv, **(defaults | fields))  # type: ignore[arg-type]


def stdout_of(spec: RunSpec) -> str:
    """What the run printed so far."""
    try:
        return Path(spec.directory, "stdout.log").read_text()
    except FileNotFoundError:
        return ""


def eventually(condition: Callable[[], object], limit_sec: float = 20.0) -> bool:
    """Wait (blocking) until the condition holds."""
    give_up = time.monotonic() + limit_sec
    while time.monotonic() < give_up:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


def start_supervisor(specs: Sequence[RunSpec]) -> subprocess.Popen[bytes]:
    """A supervisor in a process of its own that has started these runs; to be killed. A context
    manager."""
    supervisor = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "supervisor_to_kill.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    supervisor.stdin.write(json.dumps([dataclasses.asdict(spec) for spec in specs]).encode())
    supervisor.stdin.close()
    assert supervisor.stdout.readline() == b"ready\n"
    return supervisor
