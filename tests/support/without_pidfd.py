"""A poorer kernel: runs a command in which descriptors of processes cannot be had (seccomp).

    without_pidfd.py ERRNO COMMAND...

What containers of old do (EPERM), and kernels of old (ENOSYS); a full table of files is EMFILE."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

PIDFD_SEND_SIGNAL, PIDFD_OPEN = 424, 434  # the same on every architecture
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def deny(number: int) -> None:
    """Make both calls fail with this errno, in this process and all that it starts."""
    program = [
        (_LOAD, 0, 0, 0),
        (_JUMP_IF_EQUAL, 1, 0, PIDFD_OPEN),
        (_JUMP_IF_EQUAL, 0, 1, PIDFD_SEND_SIGNAL),
        (_RETURN, 0, 0, _ERRNO | number),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code)
    whole = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filtered = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, filtered, whole, 0, 0):
        raise OSError(ctypes.get_errno(), "no seccomp here")


if __name__ == "__main__":
    deny(getattr(errno, sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
