"""Running the real program: a workspace with a git repository, a scripted agent, and the supervisor
as a process.

Everything started here is ended here: `close` kills what is left by pid and fails the test if an
agent or one of its children outlived its supervisor."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.support.program import PROGRAM, commands, kill

AGENT = Path(__file__).with_name("scripted_agent.py")
PATIENCE = 60.0
"""Seconds a condition may take on a busy machine; a test that hits it has failed."""

GIT_ENV = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A Person",
    "GIT_AUTHOR_EMAIL": "person@example.invalid",
    "GIT_COMMITTER_NAME": "A Person",
    "GIT_COMMITTER_EMAIL": "person@example.invalid",
}
FAST = {
    "backoff_base_sec": 0.05,
    "backoff_max_sec": 0.2,
    "no_change_backoff_sec": 0.05,
    "kill_grace_sec": 1,
}


def wipe(directory: Path) -> None:
    """Delete a directory in which somebody is at work, with what comes in meanwhile."""
    while directory.exists():
        shutil.rmtree(directory, ignore_errors=True)


def wait_until(
    condition: Callable[[], Any], what: str | Callable[[], str], patience: float = PATIENCE
) -> Any:
    """Wait for a condition and return its value; `what` is said when it does not come."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            said = what if isinstance(what, str) else what()
            raise AssertionError(f"waited {patience:g} s in vain for {said}")
        time.sleep(0.02)


def toml(value: Any) -> str:
    """A TOML value; JSON's strings, numbers, booleans and lists are TOML's as well."""
    return json.dumps(value)


