"""The draft of a plan: what counts as one in an answer, and what as a question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_self_iter.core.drafting import MAX_QUESTIONS, Draft, ask, read
from codex_self_iter.core.plan import parse_plan

ITEMS = "- [ ] one\n  check: true\n- [ ] two\n"
PLAN = f"# Plan\n\n{ITEMS}"


@pytest.mark.parametrize(
    ("answer", "plan"),
    [
        (PLAN, PLAN),
        (f"I have read it.\n\n{PLAN}", PLAN),
        (f"# What I found\n\nmuch\n\n{PLAN}", PLAN),
        (f"Here it is:\n\n```markdown\n{PLAN}```\n", PLAN),
        (f"Here it is:\n\n```\n{PLAN}```\nGood luck!\n", PLAN),
        (f"First thoughts\n\n```\n- [ ] a draft\n```\n\nFinal:\n\n```md\n{PLAN}```", PLAN),
        (f"## The plan for it\n\n{ITEMS}", f"## The plan for it\n\n{ITEMS}"),
        (f"Steps:\n\n{ITEMS}", ITEMS),
        (f"# Plan\n\nSome words on the order.\n\n## Part one\n\n{ITEMS}",
         f"# Plan\n\nSome words on the order.\n\n## Part one\n\n{ITEMS}"),
        ("# Plan\n\n- [ ] run it\n\n```sh\nmake\n```\n\n- [ ] next\n",
         "# Plan\n\n- [ ] run it\n\n```sh\nmake\n```\n\n- [ ] next\n"),
    ],
)  # fmt: skip
def test_the_plan_of_an_answer(answer: str, plan: str) -> None:
    assert read(answer) == Draft(plan=plan)


@pytest.mark.parametrize(
    ("answer", "questions"),
    [
        ("? Which one?\n?  By   when?", ("Which one?", "By when?")),
        ("I wonder.\n\n ? Which one?\n", ("Which one?",)),
        ("? a\n? b\n? c\n? d\n", ("a", "b", "c")),
        ("Which one? By when?", ()),
        ("# Plan\n\nno steps at all\n", ()),
        ("", ()),
    ],
)
def test_the_questions_of_an_answer(answer: str, questions: tuple[str, ...]) -> None:
    assert read(answer) == Draft(questions=questions)


def test_a_plan_goes_before_questions() -> None:
    assert read(f"? Is that all right?\n\n{PLAN}") == Draft(plan=PLAN)


@given(st.text(alphabet="#`~- []x?\nab", max_size=200))
def test_whatever_is_answered_a_plan_has_items(answer: str) -> None:
    found = read(answer)
    assert not found.plan or parse_plan(found.plan).total
    assert len(found.questions) <= MAX_QUESTIONS


def test_a_prompt_shows_what_there_is_and_is_itself_no_plan() -> None:
    text = ask("the task", "", [], may_ask=True)
    assert "the task" in text
    assert "begins with `? `" in text
    assert "plan so far" not in text
    assert read(text) == Draft()
    again = ask("the task", PLAN, ["one", "two"], may_ask=False)
    assert PLAN in again
    assert "one\n\ntwo" in again
    assert "Ask nothing" in again
