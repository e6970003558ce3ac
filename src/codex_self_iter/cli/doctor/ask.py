"""Asking a program a question that it answers soon."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Sequence

from codex_self_iter.cli.doctor.finding import Context

_ASK_SEC = 15.0
_ANSWER_BYTES = 16 * 1024
_ENVIRONMENT = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


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
    environ = {**context.environ, **_ENVIRONMENT}
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
