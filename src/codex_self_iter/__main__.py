"""`python -m codex_self_iter` and the `codex-self-iter` script."""

from __future__ import annotations

# what `signal` is made of, without what that imports: these lines are in a hurry
import _signal  # type: ignore[import-not-found]
import os
import sys


def _end_early(number: int, _frame: object) -> None:
    """Nothing has been started yet: a signal ends the program as it is documented."""
    os._exit(130 if number == _signal.SIGINT else 0)


for _number in (_signal.SIGTERM, _signal.SIGINT):  # also where a shell's background ignores them
    _signal.signal(_number, _end_early)
_signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # where it is ignored, no child's end is seen
if _signal.getsignal(_signal.SIGHUP) == _signal.SIG_DFL:  # a loop outlives the terminal at once
    _signal.signal(_signal.SIGHUP, lambda *_: None)

import contextlib  # noqa: E402
import gc  # noqa: E402

# by default a seventh of a start is spent on looking for waste, and an import leaves none
gc.set_threshold(10_000)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its code.

    At once: what was started has ended and what was kept is written by now, and an interpreter that
    takes itself apart object by object would take a third of the time of a STOP."""
    if sys.getfilesystemencoding() != "utf-8":
        # git, agents and people name files and write texts in UTF-8, whatever the locale says
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
    try:
        from codex_self_iter.cli import main as run_cli

        code = run_cli(sys.argv[1:])
    except KeyboardInterrupt:  # while still importing
        code = 130
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
