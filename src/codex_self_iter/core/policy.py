"""The rules a loop is decided by: frozen values, already validated at the border (settings)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from codex_self_iter.core.terms import Mode, Role


@dataclasses.dataclass(frozen=True, slots=True)
class SessionPolicy:
    """Bounds of one resumed thread. 0 means no bound.

    Attributes:
        resume: False gives every run a fresh session.
        max_turns: runs in one thread; max_tokens: its tokens; max_sec: its age."""

    resume: bool = False
    max_turns: int = 20
    max_tokens: int = 0
    max_sec: float = 86_400.0


@dataclasses.dataclass(frozen=True, slots=True)
class AgentPolicy:
    """One agent that may take a run. Loops whose agents share an `account` wait for its limits
    together. `steers`: its running turn takes messages."""

    name: str
    account: str
    session: SessionPolicy = SessionPolicy()
    steers: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """What the loop may spend; 0 means no bound. Hours are hours of agent runs, days are UTC
    days."""

    max_tokens: int = 0
    max_cost_usd: float = 0.0
    max_hours: float = 0.0
    max_tokens_per_day: int = 0
    max_cost_usd_per_day: float = 0.0
    max_hours_per_day: float = 0.0
    notice_at: float = 0.8


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """Everything `decide` may look at beside state and event. Durations are seconds.

    Attributes:
        agents: for each role the agents that may take it, preferred first.
        no_change_gate: iterations in a row without a change before the loop waits; 0 = never.
        commit: True when the supervisor commits what an iteration changed.
        finish_on_term: SIGTERM lets the running iteration end first."""

    agents: Mapping[Role, tuple[AgentPolicy, ...]]
    mode: Mode = Mode.GOAL
    max_iterations: int = 0
    max_stagnation: int = 12
    max_consecutive_errors: int = 10
    max_outage_sec: float = 259_200.0
    no_change_gate: int = 1
    backoff_base_sec: float = 5.0
    backoff_max_sec: float = 900.0
    no_change_backoff_sec: float = 30.0
    continue_false_backoff_sec: float = 300.0
    planner_stop_backoff_sec: float = 600.0
    completion_promise: str = "PLAN_COMPLETE"
    verify_commands: tuple[str, ...] = ()
    verify_every_iteration: bool = False
    item_checks: bool = False
    confirmations: int = 0
    require_plan_done: bool = False
    budget: BudgetPolicy = BudgetPolicy()
    commit: bool = False
    checkpoints: bool = True
    on_orphan: str = "adopt"
    finish_on_term: bool = False

    @property
    def roles(self) -> tuple[Role, ...]:
        """The runs of one iteration, in order."""
        if self.mode is Mode.ROLES:
            return (Role.PLANNER, Role.EXECUTOR, Role.REVIEWER)
        return (Role.EXECUTOR,)
