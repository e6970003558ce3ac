"""The journal of lanes: what became of each, one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from codex_self_iter.world.state.durable import storing, write_all
from codex_self_iter.world.state.root import StateRoot

JOURNAL = "logs/lanes.jsonl"


def append(root: StateRoot, lines: Iterable[Mapping[str, Any]]) -> None:
    """Append these lines; they are on the disk when this returns. Raises StorageError."""
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with root.guard, storing("append to", f"{root.path}/{JOURNAL}"):
        fd = root.open_file(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            write_all(fd, data.encode("utf-8", "replace"))
            os.fsync(fd)
        finally:
            os.close(fd)
