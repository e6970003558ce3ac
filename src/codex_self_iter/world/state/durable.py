"""Bytes to the disk: whole writes, syncs, clear errors, JSON for everybody. Light imports only."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import stat
import sys
import time

from codex_self_iter.errors import StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EIO: "input/output error of the disk",
    errno.EMFILE: "too many open files in this process",
    errno.ENFILE: "too many open files on this machine",
    errno.EFBIG: "the file would become larger than allowed here",
    errno.ENOENT: "it is gone",
}


def storage_error(action: str, path: str, error: OSError) -> StorageError:
    """The error for a failed `action` ("write", "read"…): its reason in words and errno's name."""
    number = error.errno or 0
    reason = _REASONS.get(number, os.strerror(number) if number else str(error))
    name = errno.errorcode.get(number, "OSError")
    return StorageError(f"cannot {action} {path}: {reason} ({name})")


@contextlib.contextmanager
def storing(action: str, path: str) -> Iterator[None]:
    """Turn every OSError of the block into a StorageError."""
    try:
        yield
    except OSError as error:
        raise storage_error(action, path, error) from error


def write_all(fd: int, data: bytes) -> None:
    """Write everything, however short single writes are (a full disk shows first in those)."""
    view = memoryview(data)
    while view:
        written = os.write(fd, view)
        if written <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[written:]


@contextlib.contextmanager
def replacing(
    path: str, temporary: str, *, dir_fd: int | None = None, mode: int = 0o600, flags: int = 0
) -> Iterator[int]:
    """A new file that takes the place of `path` when the block ends well; else nothing is left.

    O_EXCL, not O_TRUNC: a hard link or FIFO planted under the temporary name is neither emptied nor
    opened. Readable too, so that its writer can go on with it."""
    flags |= os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(temporary, flags, mode, dir_fd=dir_fd)
    except FileExistsError:
        os.unlink(temporary, dir_fd=dir_fd)
        fd = os.open(temporary, flags, mode, dir_fd=dir_fd)
    try:
        os.fchmod(fd, mode)  # a strange umask took rights away
        yield fd
        os.rename(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise
    finally:
        os.close(fd)


def replace_private(
    path: str, data: bytes, *, dir_fd: int | None = None, mode: int = 0o600, sync: bool = False
) -> None:
    """Replace a whole file by rename, so that nobody ever reads half of it. Raises OSError.

    The temporary name begins with a dot and is ours alone, however many processes write this
    file."""
    parent, leaf = os.path.split(path)
    temporary = os.path.join(parent, f".{leaf}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    with replacing(path, temporary, dir_fd=dir_fd, mode=mode) as fd:
        write_all(fd, data)
        if sync:
            full_sync(fd)


def full_sync(fd: int) -> None:
    """Bring a file or directory to the disk itself."""
    if sys.platform == "darwin":  # fsync stops at the drive's cache there
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network and FUSE file systems cannot sync a directory, and have nothing better.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not stat.S_ISDIR(
            os.fstat(fd).st_mode
        ):
            raise


def data_sync(fd: int) -> None:
    """Bring a file's content and size to the disk; cheaper than `full_sync` where possible."""
    if sys.platform == "darwin":
        full_sync(fd)
    else:
        os.fdatasync(fd)


def stamp(now: float | None = None) -> str:
    """UTC time for file names, sortable, to the microsecond: `20260131T235959.000000`."""
    seconds = time.time() if now is None else now
    whole = math.floor(seconds)
    return (
        time.strftime("%Y%m%dT%H%M%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1e6):06d}"
    )


def _finite(value: Any) -> Any:
    """A copy in which NaN and infinities, which JSON does not know, are null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def encode_lines(value: Mapping[str, Any]) -> bytes:
    """The same, one field a line: readable, and a fifth of the cost of an indent."""
    fields = (encode_json({key: item})[1:-1] for key, item in value.items())
    return b"{\n " + b",\n ".join(fields) + b"\n}"


_ENCODERS = [
    json.JSONEncoder(ensure_ascii=only, allow_nan=False, separators=(",", ":"), default=str)
    for only in (False, True)
]


def encode_json(value: Mapping[str, Any]) -> bytes:
    """UTF-8 JSON that every reader accepts, in one line without a line end.

    Non-finite numbers become null, lone surrogates become escapes, unknown objects become their
    text."""
    for ascii_only in (False, True):
        try:
            return _ENCODERS[ascii_only].encode(value).encode()
        except UnicodeEncodeError:
            continue
        except ValueError:
            return encode_json(_finite(value))
    raise AssertionError("ASCII always encodes")
