"""The defaults stand in the schema; the core's own, which its tests use, are the same."""

from __future__ import annotations

from codex_self_iter.core.policy import AgentPolicy, Policy
from codex_self_iter.core.runs import RunLimits
from codex_self_iter.core.terms import Role
from codex_self_iter.settings import Settings
from codex_self_iter.supervisor.configured import make_agents, make_policy, run_limits


def test_the_core_has_the_defaults_of_the_schema() -> None:
    settings = Settings(agent="plan-shell")
    made = make_policy(settings, make_agents(settings, {}), {})
    (agent,) = made.agents[Role.EXECUTOR]
    assert made == Policy(made.agents)
    assert agent == AgentPolicy(agent.name, agent.account)
    limits, own = run_limits(settings), RunLimits()
    assert (limits.kill_grace_sec, limits.output_bytes) == (own.kill_grace_sec, own.output_bytes)


def test_negative_control_another_value_differs() -> None:
    settings = Settings(agent="plan-shell", max_stagnation=11)
    made = make_policy(settings, make_agents(settings, {}), {})
    assert made != Policy(made.agents)
