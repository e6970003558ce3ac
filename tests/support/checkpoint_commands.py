"""A workspace with checkpoints, and `diff` and `rewind` as processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import codex_self_iter
from codex_self_iter.world.git.checkpoints import Checkpoints
from codex_self_iter.world.git.run import Git, complete, run_blocking
from tests.support.program import PROGRAM


class Workspace:
    """A repository with one commit."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "NO_COLOR"):
            monkeypatch.delenv(name, raising=False)
        self.path = path
        self.state = path / ".codex-self-iter"
        self.state.mkdir(parents=True, mode=0o700)
        (self.state / ".gitignore").write_text("*\n")
        source = str(Path(codex_self_iter.__file__).parent.parent)
        self.env = {
            **os.environ,
            "PYTHONPATH": source,
            "PYTHONWARNINGS": "error",
            "HOME": str(path.parent),
        }
        self.git("init", "-q", "-b", "main")
        (path / "file.txt").write_text("zero\n")
        self.commit()

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(Git(run_blocking, str(self.path)), str(self.state))

    def git(self, *args: str) -> str:
        return subprocess.run(
            ["git", *args], cwd=self.path, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x")
        return self.git("rev-parse", "HEAD").strip()

    def checkpoint(self, number: int, text: str) -> None:
        (self.path / "file.txt").write_text(text)
        assert complete(self.checkpoints.save(number)).error == ""

    def argv(self, command: str, *args: str, workspace: Path | None = None) -> list[str]:
        return [
            *PROGRAM,
            command,
            "--workspace",
            str(workspace or self.path),
            *args,
        ]

    def call(
        self, command: str, *args: str, workspace: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.argv(command, *args, workspace=workspace),
            env=self.env,
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
