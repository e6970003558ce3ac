"""Files that only we may read, written beside a run's output."""

from __future__ import annotations

import os

from codex_self_iter.errors import StorageError


def write_private(path: str, text: str) -> None:
    """Write a file that only we may read. Raises StorageError."""
    try:
        fd = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
