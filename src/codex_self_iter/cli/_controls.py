"""What stop, pause, resume, steer and goal share: they change files and say who will notice."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NamedTuple

from codex_self_iter.cli import _common
from codex_self_iter.cli._common import Target
from codex_self_iter.errors import UsageError
from codex_self_iter.views.summary import Life

MAX_TEXT_BYTES = 256 * 1024
"""A message longer than this belongs into a file of the workspace that the message names."""


class Aim(NamedTuple):
    """The loop a control is for, and what is known of it at this moment."""

    loop: Target
    status: dict[str, object]
    life: Life


def aim_at(args: argparse.Namespace) -> Aim:
    """The loop that is meant. Raises UsageError where there is no loop to control.

    A control can be left before the first start, but not in any directory that happens to be
    current."""
    loop = _common.find_loop(args)
    marks = [os.path.join(loop.workspace, mark) for mark in ("plan.md", _common.CONFIG_NAME)]
    if not loop.config and not any(map(os.path.exists, [loop.state_dir, *marks])):
        raise UsageError(
            f"no loop has run in {loop.workspace} (there is no {loop.state_dir} and no plan.md)"
        )
    status = _common.read_status(loop.state_dir)
    return Aim(loop, status, _common.life(loop, status))


def control_file(aim: Aim, recorded: str, key: str, default: str) -> str:
    """Path of a sentinel: as status.json recorded it, else as configured, else the default.

    The environment wins over the file, as everywhere."""
    path = aim.status.get(recorded)
    if isinstance(path, str) and os.path.isabs(path):
        return path
    name = os.environ.get(_common.ENVIRONMENT + key.upper()) or _common.read_config(
        aim.loop.workspace, aim.loop.config
    ).get(key)
    base = aim.loop.workspace if key.startswith("global_") else aim.loop.state_dir
    return os.path.join(base, name if isinstance(name, str) and name else default)


def ends(aim: Aim) -> str:
    """The words for what a request to act at once ends, where something runs."""
    at_work = {"running": "the running agent", "verifying": "the gates"}
    what = at_work.get(str(aim.status.get("state")))
    return f"ends {what} and " if what else ""


def who_notices(aim: Aim, living: str, dead: str) -> str:
    """The second half of every answer: what happens now, or at the next start."""
    if aim.life.late:
        return f"The supervisor (pid {aim.life.pid}) is not responding; {living} when it does."
    if aim.life.alive:
        return f"The supervisor (pid {aim.life.pid}) {living}."
    orphan = f", but an agent works on (pid {aim.life.orphan})" if aim.life.orphan else ""
    return f"No supervisor is running here{orphan}: {dead}."


def read_text(words: list[str], file: str | None, what: str) -> str:
    """The text of a message: from the words, a file, or stdin for "-". Raises UsageError."""
    if file and words:
        raise UsageError(f"give the {what} as words or with --file, not both")
    text = _read_file(file or "-", what) if file or words == ["-"] else " ".join(words)
    if not text.strip():
        raise UsageError(f"the {what} is empty")
    if len(text.encode("utf-8", "surrogateescape")) > MAX_TEXT_BYTES:
        size = MAX_TEXT_BYTES // 1024
        raise UsageError(f"the {what} is longer than {size} KiB; put it into a file and name that")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"the {what} is not valid UTF-8")
    return text


def _read_file(path: str, what: str) -> str:
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(MAX_TEXT_BYTES + 1)
        return data[: MAX_TEXT_BYTES + 1].decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read the {what} from {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        # the cut may have hit the middle of a character; it is too long anyway
        if len(data) > MAX_TEXT_BYTES:
            raise UsageError(
                f"the {what} is longer than {MAX_TEXT_BYTES // 1024} KiB; name the file instead"
            ) from error
        raise UsageError(f"the {what} in {path} is not valid UTF-8 (byte {error.start})") from error
