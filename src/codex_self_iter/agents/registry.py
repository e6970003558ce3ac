"""Names to adapters, and which of them are installed here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from codex_self_iter.agents.base import Agent, AgentConfig, AgentMissingError
from codex_self_iter.agents.claude import ClaudeAgent
from codex_self_iter.agents.codex import CodexAgent
from codex_self_iter.agents.command import CommandAgent
from codex_self_iter.agents.gemini import GeminiAgent
from codex_self_iter.agents.opencode import OpencodeAgent
from codex_self_iter.agents.plan_shell import PlanShellAgent
from codex_self_iter.errors import UsageError

_CLIS: Mapping[str, type[CodexAgent | ClaudeAgent | GeminiAgent | OpencodeAgent]] = {
    "codex": CodexAgent,
    "claude": ClaudeAgent,
    "gemini": GeminiAgent,
    "opencode": OpencodeAgent,
}
_MAKERS: Mapping[str, Callable[[AgentConfig], Agent]] = {
    **_CLIS,
    "command": CommandAgent,
    "plan-shell": PlanShellAgent,
}

NAMES: tuple[str, ...] = tuple(_MAKERS)
"""Every adapter."""
DETECTED: tuple[str, ...] = tuple(_CLIS)
"""The adapters that `detect` looks for, in order; never plan-shell, which runs commands from the
plan.
"""


def get(name: str, config: AgentConfig | None = None) -> Agent:
    """The adapter of this name. Raises UsageError for an unknown one, with the nearest known."""
    maker = _MAKERS.get(name)
    if maker is None:
        near = difflib.get_close_matches(name, NAMES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"unknown agent {name!r}; known are {', '.join(NAMES)}{hint}")
    return maker(config or AgentConfig(name))


def installed(
    environment: Mapping[str, str], configs: Mapping[str, AgentConfig] | None = None
) -> list[str]:
    """The agent CLIs that are installed here, in order of preference. Starts nothing."""
    return [name for name in DETECTED if _found(name, (configs or {}).get(name), environment)]


def detect(
    environment: Mapping[str, str], configs: Mapping[str, AgentConfig] | None = None
) -> str | None:
    """The first agent CLI that is installed here, or None."""
    return next(iter(installed(environment, configs)), None)


def _found(name: str, config: AgentConfig | None, environment: Mapping[str, str]) -> bool:
    try:
        _CLIS[name](config or AgentConfig(name)).find(environment)
    except AgentMissingError:
        return False
    return True
