"""Task and plan as `init` writes them."""

TASK = """\
# Task

What is wanted, in your own words: the goal, the limits, what "done" means. The agent reads this file at every
iteration; an edit takes effect with the next one.

- Goal:
- Must not:
- Done when:
"""

PLAN = """\
# Plan

One item a line, small enough for one sitting. The agent ticks what is done and may add items.

- [ ] Read the repository and write down here what has to be done, item by item
- [ ] Do the items, each with its tests
- [ ] Check the whole against TASK.md
"""


def untouched(path: str, text: str) -> str:
    """What to say of a task or plan that nobody has written yet; "" for any other."""
    if text.strip() not in (TASK.strip(), PLAN.strip()):
        return ""
    return f"{path} is still as `init` wrote it; write down what is wanted"
