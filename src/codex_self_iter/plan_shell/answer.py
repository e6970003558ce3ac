"""The control block that ends a run of plan-shell."""

from __future__ import annotations

import dataclasses
import json

from codex_self_iter.core.plan import Item, Plan


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What one run has to say, and its exit code.

    `exit_code` is 0 when the run did what it could do, 1 when a command of the plan failed: the
    loop then counts an error, backs off and tries the same item again."""

    summary: str
    reason: str
    next_goal: str = ""
    evidence: tuple[str, ...] = ()
    stop: bool = False
    completed: bool = False
    exit_code: int = 0

    def render(self) -> str:
        """The control block as a fenced JSON object."""
        fields = {
            "summary": self.summary,
            "next_goal": self.next_goal,
            "stop": self.stop,
            "reason": self.reason,
            "evidence": list(self.evidence),
            "completed": self.completed,
        }
        # a plan may hold bytes that are no UTF-8; JSON may not
        data = json.dumps(fields, ensure_ascii=False, indent=2).encode("utf-8", "replace")
        return f"```json\n{data.decode()}\n```"


def goal_for(plan: Plan, item: Item) -> str:
    """The goal that names an item, different for every item of the plan."""
    return f"Plan item {plan.items.index(item) + 1} of {plan.total} (line {item.line}): {item.text}"
