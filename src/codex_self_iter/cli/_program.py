"""How the person can call us from here."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from codex_self_iter.world.start import start_directory

PROGRAM = "codex-self-iter"


@functools.cache
def program_name() -> str:
    """By name when that finds this installation, else by path."""
    beside = Path(sys.executable).with_name(PROGRAM)
    if not beside.exists():
        return f"{shlex.quote(sys.executable)} -P -m codex_self_iter"
    found = shutil.which(PROGRAM)  # a link to it, where pipx or uv installed it
    if found and os.path.realpath(found) == os.path.realpath(beside):
        return PROGRAM
    near = beside.is_relative_to(start_directory())
    return shlex.quote(os.path.relpath(beside) if near else str(beside))


def as_typed(text: str, commands: Iterable[str]) -> str:
    """A text of ours, with the commands in it as they can be typed."""
    command = rf"(?<![\w/]){PROGRAM} (?=(?:{'|'.join(commands)})\b)"
    return re.sub(command, lambda _: program_name() + " ", text)
