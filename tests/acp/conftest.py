"""A host over a scripted agent, as real processes."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

import codex_self_iter
from tests.support.program import kill

Json = dict[str, Any]
SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(codex_self_iter.__file__)))
MARK = "CODEX_SELF_ITER_TEST_HOST"


class Host:
    """Runs the host; everything that it starts is found again by a variable."""

    def __init__(self, base: pathlib.Path) -> None:
        self.base = base
        self.workspace = base / "work space"
        self.workspace.mkdir()
        self.control = base / "control.json"
        self.log = base / "agent.log"
        self.environment = dict(os.environ) | {"PYTHONPATH": SOURCE, MARK: str(base)}
        self.process: subprocess.Popen[bytes] | None = None

    def agent(self, *turns: list[Json], **script: Any) -> list[str]:
        """The command line of an agent that plays this."""
        path = self.base / "script.json"
        path.write_text(json.dumps({"turns": list(turns), "log": str(self.log), **script}))
        return [sys.executable, "-m", "codex_self_iter.testing.acp_agent", str(path)]

    def start(
        self, command: list[str], *flags: str, prompt: str = "Do it."
    ) -> subprocess.Popen[bytes]:
        """Start it, with its output in a file."""
        words = ["--cwd", str(self.workspace), "--control", str(self.control), *flags]
        argv = [sys.executable, "-P", "-m", "codex_self_iter.acp_host", *words, "--", *command]
        given = self.base / "prompt.md"
        given.write_text(prompt)
        with (
            open(given, "rb") as stdin,
            open(self.base / "out", "wb") as out,
            open(self.base / "err", "wb") as err,
        ):
            self.process = subprocess.Popen(
                argv, env=self.environment, stdin=stdin, stdout=out, stderr=err
            )
        return self.process

    def run(self, command: list[str], *flags: str, prompt: str = "Do it.") -> int:
        """Run it to its end; the exit code."""
        return self.end(self.start(command, *flags, prompt=prompt))

    def end(self, process: subprocess.Popen[bytes]) -> int:
        """Await its end; the exit code."""
        return process.wait(100)

    @property
    def stderr(self) -> str:
        """What it and its agent have written there."""
        return (self.base / "err").read_text()

    def said(self, kind: str = "") -> list[Json]:
        """The events so far, those of one kind, or all."""
        lines = (self.base / "out").read_bytes().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [one for one in found if not kind or one["type"] == f"acp.{kind}"]

    def one(self, kind: str) -> Json:
        """The only event of a kind."""
        (found,) = self.said(kind)
        return found

    def heard(self) -> list[Json]:
        """What the agent was sent."""
        lines = self.log.read_bytes().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines]

    def sent(self, method: str) -> list[Json]:
        """The parameters of every message of a method that the agent was sent."""
        return [one["params"] for one in self.heard() if one.get("method") == method]

    def left(self) -> list[psutil.Process]:
        """What is still alive of it."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(self.base):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    kill(host.left())
    if host.process is not None:
        host.process.wait()
