"""What `diff` and `rewind` share: the checkpoints of the workspace that the arguments name."""

from __future__ import annotations

import argparse
import os

from codex_self_iter.errors import UsageError
from codex_self_iter.world.checkpoints import Checkpoints
from codex_self_iter.world.gitrun import Git, run_blocking

__all__ = ["open_checkpoints", "places"]

_TIMEOUT_SEC = 600.0
"""A person waits and can interrupt; a big work tree may take minutes."""


def places(args: argparse.Namespace) -> tuple[str, str]:
    """Absolute workspace and state directory. Raises UsageError when there is no such workspace."""
    workspace = os.path.realpath(getattr(args, "workspace", None) or ".")
    if not os.path.isdir(workspace):
        raise UsageError(f"the workspace {workspace} is not a directory; name another with --workspace")
    state_dir = getattr(args, "state_dir", None) or ".codex-self-iter"
    return workspace, os.path.realpath(os.path.join(workspace, state_dir))


def open_checkpoints(args: argparse.Namespace, max_file_mb: float = 10) -> Checkpoints:
    """The checkpoints, called without an event loop. Raises UsageError."""
    workspace, state_dir = places(args)
    return Checkpoints(Git(run_blocking, workspace, _TIMEOUT_SEC), state_dir, max_file_mb=max_file_mb)
