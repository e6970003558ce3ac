"""A temporary directory for each run, removed when the run has ended.

Some CLIs leave megabytes in the temporary directory at every run, or the conversation itself."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable

from codex_self_iter.world.state.durable import storing

_LONGEST = 72
"""Bytes of a path below which programs can still make a UNIX socket: 107 in all, and the longest
name that a CLI's sandbox was seen to use there has 33."""


def make(directory: str) -> str:
    """The temporary directory of the run with this directory, by a path that is short enough: where
    its own is not, by a link in the system's. Raises StorageError."""
    path = os.path.join(directory, "tmp")
    with storing("create", path):
        os.makedirs(path, 0o700, exist_ok=True)
    if len(os.fsencode(path)) <= _LONGEST:
        return path
    link = _link(directory)
    try:
        with contextlib.suppress(FileExistsError):
            os.symlink(path, link)
        return link if os.readlink(link) == path else path
    except OSError:
        return path  # somebody else's, or no room: then only sockets are not to be had


def remove(directory: str) -> None:
    """Remove it with all that is in it; what cannot be removed goes with the run's directory."""
    path, link = os.path.join(directory, "tmp"), _link(directory)
    with contextlib.suppress(OSError):
        if os.readlink(link) == path:
            os.unlink(link)
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, onerror=_once_more)


def _link(directory: str) -> str:
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    return os.path.join(tempfile.gettempdir(), f"csi-{name}")


def _once_more(function: Callable[..., object], path: str, _error: object) -> None:
    """Directories without write permission are what caches of modules consist of."""
    with contextlib.suppress(OSError):
        for one in (os.path.dirname(path), path):
            if not os.path.islink(one):
                os.chmod(one, stat.S_IRWXU)
        if function in (os.open, os.scandir, os.lstat):
            shutil.rmtree(path, ignore_errors=True)
        else:
            function(path)
