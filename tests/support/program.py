"""The program that tests from outside run: this checkout, or the wheel that `--installed` made."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator

import psutil

from tests.support.wheel import VARIABLE

PYTHON = os.environ.get(VARIABLE, sys.executable)
PROGRAM = (PYTHON, "-m", "codex_self_iter")


def commands(among: Iterable[psutil.Process]) -> Iterator[tuple[psutil.Process, list[str]]]:
    """Each with its command line, but for those that have ended and perhaps wait to be reaped."""
    for one in among:
        with contextlib.suppress(psutil.Error):
            yield one, one.cmdline()


def kill(among: Iterable[psutil.Process]) -> None:
    """Kill each that has not ended by now."""
    for one in among:
        with contextlib.suppress(psutil.Error):
            one.kill()


def running(module: str, among: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that run this module of ours."""
    return [one for one, line in commands(among) if module in line]
