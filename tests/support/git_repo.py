"""A real repository in a temporary directory, untouched by the machine's git configuration."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from codex_self_iter.world.bounded import ToolResult
from codex_self_iter.world.process.tool import run_tool

IDENTITY = {"user.name": "Person", "user.email": "person@example.org"}


def isolate(monkeypatch: pytest.MonkeyPatch) -> None:
    """No global or system configuration, nothing inherited."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


class Counting:
    """A GitRunner that remembers every argv."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    async def __call__(self, argv: Sequence[str], **rest: Any) -> ToolResult:
        self.calls.append(list(argv))
        return await run_tool(argv, **rest)


class Repo:
    """A work tree with a state directory that ignores itself."""

    def __init__(self, path: Path, *, commit: bool = True) -> None:
        self.path = path
        self.state = path / ".codex-self-iter"
        path.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main")
        for key, value in IDENTITY.items():
            self.git("config", key, value)
        self.state.mkdir(mode=0o700)
        (self.state / ".gitignore").write_text("*\n")
        if commit:
            self.write("a.txt", "one\n")
            self.write(".gitignore", "ignored/\n*.log\n")
            self.commit("first")

    def git(self, *args: str, check: bool = True, cwd: Path | None = None) -> str:
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", *args],
            cwd=cwd or self.path,
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        if check and done.returncode:
            raise AssertionError(f"git {args}: {done.stderr.decode()}")
        return done.stdout.decode("utf-8", "surrogateescape")

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    def commit(self, message: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-qm", message)
        return self.head()

    def head(self) -> str:
        return self.git("rev-parse", "HEAD").strip()

    def index_bytes(self) -> bytes:
        return (self.path / ".git" / "index").read_bytes()

    def status(self) -> str:
        return self.git("--no-optional-locks", "status", "--porcelain", "-uall")
