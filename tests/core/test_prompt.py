"""What a prompt holds, verbatim and bounded."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core.control_block import FIELDS, SCHEMA
from codex_self_iter.core.prompt import (
    FEEDBACK_BYTES,
    HISTORY_BYTES,
    PLANNER_SCHEMA,
    REVIEWER_SCHEMA,
    PromptInputs,
    build,
    circling_text,
    history_text,
)
from codex_self_iter.core.state import PlannerAnswer
from codex_self_iter.core.terms import Role

BASE = PromptInputs(Role.EXECUTOR, 12, plan="- [ ] an item of the plan")
texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(
    lambda text: text.strip() != ""
)


def prompt(**changes: Any) -> str:
    return build(dataclasses.replace(BASE, **changes))


@given(texts, texts, texts, texts)
def test_what_people_write_stands_there_verbatim(
    plan: str, task: str, goal: str, message: str
) -> None:
    text = prompt(plan=plan, task=task, goal=goal, messages=[message])
    for part in (plan, task, goal, message):
        assert part.strip("\n") in text


@pytest.mark.parametrize(
    "text", ["{n}", "{workspace}", "{{}}", "%s $HOME `id`", "{0.__class__}", "\\1"]
)
def test_nothing_in_it_is_interpreted(text: str) -> None:
    assert prompt(task=text, goal=text).count(text) == 2


def test_ticks_are_asked_of_the_one_who_does_the_work_while_something_is_open() -> None:
    ticks = "Ticks in the plan"
    assert ticks in prompt(plan_file="plan.md")
    assert ticks not in prompt(plan_file="plan.md", role=Role.REVIEWER)
    assert ticks not in prompt(plan_file="plan.md", role=Role.PLANNER)
    assert ticks not in prompt(plan_file="plan.md", plan="- [x] done\n\nIn words.")


def test_an_executor_is_told_that_nothing_outlives_its_answer() -> None:
    """Agents leave builds in the background and mean to be called when they are done."""
    assert "ends with your answer, also in the background" in prompt()


def test_the_parts_that_are_empty_are_left_out() -> None:
    text = prompt()
    assert [line for line in text.splitlines() if line.startswith("# ")] == [
        "# Plan", "# Current goal", "# How to answer",
    ]  # fmt: skip
    assert "iteration 12" in text
    assert "first open item" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"promise": "DONE_NOW"}, '"DONE_NOW"'),
        ({"promise": ""}, "with exactly these fields"),
        ({"gates": ("pytest -q", "ruff check")}, "- `pytest -q`\n- `ruff check`"),
        ({"commit": "agent"}, "Commit your work"),
        ({"commit": "supervisor"}, "Do not commit"),
        ({"messages": ["one", "two"]}, "1. one\n\n2. two"),
        (
            {"plan": "- [ ] a; check: make"},
            "# Checks in the plan\n\n`check: COMMAND` in an item of the plan names the shell command",
        ),
        ({"plan_file": "docs/p.md"}, "# Plan (the file docs/p.md)\n\n- [ ] an item of the plan"),
        (
            {"plan_file": "{n}.md"},
            "# Ticks in the plan\n\nTick an item in {n}.md, `- [x]`, when it",
        ),
        ({"plan_file": "p.md", "plan_in_place": True}, "and not before. Write that file in place"),
        ({"feedback": "exit 1"}, "# What failed last time\n\nexit 1"),
        ({"circling": circling_text("the goal")}, "take another way"),
        (
            {"planner": PlannerAnswer("", "do this", "it works", "", False)},
            "# The step is done if\n\nit works",
        ),
        (
            {"planner": PlannerAnswer("one parser", "", "", "", False), "role": Role.REVIEWER},
            "# Objective that the planner chose\n\none parser",
        ),
    ],
)
def test_each_condition_has_its_words(changes: dict[str, Any], expected: str) -> None:
    assert expected in prompt(**changes)


@pytest.mark.parametrize(
    ("role", "schema"),
    [(Role.EXECUTOR, SCHEMA), (Role.PLANNER, PLANNER_SCHEMA), (Role.REVIEWER, REVIEWER_SCHEMA)],
)
def test_the_words_and_the_schema_name_the_same_fields(role: Role, schema: Any) -> None:
    text = build(dataclasses.replace(BASE, role=role))
    described = [
        line[2:].split(" ")[0]
        for line in text.splitlines()
        if line.startswith("- ") and "):" in line
    ]
    assert sorted(described) == sorted(schema["properties"]) == sorted(schema["required"])
    assert role is not Role.EXECUTOR or set(described) == set(FIELDS)


def test_only_the_reviewer_sees_the_result() -> None:
    more = {"block": {"summary": "my work"}, "changed_files": ["a.py"],
            "gate_results": [{"command": "true", "ok": False, "exit_code": 2,
            "output": "boom"}]}  # fmt: skip
    assert "my work" not in prompt(**more)
    text = prompt(role=Role.REVIEWER, **more)
    assert '- summary: "my work"' in text
    assert "FAILED (exited with code 2)\nboom" in text
    assert "- a.py" in text


def line(number: int, summary: str, **more: Any) -> dict[str, Any]:
    return {"iteration": number, "verdict": "continue", "summary": summary} | more


def test_the_history_is_in_order_and_names_failing_gates() -> None:
    gates = [{"command": "good", "ok": True}, {"command": "bad", "ok": False}]
    text = history_text(
        [line(1, "first"), line(2, "", error="timed out"), line(3, "third", gates=gates)]
    )
    assert text.splitlines() == [
        "- Iteration 1 (continue): first",
        "- Iteration 2 (continue): timed out",
        "- Iteration 3 (continue): third Gates that failed: bad.",
    ]


def test_failures_are_one_line_between_what_came_to_work() -> None:
    """After an outage the prompt still knows what was done."""
    lost = [
        line(number, "", verdict="error", failure_class="overload", error="x" * 450)
        for number in range(4, 12)
    ]
    lost += [line(12, "", verdict="timed_out", failure_class="agent", has_new_changes=True)]
    done = [line(number, f"work {number}") for number in (1, 2, 3)]
    text = history_text([*done, *lost, line(13, "work 13"), line(14, "", verdict="aborted")])
    assert text.splitlines() == [
        *[f"- Iteration {number} (continue): work {number}" for number in (1, 2, 3)],
        "- Iterations 4 to 12: no answer (8 overload, 1 agent); 1 of them changed content.",
        "- Iteration 13 (continue): work 13",
        "- Iteration 14: no answer (1 aborted).",
    ]


def test_what_is_too_long_is_named_by_its_path() -> None:
    text = prompt(task="THE TASK", plan_path="/w/plan.md", task_path="/w/TASK.md")
    assert "THE TASK" not in text
    assert "an item of the plan" not in text
    assert "Read it in /w/plan.md" in text
    assert "Read it in /w/TASK.md" in text


def test_the_executor_is_given_the_objective_once() -> None:
    planned = PlannerAnswer("one parser", "do this", "", "", False)
    assert prompt(goal="one parser", planner=planned).count("one parser") == 1


@given(st.lists(st.text(max_size=4_000), max_size=40), st.integers(0, 20_000))
def test_the_history_is_bounded_and_keeps_the_newest(summaries: list[str], limit: int) -> None:
    text = history_text(
        [line(number, summary) for number, summary in enumerate(summaries, 1)], limit
    )
    assert len(text.encode("utf-8", "replace")) <= limit + len(summaries)
    if summaries and limit > 2_000:
        assert f"- Iteration {len(summaries)} " in text


def test_long_feedback_keeps_head_and_tail() -> None:
    text = prompt(feedback="HEAD" + "ä" * 200_000 + "TAIL")
    assert "HEAD" in text
    assert "TAIL" in text
    assert "bytes left out" in text
    assert len(text.encode()) < FEEDBACK_BYTES + HISTORY_BYTES


def test_warnings_of_the_supervisor_are_said() -> None:
    told = build(PromptInputs(Role.EXECUTOR, 1, "- [ ] x", warnings=("LINT-SAYS-NO", "b")))
    assert "# Warnings of the supervisor (mend what you can)\n\n1. LINT-SAYS-NO\n\n2. b" in told
    assert "Warnings of the supervisor" not in build(PromptInputs(Role.EXECUTOR, 1, "- [ ] x"))
