"""Reading files that somebody else may have planted. Only light imports: every command reads."""

from __future__ import annotations

import errno
import json
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

QUARANTINE = "quarantine"
"""Directory in a state directory: where goes what lies in the way of a file of ours."""


def open_guarded(
    path: str, flags: int = os.O_RDONLY, *, dir_fd: int | None = None, follow: bool = False
) -> int:
    """Open what somebody else may have planted, for reading unless `flags` say else; OSError.

    A link in its place is refused, unless `follow` lets a person have one there; a FIFO does not
    hang whoever opens it; only a regular file is opened at all. A new one is private."""
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, flags, 0o600, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return fd


def read_guarded(
    path: str, limit: int, *, dir_fd: int | None = None, follow: bool = False
) -> bytes:
    """The first `limit` bytes of such a file. Raises OSError."""
    with open(open_guarded(path, dir_fd=dir_fd, follow=follow), "rb") as file:
        return file.read(limit)


def read_object(path: str, limit: int = 65536) -> dict[str, Any] | None:
    """The JSON object in such a file; None for anything else. Its fields are still anybody's."""
    try:
        return parse_object(read_guarded(path, limit))
    except OSError:
        return None


def parse_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object that these bytes are, or None."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def stat_or_none(path: str, *, follow: bool = True) -> os.stat_result | None:
    """What is there, or None for whatever cannot be looked at."""
    try:
        return os.stat(path, follow_symlinks=follow)
    except OSError:
        return None
