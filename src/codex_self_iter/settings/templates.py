"""Task and plan as `init` writes them, and what is said where something is still to be done."""

from codex_self_iter.core.plan import parse_plan
from codex_self_iter.core.plan_lint import PLAN

TASK = """\
# Task

What is wanted, in your own words: the goal, the limits, what "done" means. The agent reads this file at every
iteration; an edit takes effect with the next one.

- Goal:
- Must not:
- Done when:
"""


PLAN_TO_MAKE = """\
# Plan

- [ ] Make this plan: read the task and the code, then write here, instead of this line, small steps in their order, each
      as `- [ ] step`, indented below it `check: COMMAND` that proves it, and begin with the first
"""
"""What stands in for the plan of a task that was given in words, until the agent has made one."""

NO_GATE = "no gate is configured: a completion is believed without proof"
NO_REPOSITORY = "the workspace is no git repository: changes are judged by content alone and cannot be taken back"
NO_AGENT = "no agent was found"
HOW_AGENT = (
    "install codex, claude, gemini or opencode, or set agent_command_template (or agent = "
    '"plan-shell" for a plan of shell commands)'
)
"""What `init`, `doctor` and the start say with the same words."""
_LINES = frozenset(line.strip() for line in (TASK + PLAN).splitlines())


def unwritten(what: str, path: str, text: str) -> str:
    """What to say of a task or plan (`what`) that says nothing yet, or no longer; "" for any
    other. A "; " stands before what is to be done."""
    lines = [line.strip() for line in text.splitlines()]
    if any(lines) and _LINES.issuperset(lines):
        return f"{path} is still as `init` wrote it; write down what is wanted"
    if what == "task" and not any(lines):
        return f"{path} is empty; write down what is wanted"
    plan = parse_plan(text) if what == "plan" else None
    if plan and plan.total and all(item.ticked for item in plan.items):
        return f"every item of {path} is ticked; add what is to be done"
    return ""
