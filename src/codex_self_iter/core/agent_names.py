"""The agents' names: the one table. The adapter of `plan-shell` is the class `PlanShellAgent` in
`agents/plan_shell.py`, and so for every name; settings and command line take their names here."""

from __future__ import annotations

from typing import Literal, get_args

CliName = Literal["codex", "claude", "gemini", "opencode"]
"""Programs of their own, in the order in which "auto" looks for them."""
AgentName = Literal[CliName, "command", "plan-shell"]
"""Every agent. Those that are no CLI run what the person wrote: they are only asked for by name."""

CLIS: tuple[str, ...] = get_args(CliName)
NAMES: tuple[str, ...] = get_args(AgentName)

READ_NO_TASK: tuple[str, ...] = ("plan-shell",)
"""They never look at the prompt: what is not in the plan is not done."""
