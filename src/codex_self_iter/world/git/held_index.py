"""The locks of one work tree while its branch is moved, and the record of who holds them and why.

A kill leaves the record: its living writer holds it by flock, and the locks are hard links to it."""

from __future__ import annotations

import contextlib
import json
import os
from typing import NamedTuple

from codex_self_iter.world.git.index import copy_index
from codex_self_iter.world.git.locks import git_at_work
from codex_self_iter.world.guarded import open_guarded, parse_object, read_guarded
from codex_self_iter.world.process import proctable
from codex_self_iter.world.state.holder import try_lock

_LIMIT = 65536


class Move(NamedTuple):
    """A branch (full name) and the commits between which it moves."""

    branch: str
    old: str
    new: str


class Hold:
    """The record, the locks and the copy of the index in one git directory. Its methods block, for
    a moment each. Raises OSError."""

    RECORD = "codex-self-iter.landing"
    INDEX, HEAD = "index.lock", "HEAD.lock"

    def __init__(self, git_dir: str) -> None:
        self._git_dir = git_dir
        self._record = os.path.join(git_dir, self.RECORD)
        self.copy = os.path.join(git_dir, "codex-self-iter.index")
        self._fd = -1

    def path(self, name: str) -> str:
        return os.path.join(self._git_dir, name)

    def open(self) -> bool:
        """Take the record for us; False while somebody alive has it."""
        while True:
            fd = open_guarded(self._record, os.O_RDWR | os.O_CREAT)
            if not try_lock(fd):
                os.close(fd)
                return False
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(self._record)):
                    self._fd = fd
                    return True
            os.close(fd)  # its last holder has just removed it

    def release(self) -> None:
        """Let it go as it is. A descriptor is closed, no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def order(self) -> Move | None:
        """What the record says, None when it says nothing yet."""
        said = parse_object(os.pread(self._fd, _LIMIT, 0)) or {}
        words = [said.get(name) for name in Move._fields]
        return Move(*map(str, words)) if all(words) else None

    def write(self, order: Move) -> None:
        text = json.dumps({"by": "codex-self-iter", **order._asdict()}) + "\n"
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)
        os.fsync(self._fd)

    def lock(self, name: str) -> bool:
        """Take a lock of git's; True when it is ours, maybe since before a kill."""
        path = self.path(name)
        try:
            os.link(self._record, path)
        except FileExistsError:
            return self._is_ours(path)
        except OSError:  # a file system without hard links
            return self._lock_by_content(path)
        return True

    def _lock_by_content(self, path: str) -> bool:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return self._is_ours(path)
        with open(fd, "wb") as file:
            file.write(os.pread(self._fd, _LIMIT, 0))
        return True

    def _is_ours(self, path: str) -> bool:
        try:
            found = read_guarded(path, _LIMIT)
        except OSError:
            return False
        return bool(found) and found == os.pread(self._fd, _LIMIT, 0)

    def copy_index(self) -> None:
        """Begin with a fresh copy of the person's index."""
        self.drop_copy()
        source = self.path("index")
        mode = os.stat(source).st_mode & 0o666 if os.path.exists(source) else 0o600
        copy_index(source, self.copy, mode)

    def drop_copy(self) -> None:
        for path in (self.copy, f"{self.copy}.lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def publish(self) -> None:
        """The copy becomes the index."""
        os.rename(self.copy, self.path("index"))

    def unlock(self, name: str) -> None:
        if self._is_ours(self.path(name)):
            os.unlink(self.path(name))

    def somebody(self, top: str) -> bool:
        """True while a git is at work in the work tree."""
        return git_at_work((os.path.realpath(top), os.path.realpath(self._git_dir)))

    def clear(self) -> None:
        """Everything of ours goes, the record last."""
        if self._fd < 0:
            return
        self.unlock(self.HEAD)
        self.drop_copy()
        self.unlock(self.INDEX)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._record)

    def still_written(self) -> bool:
        """True while a git that an ended supervisor has started is at work on the copy."""
        return any(
            proc.living and proctable.environment_value(pid, "GIT_INDEX_FILE") == self.copy
            for pid, proc in proctable.scan().items()
        )
