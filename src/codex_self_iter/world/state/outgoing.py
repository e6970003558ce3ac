"""`outbox.json`: words to a person that are still to be sent; `logs/notify.jsonl`: what became of them."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from codex_self_iter.core.mailbox import Entry, Mailbox
from codex_self_iter.core.state import plain
from codex_self_iter.core.text import iso
from codex_self_iter.world.guarded import parse_object
from codex_self_iter.world.state.codec import from_json
from codex_self_iter.world.state.durable import encode_json, write_all
from codex_self_iter.world.state.root import StateRoot

OUTBOX = "outbox.json"
HISTORY = "logs/notify.jsonl"
_MOST = 4_000_000
MOST_HISTORY = 1_000_000
"""Bytes of the history; the file before is kept beside it."""


def load(root: StateRoot) -> Mailbox:
    """What waits; what cannot be read is set aside. Raises StorageError."""
    data = root.read(OUTBOX, _MOST)
    if data is None:
        return Mailbox()
    found = parse_object(data)
    try:
        return from_json(Mailbox, found if found is not None else {"entries": 0})
    except (TypeError, ValueError, KeyError, AttributeError):
        root.set_aside(OUTBOX, "it is not what was written")
        return Mailbox()


def save(root: StateRoot, box: Mailbox) -> None:
    """Keep it; on the disk when this returns. Raises StorageError."""
    root.replace(OUTBOX, encode_json(plain(box)))


def remember(root: StateRoot, entry: Entry, now: float) -> None:
    """Write down what became of a word. Raises OSError and StorageError."""
    line: dict[str, Any] = {
        "ts": iso(now),
        **dataclasses.asdict(entry.notice),
        "targets": entry.outcomes,
    }
    line["at"] = iso(entry.notice.at)
    line["since"] = iso(entry.notice.since)
    found = root.look(HISTORY)
    if found is not None and found.st_size > MOST_HISTORY:
        root.replace(f"{HISTORY}.1", root.read(HISTORY, 2 * MOST_HISTORY) or b"", durable=False)
        root.replace(HISTORY, b"", durable=False)
    fd = root.open_file(HISTORY, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        write_all(fd, encode_json(line) + b"\n")
    finally:
        os.close(fd)
