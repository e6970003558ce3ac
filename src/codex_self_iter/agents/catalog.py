"""Names to adapters, which of them are installed here, and whose stream an event belongs to.

The table is in `core.agent_names`. An adapter is imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from codex_self_iter.agents.base import Agent, AgentConfig, AgentMissingError
from codex_self_iter.agents.cli_agent import CliAgent
from codex_self_iter.core.agent_names import AUTO, NAMES, NATIVE
from codex_self_iter.errors import UsageError


def get(name: str, config: AgentConfig | None = None) -> Agent:
    """The adapter of this name. Raises UsageError for an unknown one, with the nearest known."""
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"unknown agent {name!r}; known are {', '.join(NAMES)}{hint}")
    adapter: Agent = _class_of(name, config)(config or AgentConfig(name))
    return adapter


def installed(
    environment: Mapping[str, str], configs: Mapping[str, AgentConfig] | None = None
) -> list[str]:
    """The agent CLIs that are installed here, in order of preference. Starts nothing."""
    return [name for name in AUTO if _found(name, (configs or {}).get(name), environment)]


def detect(
    environment: Mapping[str, str], configs: Mapping[str, AgentConfig] | None = None
) -> str | None:
    """The first agent CLI that is installed here, or None."""
    return next(iter(installed(environment, configs)), None)


def speaker(kind: str, value: Mapping[str, Any]) -> type[CliAgent] | None:
    """The adapter whose CLI says such events (`kind`: their type); None when any could."""
    adapters = map(_class_of, (*NATIVE, "acp"))
    return next((adapter for adapter in adapters if adapter.speaks(kind, value)), None)


def _class_of(name: str, config: AgentConfig | None = None) -> Any:
    """The adapter's class."""
    native = None
    if name in NATIVE or name in ("command", "plan-shell"):
        module = importlib.import_module(f"codex_self_iter.agents.{name.replace('-', '_')}")
        native = getattr(module, name.title().replace("-", "") + "Agent")
        if config is None or config.protocol != "acp":
            return native
    from codex_self_iter.agents.acp import over_acp

    return over_acp(name, native)


def _found(name: str, config: AgentConfig | None, environment: Mapping[str, str]) -> bool:
    try:
        _class_of(name, config)(config or AgentConfig(name)).find(environment)
    except AgentMissingError:
        return False
    return True
