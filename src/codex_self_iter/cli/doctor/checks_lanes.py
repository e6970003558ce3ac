"""Checks of lanes, where more than one is wanted: git, branch, place, gates and plan."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator

from codex_self_iter.cli.doctor.ask import Answer, ask
from codex_self_iter.cli.doctor.finding import Check, Context, Finding, fail, good, warn
from codex_self_iter.world.guarded import read_guarded

_ALONE = "or work without lanes: [lanes] max = 1"


def lanes(context: Context) -> Iterator[Finding]:
    """Whether lanes can be made, worked on and landed here."""
    if context.settings.lanes.max == 1 or not context.has_workspace:
        return
    found = list(_repository(context))
    yield from found or [good("lanes.git", "git can make work trees and land what is done there")]
    if not found:
        yield from _target(context)
        yield from _directory(context)
    yield from _gates(context)
    yield from _plan(context)


def _repository(context: Context) -> Iterator[Finding]:
    """What must be there; nothing else of git can be asked where it is not."""
    from codex_self_iter.world.git.landing import OLDEST_FOR_LANDING  # imports much

    said = _git(context, "--version").text
    version = tuple(map(int, re.findall(r"\d+", said)[:2]))
    needed = ".".join(map(str, OLDEST_FOR_LANDING))
    if version < OLDEST_FOR_LANDING:
        what = f"lanes need git {needed} or later; this is {said or 'no git at all'}"
        yield fail("lanes.git", what, f"install git {needed} or later, {_ALONE}")
    elif not _git(context, "rev-parse", "--git-dir").ok:
        what = "lanes need a git repository: each has a work tree of its own"
        yield fail("lanes.repository", what, f"git -C {context.quoted} init, {_ALONE}")
    elif not _git(context, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").ok:
        what = "lanes need a first commit to begin with"
        mend = f"git -C {context.quoted} add . && git -C {context.quoted} commit -m Begin"
        yield fail("lanes.repository", what, mend)


def _target(context: Context) -> Iterator[Finding]:
    """The branch on which lanes land."""
    named = context.settings.lanes.target
    if not named:
        here = _git(context, "symbolic-ref", "--quiet", "--short", "HEAD")
        if here.ok:
            yield good("lanes.target", f"lanes land on {here.text}, which is checked out")
        else:
            what = "no branch is checked out (HEAD is detached), and [lanes] target names none"
            yield fail("lanes.target", what, 'check one out, or name it: [lanes] target = "main"')
        return
    full = named if named.startswith("refs/") else f"refs/heads/{named}"
    if _git(context, "rev-parse", "--verify", "--quiet", f"{full}^{{commit}}").ok:
        yield good("lanes.target", f"lanes land on {named}")
    else:
        what = f"[lanes] target: there is no branch {named}"
        yield fail("lanes.target", what, f"git -C {context.quoted} branch {shlex.quote(named)}")


def _directory(context: Context) -> Iterator[Finding]:
    """Where the work trees are to be: not where git, or a look at the workspace, would find them."""
    given = context.settings.lanes.directory
    if not given:
        return
    place = os.path.realpath(os.path.expanduser(given))
    top = os.path.realpath(_git(context, "rev-parse", "--show-toplevel").text)
    if os.path.commonpath((place, top)) == top:
        what = f"[lanes] directory {place} is inside the repository {top}"
        yield fail("lanes.directory", what, "name a directory outside of it")
        return
    there = place
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        what = f"[lanes] directory {place} cannot be written: no work tree can be made"
        yield fail("lanes.directory", what, f"make {there} writable, or name another directory")
    else:
        yield good("lanes.directory", f"work trees of lanes are made in {place}")


def _gates(context: Context) -> Iterator[Finding]:
    if not context.settings.verify.commands:
        what = "nothing proves what lanes land: there are no [verify] commands, and merges that do "
        mend = 'name your tests: [verify] commands = ["…"]'
        yield warn("lanes.gates", f"{what}not conflict are taken as they are", mend)


def _plan(context: Context) -> Iterator[Finding]:
    from codex_self_iter.core.lane_items import items
    from codex_self_iter.core.plan_lint import lint
    from codex_self_iter.settings.paths import MAX_DOCUMENT_BYTES

    path = str(context.paths.plan)
    try:
        text = read_guarded(path, MAX_DOCUMENT_BYTES, follow=True).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return  # one finding has said so
    found = items(text)
    open_ones = [one for one in found if not one.done]
    faults = [one for one in lint(text) if one.rule == "after"]
    for one in faults:
        yield fail("lanes.plan", f"{path}:{one.line}: {one.what}", one.mend)
    if not found:
        what = f"{path} has no items (`- [ ] …`): there is nothing for lanes"
        yield fail("lanes.plan", what, 'codex-self-iter plan "what is wanted" makes one')
    elif not open_ones:
        yield warn("lanes.plan", f"every item of {path} is ticked", "add what is still to be done")
    elif not faults:
        yield good("lanes.plan", f"{len(open_ones)} of {len(found)} items are open in {path}")


def _git(context: Context, *words: str) -> Answer:
    return ask(["git", "-C", context.workspace, *words], context)


CHECKS: tuple[Check, ...] = (lanes,)
