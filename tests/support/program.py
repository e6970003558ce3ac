"""The program that tests from outside run: this checkout, or the wheel that `--installed` made."""

from __future__ import annotations

import os
import sys

from tests.support.wheel import VARIABLE

PYTHON = os.environ.get(VARIABLE, sys.executable)
PROGRAM = (PYTHON, "-m", "codex_self_iter")
