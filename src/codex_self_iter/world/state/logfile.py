"""The log file of a supervisor: private, rotated by size, back when somebody deleted it."""

from __future__ import annotations

import contextlib
import os
import stat
import sys

from codex_self_iter.errors import CodexSelfIterError
from codex_self_iter.world.state.durable import storing, write_all
from codex_self_iter.world.state.root import StateRoot, mode_in

_MIB = 1024 * 1024


def rotate(root: StateRoot, name: str, max_bytes: int, keep: int) -> bool:
    """When `name` has reached `max_bytes`, make it `name.1`, that `name.2`…; `keep` files in all.

    Returns True when the caller must open the file again. Raises StorageError."""
    with root.guard, storing("rotate", f"{root.path}/{name}"):
        found = root.look(name)
        if found is None or found.st_size < max_bytes:
            return False
        parent, _, leaf = name.rpartition("/")
        with root.directory(parent) as fd:
            names = [leaf, *(f"{leaf}.{number}" for number in range(1, keep))]
            for one in names:
                if stat.S_ISDIR(mode_in(fd, one)):
                    root.set_aside(f"{parent}/{one}" if parent else one, "not a log of ours")
            for older, newer in zip(reversed(names), [*reversed(names[:-1]), ""], strict=True):
                with contextlib.suppress(FileNotFoundError):
                    if newer:
                        os.rename(newer, older, src_dir_fd=fd, dst_dir_fd=fd)
                    elif keep <= 1:
                        os.unlink(older, dir_fd=fd)
        return True


class LogFile:
    """A log for a logger to write: private, rotated, back when deleted, never in the way.

    A log line that cannot be written is counted, not raised: a full disk must not stop the
    supervisor."""

    def __init__(
        self,
        root: StateRoot,
        name: str,
        *,
        max_mb: float = 10,
        keep: int = 5,
        stay_open: bool = True,
    ) -> None:
        """Opened at the first line. Without `stay_open` the file is closed after each. `max_mb` 0:
        never rotated."""
        self._root = root
        self._name = name
        self._max_bytes = max(1, int(max_mb * _MIB)) if max_mb else sys.maxsize
        self._keep = keep
        self._stay_open = stay_open
        self._fd = -1
        self.lost_lines = 0
        """Lines that could not be written; whoever tells them sets it back."""

    def write(self, text: str) -> int:
        """Append the text; returns its length."""
        with self._root.guard:
            end = -1
            try:
                self._prepare()
                end = os.fstat(self._fd).st_size
                write_all(self._fd, text.encode("utf-8", "backslashreplace"))
            except (OSError, CodexSelfIterError):
                self.lost_lines += 1
                if end >= 0:  # no half lines
                    with contextlib.suppress(OSError):
                        os.ftruncate(self._fd, end)
            if not self._stay_open:
                self.close()
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        with self._root.guard:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _prepare(self) -> None:
        if self._fd >= 0:
            here, ours = self._root.look(self._name), os.fstat(self._fd)
            gone = here is None or (here.st_dev, here.st_ino) != (ours.st_dev, ours.st_ino)
            if gone or rotate(self._root, self._name, self._max_bytes, self._keep):
                self.close()
        elif not self._stay_open:
            rotate(self._root, self._name, self._max_bytes, self._keep)
        if self._fd < 0:
            self._fd = self._root.open_file(self._name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
