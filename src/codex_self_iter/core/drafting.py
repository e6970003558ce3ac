"""The draft of a plan: what an agent is asked, and what it answered. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from codex_self_iter.core.plan import parse_plan

MAX_QUESTIONS = 3
_HEADING = re.compile(r"^#{1,2}[ \t]+\S.*$", re.MULTILINE)
_ITEM = re.compile(r"^(?:[-*+]|\d+[.)])[ \t]+\[[ xX]\]", re.MULTILINE)
_QUESTION = re.compile(r"^[ \t]*\?[ \t]+(\S.*)$", re.MULTILINE)
_FENCE = re.compile(r"^(`{3,}|~{3,})[ \t]*(?:markdown|md)?[ \t]*\n(.*?)^\1[ \t]*$", re.M | re.S)


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """What an agent answered: a plan ("" for none), or questions."""

    plan: str = ""
    questions: tuple[str, ...] = ()


_INTRO = """\
You plan work in a repository; you change nothing. Read the code as far as the task needs it, then
write the plan by which an agent will work, one step at a time.
"""
_ANSWER = """\
# How to answer

End your answer with the whole plan in Markdown, and nothing after it. It begins with the line
`# Plan`. Its steps stand in the order in which they are done, each small enough for one sitting, as
`- [ ] STEP`; indented below each stands `check: COMMAND`, the command that succeeds when the step
is done, wherever a command can tell.
"""
_MAY_ASK = f"""\
If you cannot plan without knowing something, answer instead with at most {MAX_QUESTIONS} questions,
each on a line of its own that begins with `? `.
"""
_ASK_NOTHING = "Ask nothing: decide, and say in the plan what you decided.\n"


def ask(task: str, plan: str, said: Sequence[str], *, may_ask: bool) -> str:
    """The prompt. `plan`: the draft before, "" for none; `said`: what the person wants different,
    and has answered, oldest first."""
    parts = [_INTRO, f"# Task\n\n{task.strip()}\n"]
    if plan:
        parts.append(f"# The plan so far\n\n{plan.strip()}\n")
    if said:
        wishes = "\n\n".join(said)
        parts.append(f"# What the person in charge says\n\n{wishes.strip()}\n")
    return "\n".join([*parts, _ANSWER, _MAY_ASK if may_ask else _ASK_NOTHING])


def read(answer: str) -> Draft:
    """The plan at the end of an answer, or its questions."""
    fenced = [found[2] for found in _FENCE.finditer(answer) if _ITEM.search(found[2])]
    plan = fenced[-1] if fenced else _from_heading(answer)
    if parse_plan(plan).total:
        return Draft(plan=plan.strip() + "\n")
    asked = [" ".join(question.split()) for question in _QUESTION.findall(answer)]
    return Draft(questions=tuple(asked[:MAX_QUESTIONS]))


def _from_heading(answer: str) -> str:
    """From the last heading before the first item on, else from the first item."""
    item = _ITEM.search(answer)
    if item is None:
        return ""
    headings = [found.start() for found in _HEADING.finditer(answer, 0, item.start())]
    named = [at for at in headings if "plan" in answer[at:].partition("\n")[0].lower()]
    return answer[(named or headings[-1:] or [item.start()])[-1] :]
