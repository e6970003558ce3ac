"""Files of the state directory, reached through descriptors and never through a symlink.

Agents work beside this directory and may plant anything in it. So every component below it is
opened with O_NOFOLLOW; whatever is not what it should be (a symlink, a FIFO, a directory in a
file's place) is moved to `quarantine/` and a warning is kept. Whole files are replaced by rename
under one fixed temporary name each, so that a crash leaves at most one left-over per file and never
half a file under the real name.

Everything is private: 0700 for directories, 0600 for files, whatever the umask. Every OSError
becomes a StorageError that says what failed, where and why. Only light imports: the fast commands
use this module."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading

from codex_self_iter.errors import UsageError
from codex_self_iter.world.guarded import QUARANTINE, stat_or_none
from codex_self_iter.world.state.durable import (
    full_sync,
    replacing,
    stamp,
    storage_error,
    storing,
    write_all,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# NONBLOCK: opening a planted FIFO must not hang
_REGULAR = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_NOT_A_DIRECTORY = (errno.ELOOP, errno.ENOTDIR)
Signature = tuple[int, int, int, int]
"""Device, inode, size, mtime_ns: differs as soon as somebody else writes or replaces a file."""


def identity(found: os.stat_result) -> tuple[int, int]:
    """Which file this is: device and inode."""
    return found.st_dev, found.st_ino


def signature(found: os.stat_result) -> Signature:
    """See Signature."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class StateRoot:
    """An open state directory: names in, files out, nothing outside.

    Names are relative (`logs/iterations.jsonl`). `guard` makes every sequence of calls atomic
    between threads.

    Attributes:
        path: absolute, symlinks *above* and *of* the directory itself resolved once, when it is
            opened.
        fd: descriptor of the directory.
        warnings: what had to be set aside; whoever logs takes them with `take_warnings`."""

    def __init__(self, path: str, *, create: bool = True) -> None:
        """Open or create it (0700). Raises UsageError if it is no directory, else StorageError."""
        self.path = os.path.realpath(path)
        self.guard = threading.RLock()
        self.warnings: list[str] = []
        self.fd = -1
        self._open(create)

    def _open(self, create: bool) -> None:
        try:
            if create:
                os.makedirs(self.path, 0o700, exist_ok=True)
            fd = _open_ours(self.path, _DIRECTORY, 0o700)
        except (FileExistsError, NotADirectoryError) as error:
            why = f"the state directory {self.path} is not a directory; move it away"
            raise UsageError(why) from error
        except OSError as error:
            raise storage_error("open the state directory", self.path, error) from error
        old, self.fd = self.fd, fd
        if old >= 0:
            os.close(old)
        self._make_private()

    def _make_private(self) -> None:
        found = os.fstat(self.fd)
        self.identity = identity(found)
        if found.st_mode & 0o077:
            try:
                os.fchmod(self.fd, found.st_mode & 0o700)
            except OSError as error:
                flaw = "is open to other users and cannot be made private"
                self.warnings.append(f"{self.path} {flaw}: {error}")

    def close(self) -> None:
        """Close the descriptor; the object is of no use afterwards."""
        with self.guard:
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1

    def take_warnings(self) -> list[str]:
        """The warnings since the last call."""
        with self.guard:
            taken, self.warnings = self.warnings, []
        return taken

    # -- is it still there? ------------------------------------------------------------------------

    def is_current(self) -> bool:
        """True while the path still leads to the directory that is open."""
        here = stat_or_none(self.path, follow=False)
        return here is not None and identity(here) == self.identity

    def regain(self) -> bool:
        """Take back the right to look into it, if somebody took that; True when there was need.

        What may only not be written may be so on purpose. Raises StorageError."""
        with storing("look at", self.path):
            mode = os.fstat(self.fd).st_mode
            if mode & 0o500 == 0o500:
                return False
            os.fchmod(self.fd, 0o700)
            return True

    def reopen(self) -> None:
        """Open or create what the path leads to; what is no directory goes to its quarantine."""
        with self.guard:
            foreign = self._step_aside()
            self._open(create=True)
            if foreign:
                with storing("set aside", foreign), self.directory(QUARANTINE) as aside:
                    os.rename(foreign, os.path.basename(foreign), dst_dir_fd=aside)
                moved = f"moved to its {QUARANTINE}/"
                self.warnings.append(f"{self.path} was no directory any more: {moved}")

    def _step_aside(self) -> str:
        with storing("look at", self.path):
            mode = mode_in(None, self.path)
            if not mode or stat.S_ISDIR(mode):
                return ""
            foreign = f"{self.path}.{stamp()}"
            os.rename(self.path, foreign)
            return foreign

    # -- directories -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def directory(self, name: str, *, create: bool = True) -> Iterator[int]:
        """Descriptor of a directory below ("": the root), private if made. Raises OSError."""
        if not name:
            yield self.fd
            return
        fd = self._walk(name, create)
        try:
            yield fd
        finally:
            os.close(fd)

    def _walk(self, name: str, create: bool) -> int:
        fd, walked = self.fd, ""
        for part in name.split("/"):
            if part in ("", ".", ".."):
                raise ValueError(f"not a name below the state directory: {name!r}")
            walked = f"{walked}/{part}" if walked else part
            try:
                child = self._enter(fd, part, walked, create)
            finally:
                if fd != self.fd:
                    os.close(fd)
            fd = child
        return fd

    def _enter(self, fd: int, part: str, walked: str, create: bool) -> int:
        for _ in range(3):
            try:
                return _open_ours(part, _DIRECTORY, 0o700, dir_fd=fd)
            except FileNotFoundError:
                if not create:
                    raise
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=fd)
                    os.chmod(part, 0o700, dir_fd=fd)  # mkdir's mode is cut by the umask
            except OSError as error:
                if error.errno not in _NOT_A_DIRECTORY:
                    raise
                self._displace(fd, part, walked, "not a directory of ours")
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    # -- quarantine --------------------------------------------------------------------------------

    def set_aside(self, name: str, why: str) -> str:
        """Move what is there to `quarantine/`, under a name that nothing has; returns its path.

        The warning is kept for `take_warnings`. Raises StorageError; "" when there was nothing to
        move."""
        parent, _, leaf = name.rpartition("/")
        with self.guard, storing("set aside", f"{self.path}/{name}"):
            try:
                with self.directory(parent, create=False) as fd:
                    return self._displace(fd, leaf, name, why)
            except FileNotFoundError:
                return ""

    def _displace(self, fd: int, leaf: str, name: str, why: str) -> str:
        target = f"{name.replace('/', '_')}.{stamp()}-{os.urandom(2).hex()}"
        source, source_fd = leaf, fd
        if name == QUARANTINE:  # the quarantine itself is foreign: out of the way first
            os.rename(leaf, target, src_dir_fd=fd, dst_dir_fd=self.fd)
            source, source_fd = target, self.fd
        with self.directory(QUARANTINE) as aside:
            os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=aside)
        self.warnings.append(f"{name} was set aside as {QUARANTINE}/{target}: {why}")
        return f"{self.path}/{QUARANTINE}/{target}"

    # -- files -------------------------------------------------------------------------------------

    def look(self, name: str) -> os.stat_result | None:
        """lstat of a name, or None when it or a directory is missing. Raises StorageError."""
        try:
            if "/" not in name:
                return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
            parent, _, leaf = name.rpartition("/")
            with self.directory(parent, create=False) as fd:
                return os.stat(leaf, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("look at", f"{self.path}/{name}", error) from error

    def glance(self, name: str) -> os.stat_result | None:
        """The same in one call, where the directory has just been seen. Raises OSError."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError:
            return self.look(name)  # on its way it takes rights back

    def open_file(self, name: str, flags: int) -> int:
        """Open a regular file; anything else under that name is set aside first. Raises OSError.

        A created file is private. A file with more than one link is not ours to write to: it is set
        aside too."""
        parent, _, leaf = name.rpartition("/")
        writing = flags & (os.O_WRONLY | os.O_RDWR)
        with self.guard, self.directory(parent, create=bool(flags & os.O_CREAT)) as fd:
            for _ in range(3):
                try:
                    opened = _open_ours(leaf, flags | _REGULAR, 0o600, dir_fd=fd)
                except OSError as error:
                    # a symlink, a directory, or a FIFO or socket opened for writing
                    if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                        raise
                else:
                    found = os.fstat(opened)
                    if stat.S_ISREG(found.st_mode) and not (writing and found.st_nlink > 1):
                        if writing and found.st_mode & 0o777 != 0o600:
                            with contextlib.suppress(OSError):
                                os.fchmod(opened, 0o600)
                        return opened
                    os.close(opened)
                self._displace(fd, leaf, name, "not a regular file of ours")
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def read(self, name: str, limit: int) -> bytes | None:
        """At most `limit` + 1 bytes (more than `limit`: too long). None: missing or set aside.

        Raises StorageError."""
        with storing("read", f"{self.path}/{name}"):
            try:
                fd = self.open_file(name, os.O_RDONLY)
            except FileNotFoundError:
                return None
            with open(fd, "rb") as file:
                return file.read(limit + 1)

    def create(self, name: str, data: bytes) -> Signature | None:
        """Write a new file, unsynced; None when the name is taken. Raises StorageError.

        Cheaper than `replace`; a crash may leave half of it, so only for what nobody reads before
        it is complete."""
        parent, _, leaf = name.rpartition("/")
        with self.guard, storing("write", f"{self.path}/{name}"), self.directory(parent) as fd:
            try:
                opened = os.open(leaf, _NEW, 0o600, dir_fd=fd)
            except FileExistsError:
                return None
            try:
                write_all(opened, data)
                os.fchmod(opened, 0o600)  # a strange umask took rights away from us
                return signature(os.fstat(opened))
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(leaf, dir_fd=fd)
                raise
            finally:
                os.close(opened)

    @contextlib.contextmanager
    def replacing(self, name: str, suffix: str = ".tmp", *, flags: int = 0) -> Iterator[int]:
        """A new file that takes the place of `name` when the block ends well. Raises OSError.

        Others are not held up while the block goes on: who reads and writes as one holds `guard`.
        """
        parent, _, leaf = name.rpartition("/")
        with contextlib.ExitStack() as stack:
            with self.guard:
                fd = stack.enter_context(self.directory(parent))
                if stat.S_ISDIR(mode_in(fd, leaf + suffix)):
                    in_the_way = "in the way of a temporary file"
                    self._displace(fd, leaf + suffix, name + suffix, in_the_way)
            yield stack.enter_context(replacing(leaf, leaf + suffix, dir_fd=fd, flags=flags))

    def replace(self, name: str, data: bytes, *, durable: bool = True, keep: str = "") -> Signature:
        """Replace a file atomically; with `durable` it is on the disk when this returns.

        With `keep` the present file stays under that name (a hard link, so that `name` exists at
        every moment). Raises StorageError; then the old file is untouched and the temporary one is
        gone."""
        parent, _, leaf = name.rpartition("/")
        with self.guard, storing("write", f"{self.path}/{name}"), self.directory(parent) as fd:
            with self.replacing(name) as opened:
                write_all(opened, data)
                if durable:
                    full_sync(opened)
                fresh = signature(os.fstat(opened))
                if keep:
                    self._keep_previous(fd, leaf, keep, f"{parent}/{keep}" if parent else keep)
                self._clear(fd, leaf, name)
            if durable:
                full_sync(fd)
        return fresh

    def _clear(self, fd: int, leaf: str, name: str) -> bool:
        """Set aside what is there unless it is a regular file; True when one is there."""
        mode = mode_in(fd, leaf)
        if mode and not stat.S_ISREG(mode):
            self._displace(fd, leaf, name, "not a regular file of ours")
        return stat.S_ISREG(mode)

    def _keep_previous(self, fd: int, leaf: str, keep: str, name: str) -> None:
        if self._clear(fd, keep, name):
            os.unlink(keep, dir_fd=fd)
        try:
            os.link(leaf, keep, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            pass  # the first one
        except OSError as error:
            # No hard links here: for a moment there is only the previous one, which recovery reads.
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            os.rename(leaf, keep, src_dir_fd=fd, dst_dir_fd=fd)


def _open_ours(name: str, flags: int, mode: int, *, dir_fd: int | None = None) -> int:
    """Open or make it; what is ours is given the rights back that somebody took. OSError."""
    try:
        return os.open(name, flags, mode, dir_fd=dir_fd)
    except PermissionError as error:
        try:
            about = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except OSError:
            raise error from None  # it is the directory that may not be used
        if about.st_uid != os.geteuid() or stat.S_ISLNK(about.st_mode):
            raise
        os.chmod(name, mode, dir_fd=dir_fd)
        return os.open(name, flags, mode, dir_fd=dir_fd)


def mode_in(fd: int | None, leaf: str) -> int:
    """Kind and rights of what is in an open directory, 0 when there is nothing of that name."""
    try:
        return os.stat(leaf, dir_fd=fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0
