"""A stand-in for the supervisor under a real service manager; files in a directory tell it what to
do.

    daemon.py CONTROL

Writes CONTROL/starts (one line a start), reads CONTROL/config at start and reload, and looks for
these files: exit (its content is the exit code), crash, deaf (ignores SIGTERM), escapee (leaves
processes of every kind)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from codex_self_iter.world.sdnotify import Notifier

control = Path(sys.argv[1])
notifier = Notifier()
state = {"stop": False, "reload": False}


def escape() -> None:
    """What agents leave behind: a plain child, one deaf to SIGTERM, a daemon without
    environment."""
    subprocess.Popen(["sleep", "54321"])
    subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 54322"])
    subprocess.run(
        ["sh", "-c", "setsid env -i sh -c 'sleep 54323 & sleep 54323' > /dev/null 2>&1 &"],
        check=True,
    )


def config() -> str:
    path = control / "config"
    return path.read_text(encoding="utf-8").strip() if path.exists() else "default"


signal.signal(signal.SIGTERM, lambda *_: state.update(stop=True))
signal.signal(signal.SIGHUP, lambda *_: state.update(reload=True))
with (control / "starts").open("a", encoding="utf-8") as file:
    file.write(f"{os.getpid()} {os.getcwd()} {os.environ.get('LAB_KEY', '')}\n")
if (control / "escapee").exists():
    escape()
notifier.ready(f"ready with {config()}")
while True:
    time.sleep(0.05)
    notifier.watchdog()
    if (control / "crash").exists():
        (control / "crash").unlink()
        os.kill(os.getpid(), signal.SIGSEGV)
    if (control / "exit").exists():
        code = int((control / "exit").read_text(encoding="utf-8"))
        (control / "exit").unlink()
        sys.exit(code)
    if state["reload"]:
        state["reload"] = False
        notifier.reloading()
        notifier.ready(f"ready with {config()}")
    if state["stop"] and not (control / "deaf").exists():
        notifier.stopping("ending the agent")
        sys.exit(0)
