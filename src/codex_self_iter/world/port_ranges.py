"""Ranges of ports that no two supervisors of this user give to their lanes.

A range is had by whoever holds the lock of its file; the kernel lets it go with the process. Nobody is
kept from using a port: it is for those who ask for one."""

from __future__ import annotations

import os

from codex_self_iter.world.state.holder import try_lock

HIGHEST = 60_000
"""Above it systems take ports for connections that go out."""


def claim(directory: str, first: int, size: int) -> tuple[int, int]:
    """The first port of the lowest free range of so many ports, from `first` on, and the descriptor
    that holds it. Raises OSError, also when none is free."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for base in range(first, HIGHEST - size + 1, size):
        path = os.path.join(directory, f"{base}-{base + size - 1}")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if try_lock(fd):
            return base, fd
        os.close(fd)
    raise OSError(f"no {size} ports from {first} to {HIGHEST} are free of other supervisors")
