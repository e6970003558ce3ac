"""What the checks of `doctor` share: a finding, what they look at, and asking a program a
question.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from codex_self_iter.settings import ResolvedPaths, Settings, resolve_paths

Status = Literal["ok", "warn", "fail"]
_ASK_SEC = 15.0
_ANSWER_BYTES = 16 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One result.

    Attributes:
        id: stable, `part.detail`.
        status: "fail" would stop or spoil a run; "warn" may; "ok" does not.
        what: one line for people.
        mend: the command or the edit that mends it; "" for "ok".
        loop: name of the loop, where there are several.
    """

    id: str
    status: Status
    what: str
    mend: str = ""
    loop: str = ""


def good(name: str, what: str) -> Finding:
    """Nothing to mend."""
    return Finding(name, "ok", what)


def warn(name: str, what: str, mend: str) -> Finding:
    """May spoil a run."""
    return Finding(name, "warn", what, mend)


def fail(name: str, what: str, mend: str) -> Finding:
    """Would stop or spoil a run."""
    return Finding(name, "fail", what, mend)


@dataclasses.dataclass(frozen=True)
class Context:
    """What the checks look at. `now` is the wall clock in Unix seconds."""

    settings: Settings
    environ: Mapping[str, str]
    now: float
    run_gates: bool = False

    @functools.cached_property
    def paths(self) -> ResolvedPaths:
        """The loop's paths; they need not exist."""
        return resolve_paths(self.settings)

    @property
    def workspace(self) -> str:
        """The workspace's path."""
        return str(self.paths.workspace)

    @property
    def quoted(self) -> str:
        """The workspace's path as a shell takes it."""
        return shlex.quote(self.workspace)

    @property
    def has_workspace(self) -> bool:
        """Whether there is a directory to look into; if not, one finding has said so."""
        return os.path.isdir(self.workspace)


Check = Callable[[Context], Iterable[Finding]]


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a program said. `code` is None when it did not start or did not answer in time."""

    code: int | None
    text: str

    @property
    def ok(self) -> bool:
        """True for exit code 0."""
        return self.code == 0


def ask(
    argv: Sequence[str], context: Context, *, timeout_sec: float = _ASK_SEC, cwd: str | None = None
) -> Answer:
    """Run a program that answers soon; stdout and stderr together, bounded in time and size."""
    environ = {
        **context.environ,
        "LC_ALL": "C",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }
    try:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return Answer(None, error.strerror or str(error))
    try:
        output, _ = process.communicate(timeout=timeout_sec)
    except subprocess.TimeoutExpired:
        return Answer(None, f"no answer within {timeout_sec:g} s")
    finally:
        _end(process)
    return Answer(process.returncode, output[-_ANSWER_BYTES:].decode("utf-8", "replace").strip())


def _end(process: subprocess.Popen[bytes]) -> None:
    """End whatever the program left in its session, and close our end."""
    try:
        os.killpg(process.pid, 9)
    except (ProcessLookupError, PermissionError):
        pass
    if process.stdout is not None:
        process.stdout.close()
    process.wait()
