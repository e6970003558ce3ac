"""From settings to the core's frozen rules, the adapters' own configuration, and bounds of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from codex_self_iter.agents import catalog
from codex_self_iter.agents.base import Agent, AgentConfig, AgentMissingError, Request
from codex_self_iter.agents.cli_agent import CliAgent
from codex_self_iter.agents.pricing import Price
from codex_self_iter.core.agent_names import AUTO, READ_NO_TASK
from codex_self_iter.core.policy import AgentPolicy, BudgetPolicy, Policy, SessionPolicy
from codex_self_iter.core.runs import RunLimits
from codex_self_iter.core.terms import Mode, Role
from codex_self_iter.errors import UsageError
from codex_self_iter.settings import Settings
from codex_self_iter.settings.agent_tables import CliSettings
from codex_self_iter.settings.in_image import image_of
from codex_self_iter.settings.paths import ResolvedPaths
from codex_self_iter.settings.templates import HOW_AGENT, NO_AGENT

MAIN = (Role.PLANNER, Role.EXECUTOR, Role.REVIEWER)


class Configured(NamedTuple):
    """Settings and what was made of them; `found`: the agents whose program is there."""

    settings: Settings
    agents: Mapping[str, Agent]
    policy: Policy
    found: frozenset[str] = frozenset()


def configure(settings: Settings, paths: ResolvedPaths, environ: Mapping[str, str]) -> Configured:
    """Raises UsageError, also when no agent of a role can be started."""
    agents = make_agents(settings, environ)
    policy = make_policy(settings, agents, environ)
    missing: dict[str, AgentMissingError] = {}
    for name, agent in agents.items():
        try:
            agent.prepare(_probe(paths, environ, Role.EXECUTOR))
        except AgentMissingError as error:
            missing[name] = error
    for role in policy.roles:
        names = [agent.name for agent in policy.agents[role]]
        if missing.keys() >= set(names):
            raise missing[names[0]]
    return Configured(settings, agents, policy, frozenset(agents) - missing.keys())


def _probe(paths: ResolvedPaths, environ: Mapping[str, str], role: Role) -> Request:
    """A request for looking whether an agent can be started; nothing is."""
    nowhere, workspace = str(paths.state_dir / "probe"), str(paths.workspace)
    return Request("", nowhere, workspace, str(paths.plan), nowhere, role, environment=environ)


def program_of(agent: Agent, paths: ResolvedPaths, environ: Mapping[str, str]) -> str:
    """Path of the program that a run would start. Raises UsageError when there is none."""
    return agent.prepare(_probe(paths, environ, Role.EXECUTOR)).argv[0]


def run_limits(settings: Settings, agent: Agent | None = None) -> RunLimits:
    """The bounds of a run; of this agent's, where one is named."""
    return RunLimits(
        wall_sec=float(settings.command_timeout_sec),
        idle_sec=float(settings.idle_timeout_sec),
        memory_bytes=settings.memory_limit_mb * 2**20,
        kill_grace_sec=float(settings.kill_grace_sec),
        output_bytes=int(settings.output.max_run_mb * 2**20),
        noise_cores=getattr(agent, "noise_cores", CliAgent.noise_cores),
    )


def agent_names(settings: Settings, environ: Mapping[str, str]) -> dict[Role, tuple[str, ...]]:
    """The agents of each role, preferred first. Raises UsageError when "auto" finds none."""
    first: str = settings.agent
    if first == "auto":
        if settings.agents.order:
            first = settings.agents.order[0]
        elif settings.agent_command_template:
            first = "command"
        else:
            configs = {name: _config(settings, name) for name in AUTO}
            first = catalog.detect(environ, configs) or ""
            if not first:
                raise UsageError(f"{NO_AGENT}: {HOW_AGENT}")
    order = tuple(dict.fromkeys((first, *settings.agents.order)))
    names: dict[Role, tuple[str, ...]] = {}
    for role in MAIN:
        own = getattr(settings.roles, role.value) if settings.mode == "roles" else ""
        names[role] = tuple(dict.fromkeys((own, *order))) if own else order
    return names


def need_reader(name: str) -> None:
    """Raises UsageError where the agent that is to do a task in words reads none."""
    if name in READ_NO_TASK:
        what = f"{name} does what stands in a plan and reads no task in words"
        raise UsageError(f"{what}; name another agent, or write a plan and leave the task out")


def _config(settings: Settings, name: str) -> AgentConfig:
    table = settings.agents.get(name)
    prices = {model: Price(**price.model_dump()) for model, price in settings.prices.items()}
    own = _same(AgentConfig, table)
    own |= {"mode": settings.agent_mode, "template": settings.agent_command_template}
    own |= {"image": image_of(settings, name)}
    own |= {"kill_grace_sec": float(settings.kill_grace_sec)}
    own |= {"fenced": (table.fence.level or settings.fence.level) == "write"}
    return AgentConfig(name, **own, prices=prices)


def make_agents(settings: Settings, environ: Mapping[str, str]) -> dict[str, Agent]:
    """The adapters that this loop may use, by name. Raises UsageError."""
    used = {name for names in agent_names(settings, environ).values() for name in names}
    return {name: catalog.get(name, _config(settings, name)) for name in sorted(used)}


def make_policy(
    settings: Settings, agents: Mapping[str, Agent], environ: Mapping[str, str]
) -> Policy:
    """The rules for `decide`."""
    accounts = {name: agent.account(environ) for name, agent in agents.items()}

    def policy_of(name: str) -> AgentPolicy:
        table = settings.agents.get(name)
        session = SessionPolicy()
        if isinstance(table, CliSettings):
            session = SessionPolicy(
                resume=table.resume,
                max_turns=table.resume_max_turns,
                max_tokens=table.resume_max_tokens,
                max_sec=table.resume_max_hours * 3600.0,
            )
        return AgentPolicy(name, accounts[name], session, getattr(agents[name], "steers", False))

    by_role = agent_names(settings, environ)
    own = {**_same(Policy, settings), **_same(Policy, settings.verify)} | {
        "agents": {role: tuple(map(policy_of, names)) for role, names in by_role.items()},
        "mode": Mode(settings.mode),
        "no_change_gate": int(settings.no_change_gate),
        "verify_commands": settings.verify.commands,
        "verify_every_iteration": settings.verify.every_iteration,
        "budget": budget_of(settings),
        "commit": settings.git.commit == "supervisor",
        "checkpoints": settings.git.checkpoints,
        "finish_on_term": settings.service.on_stop == "finish",
    }
    return Policy(**own)


def budget_of(settings: Settings) -> BudgetPolicy:
    """What may be spent."""
    return BudgetPolicy(**_same(BudgetPolicy, settings.budget))


def _same(kind: Any, table: object) -> dict[str, Any]:
    """The values of a table's keys that the dataclass `kind` has under the same name."""
    names = (field.name for field in dataclasses.fields(kind))
    return {name: getattr(table, name) for name in names if hasattr(table, name)}
