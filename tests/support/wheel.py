"""A wheel of this checkout, in an environment that has nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "CODEX_SELF_ITER_TEST_PYTHON"
"""Names the Python that has it; the workers of a test run inherit it."""


def install(directory: Path) -> None:
    """Build the wheel and install it, without extras. Raises CalledProcessError."""

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, cwd=directory, stdin=subprocess.DEVNULL)

    python = directory / "environment" / "bin" / "python"
    pip = python, "-m", "pip", "--quiet", "--disable-pip-version-check"
    run(sys.executable, "-m", "venv", directory / "environment")
    run(*pip, "wheel", "--no-deps", "-w", directory, ROOT)
    (wheel,) = directory.glob("*.whl")
    run(*pip, "install", "-c", ROOT / "constraints.txt", wheel)
    os.environ[VARIABLE] = str(python)
