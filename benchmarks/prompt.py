"""How large our part of a prompt is beside task and plan, in bytes and estimated tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from codex_self_iter.core.prompt import PromptInputs, build
from codex_self_iter.core.state import PlannerAnswer
from codex_self_iter.core.terms import Role

TOKEN_BYTES = 4
"""Bytes of a token, as a rule of thumb for English and code."""
PLAN = "\n".join(
    f"- [{'x' if n < 12 else ' '}] step {n}: change a module and add its test; check: `pytest -q`"
    for n in range(30)
)
TASK = "What is wanted, in the words of a person. " * 70
SUMMARY = "Added the parser for one more section, with tests for empty and broken input. " * 5
BASE = PromptInputs(
    Role.EXECUTOR, 17, PLAN, TASK, "The next open item", promise="PLAN_COMPLETE",
    gates=("pytest -q",),
)  # fmt: skip
DONE = tuple({"iteration": n, "verdict": "continue", "summary": SUMMARY} for n in range(8))
LOST = tuple(
    {"iteration": n, "verdict": "error", "failure_class": "overload", "error": "x" * 450}
    for n in range(8, 17)
)
LONG = tuple({"iteration": n, "verdict": "continue", "summary": "s" * 5_000} for n in range(20))
CASES: dict[str, PromptInputs] = {
    "the first iteration": dataclasses.replace(BASE, goal=""),
    "with 8 iterations of history": dataclasses.replace(BASE, history=DONE),
    "with those and 9 failed tries since": dataclasses.replace(BASE, history=DONE + LOST),
    "with a gate's whole output": dataclasses.replace(BASE, history=DONE, feedback="o" * 8_000),
    "all that is bounded, at its bound": dataclasses.replace(
        BASE, history=LONG, feedback="f" * 50_000, warnings=("w" * 50_000,)
    ),
    "too long for the model: shortened": dataclasses.replace(
        BASE, plan_path="/w/plan.md", task_path="/w/TASK.md"
    ),
    "planner, with history": dataclasses.replace(BASE, role=Role.PLANNER, history=DONE),
    "reviewer, with history": dataclasses.replace(
        BASE,
        role=Role.REVIEWER,
        history=DONE,
        planner=PlannerAnswer("o" * 100, "p" * 1_500, "d" * 200, "", False),
        block={"summary": SUMMARY, "evidence": ["pytest -q: 1200 passed"]},
        gate_results=({"command": "pytest -q", "ok": True, "output": "1200 passed"},),
    ),
}


def sizes() -> Iterator[tuple[str, int, int]]:
    """(case, bytes of ours, bytes of task and plan as the prompt shows them)."""
    for name, inputs in CASES.items():
        text = build(inputs)
        theirs = sum(len(part) for part in (TASK.strip("\n"), PLAN) if part in text)
        yield name, len(text.encode()) - theirs, theirs


def show() -> None:
    """Print them."""
    for name, ours, theirs in sizes():
        tokens = round(ours / TOKEN_BYTES)
        print(f"prompt: {name}: {ours} bytes, {tokens} tokens, beside {theirs} bytes")
