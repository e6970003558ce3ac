"""What the screens read: all loops of this user, and everything of one of them.

Nothing here writes, takes a lock for longer than a look, or trusts what it reads: files are opened
guarded and in bounded pieces, and every text that leaves is free of control characters. Functions
block; a screen calls those that may take long (diff, plan, history) in a thread."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from codex_self_iter.core.foreign import as_dict, as_text
from codex_self_iter.core.plan import parse_plan
from codex_self_iter.core.text import clean, clean_block, typed
from codex_self_iter.errors import StorageError
from codex_self_iter.screens.kept import open_checkpoints
from codex_self_iter.screens.loops import Target, known, look, waiting
from codex_self_iter.screens.outputs import agent_runs, prompts
from codex_self_iter.screens.records import ticked_in
from codex_self_iter.views.plan_view import Line, lines
from codex_self_iter.views.rows import Row, ranked, row
from codex_self_iter.views.summary import Seen, Surroundings
from codex_self_iter.world import registry
from codex_self_iter.world.git.run import complete
from codex_self_iter.world.guarded import read_guarded, stat_or_none
from codex_self_iter.world.state.inbox import GOAL, is_now, is_waiting

MAX_TEXT = 1024 * 1024
"""Characters of a prompt, an answer or a diff that are shown; the commands show all of them."""
MAX_PLAN_BYTES = 4 * 1024 * 1024
MAX_MESSAGE = 16 * 1024
MESSAGES = 200
"""The newest messages that are shown."""
LOOK_SEC, ENDED_SEC = 6.0, 30.0
"""A loop whose `status.json` does not change is looked at anew after so long: one that may be gone
without a word (its heart beats every 5 seconds), and one that has ended."""
BEATS_SEC = 12.0
"""For so long nothing but heartbeats is no reason to read a file anew."""
LEAST_AGAIN = 8
"""So many loops, and at least a quarter of all, are looked at anew in one go because time has passed:
all of a hundred at once would hold up a key."""
_DONE = re.compile(r"(\d{1,12})-(.+)")


class Shown(NamedTuple):
    """A loop, what was seen of it, and its line among all. `name` is unique."""

    name: str
    loop: Target
    seen: Seen
    around: Surroundings
    row: Row


def surroundings(seen: Seen, now: float) -> Surroundings:
    """What the words about a loop need; its commands work from any directory."""

    def there(key: str) -> bool:
        path = seen.status.get(key)
        return isinstance(path, str) and os.path.lexists(path)

    gone = bool(seen.workspace) and not os.path.isdir(seen.workspace)
    return Surroundings(
        now,
        f" --state-dir {typed(seen.state_dir)}"
        if gone
        else f" --workspace {typed(seen.workspace)}",
        gone=gone,
        stop=there("stop_file") or there("global_stop_file"),
        pause=there("pause_file"),
        bar="█░",
        config=as_text(seen.status.get("config")),
    )


def show(name: str, loop: Target, now: float | None = None, *, had: bool = True) -> Shown:
    """A loop as it is at this moment; `had`: it has run before. Never raises."""
    seen = look(loop, had=had)
    seen.waiting = waiting(loop.state_dir)
    around = surroundings(seen, time.time() if now is None else now)
    return Shown(name, loop, seen, around, row(name, seen, around))


class _Look(NamedTuple):
    """A loop as it was seen at `at`, and how its `status.json` was: its `stamp` tells whether it has
    been written since, its `head` whether by more than a heartbeat; `beat`: when it was last."""

    shown: Shown
    at: float
    stamp: object
    head: bytes
    beat: float


class Loops:
    """All loops of this user, and those that were named, the most urgent first.

    Made for looking often: what has not changed is not read again, and a heartbeat is no change for
    a while. For one thread at a time.

    Attributes:
        closely: state directory of a loop of which every change is read at once."""

    def __init__(self, named: Sequence[Target] = ()) -> None:
        """`named`: loops that need not be in the registry; the first name of a loop counts."""
        self._named = list(named)
        self._known: list[tuple[str, Target]] = []
        self._had: set[str] = set()
        self._registry: tuple[int, float] = 0, 0.0
        self._looks: dict[str, _Look] = {}
        self._refreshed = float("-inf")
        self._again = 0
        self.closely = ""
        self.shown: list[Shown] = []

    def refresh(self) -> bool:
        """Look at what may have changed; whether any line is another one now. Never raises."""
        now, steady = time.time(), time.monotonic()
        self._find(steady)
        every, old = len(self._known), self._looks
        self._again = max(LEAST_AGAIN, -(-every // 4))
        if steady - self._refreshed > LOOK_SEC:  # nobody has looked for a while: all of it is old
            self._again = every
        self._refreshed = steady
        longest_ago = sorted(self._known, key=lambda one: _looked_at(old.get(one[1].state_dir)))
        looks = {loop.state_dir: self._look(name, loop, now, steady) for name, loop in longest_ago}
        self._looks = looks
        if {k: v.shown for k, v in looks.items()} == {k: v.shown for k, v in old.items()}:
            return False
        before = [one.row for one in self.shown]
        order = ranked(one.shown.row for one in looks.values())
        self.shown = [looks[row.state_dir].shown for row in order]
        return order != before

    def _look(self, name: str, loop: Target, now: float, steady: float) -> _Look:
        """Look at one, if need be."""
        path, old = f"{loop.state_dir}/status.json", self._looks.get(loop.state_dir)
        found = stat_or_none(path, follow=False)
        stamp = found and (found.st_ino, found.st_mtime_ns, found.st_size)
        if old is not None and old.shown.name == name:
            ended = old.shown.seen.status.get("exit")
            if stamp == old.stamp:
                if steady - old.beat <= (ENDED_SEC if ended else LOOK_SEC) or not self._may_again():
                    return old
            elif loop.state_dir == self.closely:
                pass
            elif (steady - old.at <= BEATS_SEC or not self._may_again()) and _head(
                path
            ) == old.head:
                return old._replace(stamp=stamp, beat=steady)
        shown = show(name, loop, now, had=loop.state_dir in self._had)
        return _Look(shown, steady, stamp, _head(path), steady)

    def _may_again(self) -> bool:
        """Whether one more may be looked at because time has passed."""
        self._again -= 1
        return self._again >= 0

    def find(self, name: str) -> Shown | None:
        """The loop of that name, as it was seen last."""
        return next((one for one in self.shown if one.name == name), None)

    def _find(self, steady: float) -> None:
        """Which loops there are. Supervisors write into the registry when they start."""
        found = stat_or_none(registry.directory() or os.devnull)
        changed = found.st_mtime_ns if found else 0
        if self._known and changed == self._registry[0] and steady - self._registry[1] < ENDED_SEC:
            return
        self._registry = changed, steady
        every = known()
        self._had |= {loop.state_dir for _, loop in every}
        have = {loop.state_dir for _, loop in every}
        names = {name for name, _ in every}
        for loop in self._named:
            if loop.state_dir not in have:
                every.append((loop.name if loop.name not in names else loop.workspace, loop))
        self._known = every


def _looked_at(look: _Look | None) -> float:
    return float("-inf") if look is None else look.at


def _head(path: str) -> bytes:
    """The part of `status.json` that no heartbeat changes: state, reason, iteration, goal."""
    with suppress(OSError):
        head = read_guarded(path, 8192).partition(b'"run"')[0]
        return re.sub(rb'"updated_at":\s*"[^"]*"', b"", head)
    return b""


# -- of one loop -----------------------------------------------------------------------------------


class PlanShown(NamedTuple):
    """The plan that a loop follows; `flaw` says why there are no lines."""

    path: str
    lines: list[Line]
    flaw: str = ""


def plan(seen: Seen) -> PlanShown:
    """The plan, read anew. It looks through the whole journal for who ticked what. Never raises."""
    path = as_text(as_dict(seen.status.get("plan")).get("path"))
    path = path or os.path.join(seen.workspace, "plan.md")
    try:
        text = read_guarded(path, MAX_PLAN_BYTES, follow=True).decode("utf-8-sig", "replace")
    except OSError as error:
        why = "there is no" if isinstance(error, FileNotFoundError) else "nobody can read"
        return PlanShown(clean(path), [], clean(f"{why} {path}"))
    try:
        ticked = ticked_in(seen.state_dir)
    except StorageError:
        ticked = {}
    found = lines(parse_plan(text), ticked)
    return PlanShown(clean(path), found, "" if found else clean(f"{path} has no checkboxes"))


class Kept(NamedTuple):
    """A file that is kept of an iteration: its name, path, and text, cut at MAX_TEXT."""

    name: str
    path: str
    text: str


def prompts_of(state_dir: str, iteration: int) -> list[Kept]:
    """The prompts of an iteration, as they were sent. Never raises."""
    return _texts(prompts(state_dir, iteration))


def answers_of(state_dir: str, iteration: int) -> list[Kept]:
    """The agents' last messages of an iteration, where they are kept apart. Never raises."""
    return _texts([os.path.join(one, "answer.txt") for one in agent_runs(state_dir, iteration)])


