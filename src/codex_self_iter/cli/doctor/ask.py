"""Asking a program a question that it answers soon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from codex_self_iter.agents import probe
from codex_self_iter.cli.doctor.finding import Context

_ASK_SEC = 15.0
_ENVIRONMENT = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


class Answer(NamedTuple):
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
    return Answer(*probe.ask(argv, {**context.environ, **_ENVIRONMENT}, timeout_sec, cwd))
