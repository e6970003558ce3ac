"""Which of our variables an agent gets. Pure.

Everything, less what looks secret, plus what this agent needs, `pass_env` and `env`. An agent hands
its environment on to every tool that it runs, so a key that it does not need is a key that can
leak."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

from codex_self_iter.core.secrets import SECRETS

# Traces of an agent around us (a supervisor started from within one): they would change how ours
# behaves.
_FOREIGN = re.compile(
    r"^(CODEX_(THREAD_ID|SESSION_ID|TOOL_CALL_ID|CI|SANDBOX.*)"
    r"|CLAUDECODE|CLAUDE_CODE_(ENTRYPOINT|SESSION_ID|SSE_PORT))$"
)

_OURS = "CODEX_SELF_ITER_"
MODE = "CODEX_SELF_ITER_AGENT_MODE"
"""Tells a program that no adapter knows in which mode it is to work."""

_FOR_AGENTS = frozenset((_OURS + "LANE", _OURS + "PORT_BASE"))
"""Which lane of a plan they work in, and its ports."""

_withheld = functools.lru_cache(1024)(SECRETS.withheld)  # each run asks of the same variables


def agent_environment(
    ours: Mapping[str, str],
    *,
    needed: Iterable[str] = (),
    passed: Iterable[str] = (),
    extra: Mapping[str, str] | None = None,
    configured: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Make an agent's complete environment.

    Args:
        ours: the supervisor's environment.
        needed: names, or beginnings of names that end in `*`, that this agent needs even if they
            look secret.
        passed: the configured `pass_env`, in the same form.
        extra: set by the adapter.
        configured: the configured `env`; wins over everything."""
    exact, prefixes = _patterns((*needed, *passed))
    asked = _patterns(tuple(passed))
    env: dict[str, str] = {}
    for name, value in ours_out(ours).items():
        if _FOREIGN.match(name) and not _matches(name, *asked):
            continue
        if not _withheld(name, value) or _matches(name, exact, prefixes):
            env[name] = value
    return env | dict(extra or {}) | dict(configured or {})


def ours_out(environment: Mapping[str, str]) -> dict[str, str]:
    """Without our own settings: they are nobody else's, but for those that are made for agents."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_OURS) or name in _FOR_AGENTS
    }


def _patterns(names: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    exact = frozenset(name for name in names if not name.endswith("*"))
    return exact, tuple(name[:-1] for name in names if name.endswith("*"))


def _matches(name: str, exact: frozenset[str], prefixes: tuple[str, ...]) -> bool:
    return name in exact or name.startswith(prefixes)
