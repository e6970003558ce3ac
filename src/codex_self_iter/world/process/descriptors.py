"""Open files: as many as we may have for ourselves, the usual number for what we start."""

from __future__ import annotations

import contextlib
import resource

_original: int | None = None


def raise_limit() -> int:
    """Raise this process's soft limit to the hard one; returns how many files that is."""
    global _original
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _original is None:
        _original = soft
    with contextlib.suppress(OSError, ValueError):  # macOS shows "unlimited" and takes less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft if soft != resource.RLIM_INFINITY else 1_000_000


def original_soft_limit() -> int:
    """The soft limit at our start; a high one breaks programs that use `select`."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] if _original is None else _original
