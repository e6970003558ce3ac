"""Which file system a path is on, as far as the machine tells (Linux)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

NETWORK = frozenset((
    "9p", "afs", "ceph", "cifs", "drvfs", "fuse.ceph", "fuse.davfs", "fuse.glusterfs", "fuse.rclone",
    "fuse.s3fs", "fuse.sshfs", "fuse.vmhgfs-fuse", "ncpfs", "nfs", "nfs4", "prl_fs", "smb3", "smbfs",
    "vboxsf",
))  # fmt: skip
"""File systems of another machine: changes made there are not seen here, and locks may not hold."""
_OCTAL = re.compile(r"\\([0-7]{3})")


def file_system(path: str) -> str:
    """Type of the file system that holds a path, "" where that cannot be told."""
    place, best, kind = os.path.realpath(path), "", ""
    for one in points():
        inside = one.path == "/" or place == one.path or place.startswith(f"{one.path}/")
        if inside and len(one.path) >= len(best):
            best, kind = one.path, one.kind
    return kind


class Point(NamedTuple):
    """Where something is mounted: its path, its type, whether it is mounted to be written."""

    path: str
    kind: str
    writable: bool


def points() -> Iterator[Point]:
    """What is mounted, as this process sees it, later ones on top; nothing where that cannot be told."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        before, _, after = line.partition(" - ")
        words = before.split(" ")
        if len(words) > 5 and words[4]:
            point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), words[4])
            yield Point(point, after.split(" ")[0], "rw" in words[5].split(","))
