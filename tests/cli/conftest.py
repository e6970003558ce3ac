"""The command line as people run it: a real process, a scratch home, a workspace."""

import datetime
import fcntl
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from codex_self_iter.world import registry
from tests.support.program import PROGRAM

SOURCE = Path(__file__).resolve().parents[2] / "src"


class Command:
    """Runs `python -m codex_self_iter` in a workspace with a scratch home."""

    def __init__(self, workspace: Path, home: Path) -> None:
        self.workspace = workspace
        self.state_dir = workspace / ".codex-self-iter"
        self._lock: IO[str] | None = None
        self.env = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "COLUMNS": "120",
        }

    @staticmethod
    def iso(seconds_from_now: float = 0.0) -> str:
        """A time as the supervisor writes it."""
        return iso(seconds_from_now)

    def argv(self, *words: str) -> list[str]:
        return [*PROGRAM, *words]

    def __call__(
        self, *words: str, stdin: str = "", cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words), cwd=cwd or self.workspace, env=self.env | env, input=stdin,
            capture_output=True, encoding="utf-8", timeout=30, check=False,
        )  # fmt: skip

    def hold_lock(self) -> None:
        """Be the supervisor, for as long as the test lasts."""
        if self._lock is None:
            self._lock = (self.state_dir / "loop.lock").open("w", encoding="utf-8")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._lock.write(json.dumps({"pid": os.getpid()}) + "\n")
            self._lock.flush()

    def release(self) -> None:
        """Be gone."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write_status(self, **changes: Any) -> dict[str, Any]:
        """A whole status.json of a running loop, this test process as the supervisor."""
        status = sample_status(self.workspace) | changes
        self.state_dir.mkdir(mode=0o700, exist_ok=True)
        if status["pid"] == os.getpid() and not status["exit"]:
            self.hold_lock()
        whole = self.state_dir / "status.json.new"  # put in place at once, as a supervisor does it
        whole.write_text(json.dumps(status), encoding="utf-8")
        whole.replace(self.state_dir / "status.json")
        return status


def iso(seconds_from_now: float) -> str:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds_from_now)
    return moment.isoformat()


def sample_status(workspace: Path) -> dict[str, Any]:
    """What a supervisor in the middle of iteration 12 writes."""
    return {
        "schema": 1, "version": "0.1.0", "pid": os.getpid(), "boot_id": registry.boot_id(),
        "workspace": str(workspace),
        "state_dir": str(workspace / ".codex-self-iter"), "name": workspace.name,
        "state": "running",
        "since": iso(-725), "until": None, "reason": "", "updated_at": iso(-1),
        "started_at": iso(-7200),
        "iteration": 12, "goal": "Make the parser accept comments", "mode": "goal",
        "agent": "codex",
        "run": {
            "run_id": "r-12", "role": "executor", "agent": "codex", "pid": 4242,
            "recorder_pid": 4241,
            "started_at": iso(-700), "age_sec": 700.0, "cpu_percent": 35.2, "cpu_sec": 88.0,
            "memory_mb": 180.4,
            "processes": 4, "last_output_at": iso(-3), "idle_sec": 3.0, "output_bytes": 1_200_000,
            "deadline_at": iso(6500), "directory": "logs/runs/000012-executor",
        },
        "wait": None,
        "last": {
            "iteration": 11, "verdict": "continue", "summary": "Added the lexer",
            "duration_sec": 250.0,
            "ended_at": iso(-730),
        },
        "recent": [
            {"iteration": 10, "verdict": "error", "summary": "no control block",
            "duration_sec": 61.0,
             "tokens": 900, "cost_usd": None},
            {"iteration": 11, "verdict": "continue", "summary": "Added the lexer",
            "duration_sec": 250.0,
             "tokens": 12_300, "cost_usd": 0.12},
        ],
        "counters": {"consecutive_errors": 0, "no_change": 0, "same_goal": 0, "confirmations": 0,
                     "gate_failures": 0, "iterations_this_run": 12},
        "usage": {"tokens": 1_234_567, "cost_usd": 3.4, "hours": 2.12},
        "plan": {"done": 8, "total": 12, "last_ticked": "Write the lexer"},
        "disk": {"state_mb": 120.0, "free_mb": 40_000.0}, "warnings": [],
        "log": "logs/supervisor.log",
        "exit": None,
    }  # fmt: skip


@pytest.fixture
def make_command(tmp_path: Path) -> Iterator[Callable[[str], Command]]:
    """Workspaces of one user."""
    made = []

    def make(name: str) -> Command:
        workspace, home = tmp_path / name, tmp_path / "home"
        workspace.mkdir(parents=True)
        home.mkdir(exist_ok=True)
        made.append(Command(workspace, home))
        return made[-1]

    yield make
    for command in made:
        command.release()


@pytest.fixture
def command(make_command: Callable[[str], Command]) -> Command:
    """The command line in a workspace that has a plan."""
    command = make_command("my repo")
    (command.workspace / "plan.md").write_text("- [ ] one\n", encoding="utf-8")
    return command
