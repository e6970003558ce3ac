"""The program that tests from outside run: this checkout, or the wheel that `--installed` made."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable

import psutil

from tests.support.wheel import VARIABLE

PYTHON = os.environ.get(VARIABLE, sys.executable)
PROGRAM = (PYTHON, "-m", "codex_self_iter")


def running(module: str, among: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that run this module of ours; none that has ended and waits to be reaped."""
    found = []
    for one in among:
        with contextlib.suppress(psutil.Error):
            if module in one.cmdline():
                found.append(one)
    return found
