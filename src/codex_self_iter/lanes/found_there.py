"""What lanes begin with: the repository, what was decided before, the plan's place."""

from __future__ import annotations

import dataclasses
import json
import os

from codex_self_iter.core import lanes as core
from codex_self_iter.core.lanes import Lanes
from codex_self_iter.errors import UsageError
from codex_self_iter.supervisor.context import Context
from codex_self_iter.world.git import landing as store
from codex_self_iter.world.git.follow import short
from codex_self_iter.world.git.repository import Repository, discover
from codex_self_iter.world.git.run import Git

STATE = "lanes.json"
MAX_STATE = 64 * 1024 * 1024


async def repository(git: Git) -> Repository:
    """The repository, found fit for lanes. Raises UsageError, GitError."""
    if flaw := await store.too_old(git):
        raise UsageError(flaw)
    repository, why = await discover(git)
    if repository is None:
        raise UsageError(f"lanes need a git repository: {why}")
    if not await git.resolve("HEAD^{commit}"):
        raise UsageError("lanes need a first commit to begin with: make one (git commit)")
    return repository


async def loaded(ctx: Context, git: Git) -> Lanes:
    """What was decided before, or nothing. Raises UsageError, GitError."""
    state = Lanes()
    data = ctx.store.root.read(STATE, MAX_STATE)
    if data is not None:
        try:
            state = core.from_json(json.loads(data))
        except (ValueError, TypeError, AttributeError) as error:
            ctx.store.root.set_aside(STATE, f"it cannot be read: {error}")
            ctx.warn(ctx.store.take_warnings())
    target = ctx.settings.lanes.target
    full = target if target.startswith("refs/") or not target else f"refs/heads/{target}"
    full = full or state.target or await store.current_branch(git)
    if not full:
        raise UsageError(
            "no branch is checked out (HEAD is detached), so it is not known where lanes land; "
            "check one out, or name it: [lanes] target"
        )
    commit = await git.resolve(f"{full}^{{commit}}")
    if not commit and not state.target_commit:
        raise UsageError(f"[lanes] target: there is no branch {short(full)}")
    return dataclasses.replace(state, target=full, target_commit=commit or state.target_commit)


async def plan_place(ctx: Context, git: Git) -> str:
    """The plan's path from the top of the repository; "" where git does not track it. Raises GitError."""
    name = os.path.relpath(ctx.paths.plan, ctx.paths.workspace)
    if name.startswith(os.pardir):
        return ""
    out = await git.run("ls-files", "--full-name", "-z", "--error-unmatch", "--", name)
    return os.fsdecode(out.stdout.split(b"\0")[0]) if out.exit_code == 0 else ""
