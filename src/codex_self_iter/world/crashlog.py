"""Where the traceback of an unexpected error goes: a person sees one line, nothing is lost."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence

from codex_self_iter.core.text import iso
from codex_self_iter.world import registry
from codex_self_iter.world.console import say

MAX_BYTES = 1_000_000
_WRITTEN = "_written_by_crashlog"


def write(error: BaseException, argv: Sequence[str]) -> str:
    """Append the traceback to a private file and return its path; of an error that was written
    before only that.

    With `--debug` it is said on stderr, too; when no file can be written, only there, and ""
    is returned."""
    text = "".join(traceback.format_exception(error))
    if "--debug" in argv:
        say(sys.stderr, text)
    if not written(error):
        setattr(error, _WRITTEN, _write(text, argv))
    return str(getattr(error, _WRITTEN))


def written(error: BaseException) -> bool:
    """True when it was written before."""
    return hasattr(error, _WRITTEN)


def _write(text: str, argv: Sequence[str]) -> str:
    directory = os.path.dirname(registry.directory())
    path = os.path.join(directory, "crash.log")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)  # "" raises: there is no home
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        with open(descriptor, "a", encoding="utf-8", errors="backslashreplace") as file:
            if file.tell() > MAX_BYTES:  # nobody empties it: begin anew rather than grow for ever
                file.truncate(0)
            file.write(f"{iso(time.time())} {list(argv)[:1]}\n{text}\n")
    except OSError:
        if "--debug" not in argv:
            say(sys.stderr, text)
        return ""
    return path
