"""What a lane's agent is told."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from codex_self_iter.core.evidence import GateResult, gate_end
from codex_self_iter.core.lanes import Lane
from codex_self_iter.core.text import both_ends, counted, listed

MOST_DIFF = 12_000
"""Characters of the other side's changes that are shown."""
MOST_OUTPUT = 8_000
MOST_COMPARED = 40_000
PORTS = 100
"""So many each lane has for itself."""


AGAIN = {
    "conflict": "Solve the conflicts with what has landed since",
    "red": "Make the gates green together with what has landed since",
    "unchanged": "Do the item, or say why there is nothing to do",
    "dirty": "Commit what belongs to the item, and remove the rest",
    "asked": "Do what the item says now",
}
"""By why work has come back: what its plan has more."""


def plan(lane: Lane) -> str:
    """The plan of a lane: its item alone."""
    return f"# Plan of this lane\n\n{lane.body}\n"


def task(text: str, plan: str, lane: Lane, port: int) -> str:
    """The task of a lane: the person's own words, and what a lane is."""
    head = f"{text.rstrip()}\n\n" if text.strip() else ""
    return (
        f"{head}# One item of a larger plan\n\n"
        f"You work on item {lane.number} of {os.path.basename(plan)} and on nothing else, in a work "
        "tree of your own. Others work on other items at the same time, in theirs. What you finish "
        "is merged with what they have finished, and the gates run once more on both together.\n\n"
        f"- Leave the repository's {os.path.basename(plan)} as it is: the item is ticked there when your work has "
        "landed. Your own plan has this item alone.\n"
        "- Stay in this directory: do not switch to a branch, do not touch other work trees, and do not "
        "use `git stash`: all work trees have one stash, and it is not yours.\n"
        "- Change what the item needs, and no more: each further line may meet somebody else's.\n"
        f"- Of ports, {port} to {port + PORTS - 1} are yours "
        "(CODEX_SELF_ITER_PORT_BASE names the first).\n"
    )


def conflict(
    lane: Lane, target: str, files: Sequence[str], others: Iterable[str], theirs: str, said: str
) -> str:
    """The goal after a conflict. `others`: the items that have landed since; `theirs`: what they
    have changed in these files; `said`: git's own words."""
    items = "".join(f"\n    {line}" for text in others for line in text.splitlines())
    return (
        f"What you have done meets what has landed on {target} since: {listed(files, 20)}. Both are "
        "merged in your work tree now, with conflict markers (<<<<<<<, =======, >>>>>>>) where they "
        "meet. Go through each of these files, keep what both sides want, take every marker out, and "
        "run the gates.\n\n"
        f"Your item:\n    " + "\n    ".join(lane.body.splitlines()) + "\n\n"
        f"What has landed since:{items or ' see the changes below'}\n\n"
        f"git says:\n{both_ends(said, 2_000)}\n\n"
        f"Their changes to these files:\n```diff\n{both_ends(theirs, MOST_DIFF)}\n```\n"
    )


def comparison(lanes: Sequence[Lane], diffs: Sequence[str]) -> str:
    """What the reviewer is asked about several candidates for one item."""
    parts = [
        f"Lane {lane.id}, {counted(lane.size, 'line')} changed:\n```diff\n{both_ends(diff, MOST_COMPARED)}\n```\n"
        for lane, diff in zip(lanes, diffs, strict=True)
    ]
    names = ", ".join(f'"{lane.id}"' for lane in lanes)
    return (
        "Several agents have done the same item, each by itself, and the gates are green for each of "
        "them. Say whose work is the best: it does what the item says, and no more; it is right, also "
        "at the edges; it is simple, and fits the code around it. You are at the commit from which they "
        "began; look at the code as far as you need to, and change nothing.\n\n"
        f"# The item\n\n{lanes[0].body}\n\n# What they did\n\n" + "\n".join(parts) + "\n"
        "# How to answer\n\nEnd your answer with one JSON object and nothing after it: "
        f'{{"best": one of {names}, "reason": "why, in one sentence"}}\n'
    )


def red(target: str, results: Sequence[GateResult], strayed: str) -> str:
    """The goal after red gates at the combined commit."""
    said = "".join(
        f"\n`{one.command}` {gate_end(one.to_json())}:\n```\n{both_ends(one.output, MOST_OUTPUT)}\n```\n"
        for one in results
        if not one.ok
    )
    return (
        f"Your work and what has landed on {target} since are merged without a conflict, but the gates "
        "are not green on both together. Your work tree has both now. Find out what does not go "
        f"together, and mend it.\n{said}{strayed}"
    )
