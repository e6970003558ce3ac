"""The agents' names: the one table. The adapter of `plan-shell` is the class `PlanShellAgent` in
`agents/plan_shell.py`, and so for every name that no row of `core.acp_agents` has; settings and
command line take their names here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from codex_self_iter.core.acp_agents import ACP_AGENTS

NATIVE: tuple[str, ...] = ("codex", "claude", "gemini", "opencode")
"""CLIs that have an adapter of their own."""
CLIS: tuple[str, ...] = (*NATIVE, *(name for name in ACP_AGENTS if name not in NATIVE))
"""Programs of their own."""
AUTO: tuple[str, ...] = tuple(name for name in CLIS if name in NATIVE or ACP_AGENTS[name].measured)
"""Those that "auto" looks for, in this order: a program that only has the name of one that nobody
has measured may be something else."""
NAMES: tuple[str, ...] = (*CLIS, "acp", "command", "plan-shell")
"""Every agent. Those that are no CLI run what the person wrote: they are only asked for by name."""

if TYPE_CHECKING:
    AgentName = str
    AgentChoice = str
    OptionalAgent = str
else:
    AgentName = Literal[NAMES]
    AgentChoice = Literal[("auto", *NAMES)]
    OptionalAgent = Literal[("", *NAMES)]

READ_NO_TASK: tuple[str, ...] = ("plan-shell",)
"""They never look at the prompt: what is not in the plan is not done."""