def _texts(paths: list[str]) -> list[Kept]:
    found = []
    for path in paths:
        with suppress(OSError):
            text = read_guarded(path, 4 * MAX_TEXT).decode("utf-8", "replace")
            name = os.path.basename(path)
            name = os.path.basename(os.path.dirname(path)) if name == "answer.txt" else name
            found.append(Kept(clean(name), path, clean_block(text, MAX_TEXT)))
    return found


class Message(NamedTuple):
    """What somebody has written to a loop.

    `iteration`: the one whose prompt had it, None while it waits; `goal`: it replaces the goal;
    `now`: it ends the running agent; `at`: Unix seconds."""

    name: str
    text: str
    iteration: int | None
    goal: bool
    now: bool
    at: float


def messages(state_dir: str) -> list[Message]:
    """The newest messages, oldest first, those that wait last. Never raises."""
    inbox = os.path.join(state_dir, "inbox")
    found = [one for name in _names(inbox) if is_waiting(name) and (one := _message(inbox, name))]
    done = os.path.join(inbox, "done")
    for name in _names(done):
        match = _DONE.fullmatch(name)
        one = _message(done, name) if match else None
        if match and one:
            goal = match[2] == GOAL or match[2].endswith(f"-{GOAL}")
            found.append(one._replace(name=clean(match[2]), iteration=int(match[1]), goal=goal))
    found.sort(key=lambda one: (one.iteration is None, one.iteration or 0, one.at, one.name))
    return found[-MESSAGES:]


def _names(directory: str) -> list[str]:
    """The newest ones: names begin with a time, or with the iteration's number."""
    with suppress(OSError):
        return sorted(os.listdir(directory))[-2 * MESSAGES :]
    return []


def _message(directory: str, name: str) -> Message | None:
    path = os.path.join(directory, name)
    with suppress(OSError):
        at = os.stat(path, follow_symlinks=False).st_mtime
        text = read_guarded(path, MAX_MESSAGE).decode("utf-8", "replace").strip()
        told = clean_block(text, MAX_MESSAGE)
        return Message(clean(name), told, None, name == GOAL, is_now(name), at)
    return None


def diff(loop: Target, first: str, second: str = "", *, stat: bool = False) -> str:
    """What an iteration changed, by its checkpoint, or what lies between two, as git tells it.

    Raises UsageError where there is no such checkpoint, GitError where git fails."""
    text = complete(open_checkpoints(loop).diff(first, second, summary=stat))
    return clean_block(text[: 4 * MAX_TEXT].decode("utf-8", "replace"), MAX_TEXT)
