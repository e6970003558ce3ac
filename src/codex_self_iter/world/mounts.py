"""Which file system a path is on, as far as the machine tells (Linux)."""

from __future__ import annotations

import os
import re

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
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        words = before.split(" ")
        point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), words[4]) if len(words) > 4 else ""
        inside = point == "/" or place == point or place.startswith(f"{point}/")
        if point and inside and len(point) >= len(best):
            best, kind = point, after.split(" ")[0]
    return kind
