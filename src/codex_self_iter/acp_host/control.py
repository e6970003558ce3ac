"""The control file: what the supervisor wants of a run that is under way.

    {"id": "…", "steer": "text"}        a text for the running turn
    {"id": "…", "cancel": true}         end the turn

It is replaced as a whole by the supervisor and removed when it was read; what became of it is said
on stdout with its id. A file that somebody else wrote is no order: it must be regular, ours and
nobody else's to write."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import NamedTuple

from codex_self_iter.core.foreign import as_text
from codex_self_iter.world.guarded import open_guarded, parse_object


class Order(NamedTuple):
    """What is wanted: a text, or the end of the turn; `flaw` says why it is no order."""

    ident: str = ""
    steer: str = ""
    cancel: bool = False
    flaw: str = ""


MAX_BYTES = 4 * 1024 * 1024
LOOK_SEC = 0.5
"""How often it is looked for."""


def take(path: str) -> Order | None:
    """The order that is there, removed; None when there is none."""
    try:
        fd = open_guarded(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        _remove(path)
        return Order(flaw=f"it cannot be read: {error.strerror}")
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        data = file.read(MAX_BYTES + 1)
    _remove(path)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        return Order(flaw="somebody else may have written it")
    value = parse_object(data) if len(data) <= MAX_BYTES else None
    if value is None:
        return Order(flaw="it holds no JSON object")
    ident, text = as_text(value.get("id")), as_text(value.get("steer"))
    if value.get("cancel") is True:
        return Order(ident, cancel=True)
    if not text.strip():
        return Order(ident, flaw='it has neither "steer" nor "cancel"')
    return Order(ident, text)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