class Workspace:
    """One workspace, its scripted agent and its supervisors."""

    def __init__(self, root: Path, name: str = "work space") -> None:
        self.root = root
        self.path = root / name
        self.control = root / f"{name} control"
        self.home = root / "home"
        for directory in (self.path, self.control, self.home):
            directory.mkdir(parents=True, exist_ok=True)
        self.state = self.path / ".codex-self-iter"
        self.supervisors: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **{
                key: value
                for key, value in os.environ.items()
                if not key.startswith("CODEX_SELF_ITER_")
            },
            **GIT_ENV,
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
        }
        self.plan("# Plan\n\n- [ ] first\n- [ ] second\n")
        self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "start")

    # -- content -----------------------------------------------------------------------------------

    def without_plan(self) -> None:
        """Take the plan out of the repository: the workspace of somebody who has none."""
        self.git("rm", "-q", "plan.md")
        self.git("commit", "-q", "-m", "no plan")

    def git(self, *args: str) -> str:
        done = subprocess.run(
            ["git", *args],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    def plan(self, text: str) -> None:
        (self.path / "plan.md").write_text(text, encoding="utf-8")

    def script(self, *steps: Mapping[str, Any]) -> None:
        """What the agent does: a step for each run, the last one for ever."""
        temporary = self.control / "script.tmp"
        temporary.write_text(json.dumps(list(steps)))
        temporary.replace(self.control / "script.json")

    def config(self, tables: str = "", **keys: Any) -> None:
        """Write codex-self-iter.toml: fast waits, no noise in git; `tables` is appended as it
        is."""
        program = f"{shlex.quote(sys.executable)} -S -E {shlex.quote(str(AGENT))} {shlex.quote(str(self.control))}"
        values = {"agent_command_template": program + " {prompt_file} {workspace}", **FAST, **keys}
        lines = [f"{key} = {toml(value)}" for key, value in values.items()]
        (self.path / "codex-self-iter.toml").write_text("\n".join(lines) + "\n" + tables + "\n")
        exclude = self.path / ".git" / "info" / "exclude"
        exclude.parent.mkdir(exist_ok=True)
        exclude.write_text("codex-self-iter.toml\n")

    def make_due(self, older: float = 0.0) -> None:
        """Let the time pass until every message that waits is to be sent, and be so many seconds
        old; no supervisor runs."""
        path = self.state / "outbox.json"
        box = json.loads(path.read_text())
        box["rests"] = {}
        for entry in box["entries"]:
            entry["notice"]["at"] -= older
            for one in entry["pending"]:
                one["due"] = 0.0
        path.write_text(json.dumps(box))

    # -- the program -------------------------------------------------------------------------------

    def start(
        self,
        *flags: str,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        start_new_session: bool = False,
        output: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a supervisor in the background; its log goes to `root/supervisor-N.log`, or to
        `output`."""
        log = (output or self.root / f"supervisor-{len(self.supervisors) + 1}.log").open("ab")
        process = subprocess.Popen(
            [
                *prefix,
                *PROGRAM,
                "--workspace",
                str(self.path),
                *flags,
            ],
            cwd=self.root,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=start_new_session,
        )
        log.close()
        self.supervisors.append(process)
        return process

    def run(self, *flags: str, patience: float = PATIENCE, **options: Any) -> int:
        """Run a supervisor to its end and return its exit code."""
        return self.ended(self.start(*flags, **options), patience)

    def ended(self, process: subprocess.Popen[bytes], patience: float = PATIENCE) -> int:
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the supervisor did not end:\n{self.log()[-4000:]}") from None

    def cli(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run another command on this workspace."""
        return subprocess.run(
            [*PROGRAM, args[0], "--workspace", str(self.path),
            *args[1:]],
            cwd=self.root, env=self.environment, capture_output=True, text=True, check=False,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def with_command(self) -> dict[str, str]:
        """The environment, with the program on PATH under its name."""
        command = self.root / "bin" / "codex-self-iter"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
        command.chmod(0o755)
        return {**self.environment, "PATH": f"{command.parent}:{self.environment['PATH']}"}

    def log(self) -> str:
        """The logs of all supervisors."""
        paths = sorted(self.root.glob("supervisor-*.log"))
        return "\n".join(path.read_text(errors="replace") for path in paths)

    # -- what can be seen from outside -------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.state / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def runtime(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / "runtime.json").read_text())
        return found

    def journal(self) -> list[dict[str, Any]]:
        path = self.state / "logs" / "iterations.jsonl"
        if not path.exists():
            return []
        whole = path.read_text().rpartition("\n")[0]  # a line may just be being written
        return [json.loads(line) for line in whole.splitlines() if line.strip()]

    def verdicts(self) -> list[str]:
        return [line["verdict"] for line in self.journal()]

    def prompt(self, number: int) -> str:
        """The prompt that the agent's run `number` (1, 2, …) was given."""
        path = self.control / f"prompt-{number}.md"
        wait_until(path.exists, f"the prompt of run {number}")  # the agent keeps it for us
        return path.read_text(encoding="utf-8", errors="surrogateescape")

    def runs(self) -> list[tuple[str, int, float]]:
        """(start|end, pid, monotonic time) of every agent run."""
        path = self.control / "runs.log"
        if not path.exists():
            return []
        rows = [line.split() for line in path.read_text().splitlines()]
        return [(word, int(pid), float(at)) for word, pid, at in rows]

    def started(self) -> int:
        """Number of agent runs that were started."""
        return sum(word == "start" for word, _, _ in self.runs())

    def state_is(self, *states: str) -> Callable[[], bool]:
        return lambda: self.status().get("state") in states

    def wait_state(self, *states: str, patience: float = PATIENCE) -> dict[str, Any]:
        wanted = " or ".join(states)
        wait_until(
            self.state_is(*states), lambda: f"state {wanted}; log:\n{self.log()[-3000:]}", patience
        )
        return self.status()

    def wait_runs(self, count: int) -> None:
        wait_until(
            lambda: self.started() >= count,
            lambda: f"{count} agent runs; log:\n{self.log()[-3000:]}",
        )

    def leftovers(self) -> list[psutil.Process]:
        """Living processes that belong to runs of this workspace, however they were orphaned."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                line, environment = process.cmdline(), process.environ()
            except (psutil.Error, OSError):
                continue
            text = " ".join(line)
            mine = str(self.control) in text or environment.get("HOME") == str(self.home)
            marked = (
                str(self.path) in environment.get("PWD", "")
                and "CODEX_SELF_ITER_RUN_ID" in environment
            )
            if (mine or marked) and process.pid not in {s.pid for s in self.supervisors}:
                found.append(process)
        return found

    def close(self) -> None:
        """End everything; complain about what should not have been there."""
        for supervisor in self.supervisors:
            if supervisor.poll() is None:
                supervisor.send_signal(signal.SIGTERM)
        for supervisor in self.supervisors:
            try:
                supervisor.wait(20)
            except subprocess.TimeoutExpired:
                supervisor.kill()
                supervisor.wait()
        try:
            wait_until(lambda: not self.leftovers(), "nothing to be left", 10)
        except AssertionError:
            left = list(commands(self.leftovers()))
            lines = [f"{process.pid} {' '.join(line)[:200]}" for process, line in left]
            kill(process for process, _ in left)
            raise AssertionError("processes outlived the test:\n" + "\n".join(lines)) from None


def overlaps(runs: Sequence[tuple[str, int, float]]) -> int:
    """Largest number of agent runs that were alive at the same time, by their own account."""
    alive = most = 0
    for word, _, _ in sorted(runs, key=lambda row: row[2]):
        alive += 1 if word == "start" else -1
        most = max(most, alive)
    return most
