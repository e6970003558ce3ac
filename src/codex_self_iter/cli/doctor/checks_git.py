"""Checks of the repository: git itself, the work tree, identity, ownership, a lock left behind."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator

from codex_self_iter.cli.doctor.ask import Answer, ask
from codex_self_iter.cli.doctor.finding import Check, Context, Finding, fail, good, warn
from codex_self_iter.settings.templates import NO_REPOSITORY
from codex_self_iter.world.git.run import OLDEST

_YOUNG_LOCK_SEC = 60.0
"""A git command that still runs may hold the index for about this long."""


def repository(context: Context) -> Iterator[Finding]:
    """git is there, the workspace is a work tree, and git is willing to work in it."""
    if not context.has_workspace:
        return
    program = shutil.which("git", path=context.environ.get("PATH"))
    if program is None:
        what = "git is not installed: progress can only be judged by a bounded look at the files"
        yield warn("git.program", what, "install git (sudo apt-get install git)")
        return
    said = _git(context, "--version").text
    version = tuple(map(int, re.findall(r"\d+", said)[:2]))
    if version < OLDEST:
        what = (
            f"{said} ({program}) is too old: changes are not surely seen, and nothing is committed"
        )
        yield fail("git.program", what, f"install git {'.'.join(map(str, OLDEST))} or later")
    else:
        yield good("git.program", f"{said} ({program})")
    inside = _git(context, "rev-parse", "--show-toplevel")
    if inside.ok:
        yield good("git.repository", f"work tree {inside.text}")
        yield from (*_identity(context), *_index_lock(context), *_unfinished(context))
    elif "dubious ownership" in inside.text:
        what = "git refuses to work here: the repository belongs to another user"
        mend = f"git config --global --add safe.directory {context.quoted}"
        yield fail("git.ownership", what, mend)
    elif "not a git repository" in inside.text and not os.path.lexists(f"{context.workspace}/.git"):
        yield warn("git.repository", NO_REPOSITORY, f"git -C {context.quoted} init")
    else:
        what = f"git fails here: {_last(inside.text)}"
        yield fail("git.repository", what, f"git -C {context.quoted} status")


def _identity(context: Context) -> Iterator[Finding]:
    answer = _git(context, "var", "GIT_COMMITTER_IDENT")
    if answer.ok:
        yield good("git.identity", answer.text.rpartition(">")[0] + ">")
        return
    mend = f"git -C {context.quoted} config user.name NAME && git -C {context.quoted} config user.email ADDRESS"
    what = "git does not know who commits (user.name, user.email)"
    if context.settings.git.commit == "agent":
        yield fail("git.identity", what, mend)
    elif context.settings.git.commit == "supervisor":
        yield warn("git.identity", f"{what}: codex-self-iter is named", mend)
    else:
        yield good("git.identity", f"{what}; nothing here commits")


def _index_lock(context: Context) -> Iterator[Finding]:
    path = _git_path(context, "index.lock")
    try:
        age = context.now - os.stat(path).st_mtime
    except OSError:
        yield good("git.index_lock", "no index.lock left behind")
        return
    mend = f"make sure that no git command runs here, then: rm {shlex.quote(path)}"
    if age > _YOUNG_LOCK_SEC:
        what = f"{path} was left behind {age / 60:.0f} min ago: nothing can be committed"
        yield fail("git.index_lock", what, mend)
    else:
        what = f"{path} is there: a git command is at work, or died just now"
        yield warn("git.index_lock", what, mend)


def _unfinished(context: Context) -> Iterator[Finding]:
    """A merge or rebase in progress spoils what an agent commits."""
    for name, what, command in (
        ("MERGE_HEAD", "merge", "merge"),
        ("rebase-merge", "rebase", "rebase"),
        ("rebase-apply", "rebase", "rebase"),
        ("CHERRY_PICK_HEAD", "cherry-pick", "cherry-pick"),
    ):
        if os.path.exists(_git_path(context, name)):
            mend = f"finish it, or: git -C {context.quoted} {command} --abort"
            yield warn("git.unfinished", f"a {what} is in progress", mend)


def _git_path(context: Context, name: str) -> str:
    answer = _git(context, "rev-parse", "--git-path", name)
    return os.path.join(context.workspace, answer.text if answer.ok else f".git/{name}")


def _git(context: Context, *words: str) -> Answer:
    return ask(["git", "-C", context.workspace, *words], context)


def _last(text: str) -> str:
    return text.splitlines()[-1] if text else "no answer"


CHECKS: tuple[Check, ...] = (repository,)
