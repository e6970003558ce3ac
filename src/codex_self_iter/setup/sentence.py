"""A task in one sentence. It and its plan live in the state directory: nothing of ours is added to
the work tree."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from codex_self_iter.errors import UsageError
from codex_self_iter.settings.paths import OWN_PLAN, OWN_TASK
from codex_self_iter.settings.templates import PLAN_TO_MAKE
from codex_self_iter.world.state.root import StateRoot

MAX_BYTES = 64 * 1024
"""Longer than that it is a document, and better kept in a file."""
NEW_GOAL = "Begin with the new task: make its plan, then do the first step."


def checked(sentence: str) -> str:
    """The sentence as it is used. Raises UsageError."""
    text = sentence.strip()
    if not text:
        raise UsageError('the task is empty; say what is wanted: run "Make the tests pass"')
    if "\0" in text:
        raise UsageError("the task holds a zero byte; say it in plain text")
    size = len(text.encode("utf-8", "replace"))
    if size > MAX_BYTES:
        kib = f"{size // 1024} KiB, more than {MAX_BYTES // 1024}"
        how = "`codex-self-iter plan FILE` makes a plan of it, or --task-file names it beside one"
        raise UsageError(f"the task is {kib}; put it into a file: {how}")
    return text


def take(root: StateRoot, sentence: str, *, own_plan: bool, finished: bool) -> bool:
    """Make it the task; False when it is already, so that the loop goes on with it.

    `finished`: the last task was completed; who says the same again wants it looked at anew.
    `own_plan`: the workspace has no plan, so that one is to be made. An earlier task and plan stay
    beside the new ones, as `task-1.md`, `plan-1.md`… Raises StorageError."""
    last = (root.read(OWN_TASK, MAX_BYTES) or b"").decode("utf-8", "replace").strip()
    known = last == sentence and not finished
    files = {} if known else {OWN_TASK: f"{sentence}\n"}
    if own_plan and not (known and root.look(OWN_PLAN)):
        files = {OWN_PLAN: PLAN_TO_MAKE} | files  # the task last: by it the next start knows
    put(root, files)
    return not known


def put(root: StateRoot, files: Mapping[str, str]) -> None:
    """Write them; what was there stays under a name with a number. Raises StorageError."""
    number = next(n for n in itertools.count(1) if not any(root.look(_kept(f, n)) for f in files))
    for name, text in files.items():
        earlier = _kept(name, number) if root.look(name) else ""
        root.replace(name, text.encode("utf-8", "replace"), keep=earlier)


def _kept(name: str, number: int) -> str:
    return f"-{number}.".join(name.rsplit(".", 1))
