"""What `diff`, `rewind` and the screens share: the checkpoints of a loop."""

from __future__ import annotations

import os

from codex_self_iter.core.foreign import as_dict
from codex_self_iter.core.text import counted
from codex_self_iter.screens.loops import Target, read_config
from codex_self_iter.world.git.checkpoints import Checkpoints
from codex_self_iter.world.git.run import Git, complete, run_blocking

_TIMEOUT_SEC = 600.0
"""A person waits and can interrupt; a big work tree may take minutes."""
_MAX_FILE_MB = 10.0


def open_checkpoints(loop: Target) -> Checkpoints:
    """The checkpoints, to be used without an event loop (`world.git.run.complete`)."""
    config = read_config(loop.workspace, loop.config)
    chosen = as_dict(config.get("git")).get("checkpoint_max_file_mb")
    size = float(chosen) if isinstance(chosen, int | float) else _MAX_FILE_MB
    workspace = os.path.realpath(loop.workspace)
    git = Git(run_blocking, workspace, _TIMEOUT_SEC)
    checkpoints = Checkpoints(git, loop.state_dir, max_file_mb=size)
    if isinstance(stop := config.get("global_stop_file_name"), str):
        checkpoints.own = (stop,)
    return checkpoints


def go_back(loop: Target, label: str) -> str:
    """Make the work tree's content that of a checkpoint; what is told of it. The present is kept.

    Raises UsageError where there is no such checkpoint, WorkspaceBusyError while anything is at
    work there, GitError."""
    from codex_self_iter.screens.alone import nobody
    from codex_self_iter.world.git.rewind import plan_rewind, rewind

    checkpoints = open_checkpoints(loop)
    with nobody(checkpoints.git.cwd, checkpoints.state_dir):
        plan = complete(plan_rewind(checkpoints, label))
        if not plan.changes:
            return f"The work tree already is as in checkpoint {plan.target.label}."
        kept = complete(rewind(checkpoints, plan))
    again = f"codex-self-iter rewind {kept}"
    return f"{counted(len(plan.lines()), 'file')} changed back. To take this back: {again}"
