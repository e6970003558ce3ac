"""What stop, pause, resume, steer and goal share: which loop is meant, and which text."""

from __future__ import annotations

import argparse
import sys

from codex_self_iter.cli import _common
from codex_self_iter.errors import UsageError
from codex_self_iter.screens import steering
from codex_self_iter.screens.steering import MAX_TEXT_BYTES, Aim, sound


def aim_at(args: argparse.Namespace) -> Aim:
    """The loop that is meant. Raises UsageError where there is no loop to control.

    A control can be left before the first start, but not in any directory that happens to be
    current."""
    loop = _common.find_loop(args)
    if _common.nowhere(loop):
        raise UsageError(
            f"no loop has run in {loop.workspace} (there is no {loop.state_dir} and no plan.md)"
        )
    return steering.aim(loop)


def read_text(args: argparse.Namespace, what: str) -> str:
    """The text of a message: from the words, a file, or stdin for "-". Raises UsageError.

    The name of a known loop goes to `args.loop` when nothing but one text, or a file, is beside it:
    what is written in several words may begin with any."""
    words, file = args.text, args.file
    if len(words) == (1 if file else 2):
        words = _common.name_first(args, words)
    if file and words:
        raise UsageError(f"give the {what} as words or with --file, not both")
    text = _read_file(file or "-", what) if file or words == ["-"] else " ".join(words)
    return sound(text, what)


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
