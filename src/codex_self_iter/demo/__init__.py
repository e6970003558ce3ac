"""The sample workspace of `demo`: a repository with a failing test and a plan that mends it.

Its files are under `sample/`; a `.txt` at the end of a name only keeps linters and tests away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from codex_self_iter.errors import UsageError
from codex_self_iter.world.bounded import run

MARK = "codex-self-iter.demo"
"""Key in the repository's own git configuration: this is a demo, and may be started again."""


def sample_files() -> Iterator[tuple[str, bytes]]:
    """(path in the workspace, content) of every file of the sample."""
    yield from _walk(files(__package__) / "sample", "")


def make_workspace(directory: Path) -> None:
    """Write the sample and commit it; an earlier demo there is committed first and starts again.

    Raises UsageError: the directory holds anything else or cannot be written; there is no git."""
    try:
        again = _is_demo(directory)
        if not again:
            if directory.is_dir() and any(directory.iterdir()):
                what = "not empty, and no earlier demo. Name a new directory."
                raise UsageError(f"{directory}: {what}")
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _new_repository(directory)
        else:
            _set_aside(directory)
        for name, content in sample_files():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{error.filename or directory}: {error.strerror or error}.") from error
    git(directory, "add", "-A")
    subject = "Start again" if again else "A basket with a failing test"
    git(directory, "commit", "-q", "--allow-empty", "-m", subject)


def git(directory: Path, *arguments: str) -> str:
    """Output of git in the demo's repository. Raises UsageError with git's own words."""
    # variables such as GIT_DIR would send the commands to another repository
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = run(["git", "-C", str(directory), *arguments], env=env)
    except FileNotFoundError as error:
        raise UsageError("the demo needs git, and there is none on PATH. Install git.") from error
    if not done.ok:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise UsageError(f"git {arguments[0]} failed in {directory}: {said}")
    return done.stdout.decode("utf-8", "replace")


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            name = entry.name.removesuffix(".txt")
            yield prefix + {"gitignore": ".gitignore"}.get(name, name), entry.read_bytes()


def _is_demo(directory: Path) -> bool:
    return (directory / ".git").is_dir() and MARK in git(directory, "config", "--local", "--list")


def _set_aside(directory: Path) -> None:
    """Empty an earlier demo's work tree; its history keeps everything that was in it."""
    git(directory, "add", "-A")
    git(directory, "commit", "-q", "--allow-empty", "-m", "Keep what was there")
    if git(directory, "ls-files"):
        git(directory, "rm", "-rfq", "--", ".")


def _new_repository(directory: Path) -> None:
    git(directory, "init", "-q", "--template=")
    git(directory, "symbolic-ref", "HEAD", "refs/heads/main")
    settings = {
        MARK: "true",
        "user.name": "codex-self-iter demo",
        "user.email": "demo@localhost",
        "commit.gpgSign": "false",  # the person's own signing and hooks have no business here
        "core.hooksPath": os.devnull,
        "core.autocrlf": "false",
    }
    for key, value in settings.items():
        git(directory, "config", key, value)
