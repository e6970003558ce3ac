"""The supervisor's lock: one for each workspace, whatever path, symlink or state directory is used.

Two flocks, both close-on-exec so that no agent inherits them: one on the workspace directory itself
(deleting a file or choosing another state directory opens no door), one on `loop.lock` in the state
directory (says who, and is what `status` looks at). A file without a living holder never blocks:
the kernel drops a flock with its process.

Who only asks (`status`) imports world/state/holder.py."""

from __future__ import annotations

import contextlib
import errno
import os
import time

from codex_self_iter import __version__
from codex_self_iter.core.text import iso
from codex_self_iter.errors import StorageError, UsageError, WorkspaceBusyError
from codex_self_iter.world.guarded import stat_or_none
from codex_self_iter.world.pause import pause
from codex_self_iter.world.state.durable import encode_json, storage_error, storing, write_all
from codex_self_iter.world.state.holder import (
    LOCK_FILE,
    Holder,
    boot_id,
    holder_of,
    kernel_holder,
    probe,
    read_info,
    try_lock,
)
from codex_self_iter.world.state.root import StateRoot, identity

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL)
_PATIENCE_SEC = 0.5
"""`probe` holds a shared lock for some microseconds: no reason to turn a supervisor away."""


def _lock_patiently(fd: int) -> bool:
    deadline = time.monotonic() + _PATIENCE_SEC
    while not try_lock(fd):
        if time.monotonic() > deadline:
            return False
        pause(0.02)
    return True


class SupervisorLock:
    """The exclusive right to supervise a workspace."""

    def __init__(self, root: StateRoot, workspace: str, lock_file_name: str = LOCK_FILE) -> None:
        self._root = root
        self._workspace = os.path.realpath(workspace)
        self._name = lock_file_name
        self._file = -1
        self._directory = -1
        self._since = ""
        self.warnings: list[str] = []

    @property
    def held(self) -> bool:
        """True between `acquire` and `release`."""
        return self._file >= 0

    def acquire(self) -> None:
        """Take both, or raise WorkspaceBusyError, UsageError, StorageError and hold nothing."""
        self._since = iso(time.time())
        try:
            self._directory = self._lock_workspace()
            self._file = self._lock_file()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give both back. The file stays (unlinking it would open a race) but says nobody."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)
        for fd in (self._file, self._directory):
            if fd >= 0:
                os.close(fd)
        self._file = self._directory = -1

    def still_ours(self) -> bool:
        """True while the names on disk lead to what is locked. Two stat calls."""
        if self._file < 0:
            return False
        here = self._root.look(self._name)
        return (
            here is not None
            and identity(here) == identity(os.fstat(self._file))
            and self._workspace_is_ours()
        )

    def _workspace_is_ours(self) -> bool:
        if self._directory < 0:
            return True  # locks on directories are not supported here
        here = stat_or_none(self._workspace)  # gone: whoever uses the workspace says so
        return here is None or identity(here) == identity(os.fstat(self._directory))

    def heal(self) -> list[str]:
        """Lock again what was deleted or replaced; returns what was done.

        Raises StorageError (try again later), or WorkspaceBusyError when somebody else was
        faster."""
        if self._file < 0 or self.still_ours():
            return []
        done = []
        if not self._workspace_is_ours():
            fresh = self._lock_workspace()
            if self._directory >= 0:
                os.close(self._directory)
            self._directory = fresh
            done.append("the lock on the workspace directory (it had been replaced)")
        here = self._root.look(self._name)
        if here is None or identity(here) != identity(os.fstat(self._file)):
            fresh = self._lock_file()
            os.close(self._file)
            self._file = fresh
            done.append(self._name)
        return done

    def _lock_workspace(self) -> int:
        try:
            fd = os.open(self._workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UsageError(f"the workspace {self._workspace} is not a directory") from error
        except OSError as error:
            raise storage_error("open the workspace", self._workspace, error) from error
        try:
            if _lock_patiently(fd):
                return fd
            # The state directory is usually the same, so its lock file knows more than the kernel.
            known = probe(self._root.path, self._name)
            pid = kernel_holder(fd)
            same = known is not None and pid in (0, known.pid)
            busy = self._busy(known if known is not None and same else Holder({}, pid))
        except OSError as error:
            os.close(fd)
            if error.errno not in _UNSUPPORTED:
                raise storage_error("lock", self._workspace, error) from error
            flaw = f"the file system of {self._workspace} cannot lock directories"
            self.warnings.append(f"{flaw}; only {self._name} is locked")
            return -1
        os.close(fd)
        raise busy

    def _busy(self, holder: Holder) -> WorkspaceBusyError:
        return WorkspaceBusyError(
            f"{self._workspace} already has a supervisor: {holder}. "
            f"Look at it with: codex-self-iter status --workspace {self._workspace}"
        )

    def _state_busy(self, holder: Holder) -> WorkspaceBusyError:
        if holder.workspace in ("", self._workspace):
            return self._busy(holder)
        return WorkspaceBusyError(
            f"the state directory {self._root.path} is in use for the workspace {holder.workspace}:"
            f" {holder}. Give {self._workspace} its own (state_dir)"
        )

    def _lock_file(self) -> int:
        path = f"{self._root.path}/{self._name}"
        with storing("lock", path):
            for _ in range(10):
                fd = self._root.open_file(self._name, os.O_RDWR | os.O_CREAT)
                try:
                    if self._take(fd):
                        return fd
                except BaseException:
                    os.close(fd)
                    raise
                os.close(fd)
        raise StorageError(f"cannot lock {path}: it is replaced again and again by another program")

    def _take(self, fd: int) -> bool:
        """Lock the open file and write who we are; False when it is not the file to lock."""
        try:
            if not _lock_patiently(fd):
                raise self._state_busy(holder_of(fd))
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                flaw = f"the file system of {self._root.path} supports no locks"
                raise UsageError(f"{flaw}; choose a state_dir on a local disk") from error
            raise
        here = self._root.look(self._name)
        if here is None or identity(here) != identity(os.fstat(fd)):
            return False  # deleted between opening and locking
        if os.fstat(fd).st_size and not read_info(fd):
            self._root.set_aside(self._name, "not a lock file of ours")
            return False
        self._describe(fd)
        return True

    def _describe(self, fd: int) -> None:
        info = {
            "pid": os.getpid(),
            "host": os.uname().nodename,
            "boot_id": boot_id(),
            "since": self._since,
            "version": __version__,
            "workspace": self._workspace,
        }
        try:  # in place: another inode would be another lock
            os.ftruncate(fd, 0)
            write_all(fd, encode_json(info) + b"\n")
        except OSError as error:
            self.warnings.append(f"{self._name} is locked but does not say by whom: {error}")
