"""A wheel of this checkout, in an environment that has nothing else; and what people install it
with."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "CODEX_SELF_ITER_TEST_PYTHON"
"""Names the Python that has it; the workers of a test run inherit it."""


def install(directory: Path) -> Path:
    """Build the wheel and install it, with its screens; its Python. Raises CalledProcessError."""

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, cwd=directory, stdin=subprocess.DEVNULL)

    python = directory / "environment" / "bin" / "python"
    pip = python, "-m", "pip", "--quiet", "--disable-pip-version-check"
    run(sys.executable, "-m", "venv", directory / "environment")
    run(*pip, "wheel", "--no-deps", "-w", directory, ROOT)
    (wheel,) = directory.glob("*.whl")
    run(*pip, "install", "-c", ROOT / "constraints.txt", f"{wheel}[all]")
    return python


class Kit(NamedTuple):
    """What `kit` made."""

    wheel: Path
    sdist: Path
    uv: Path
    pipx: Path
    environment: dict[str, str]
    """Variables that lead to the package index as those of this process do, and to nothing else."""


def kit(directory: Path) -> Kit:
    """uv and pipx from the package index, and what uv builds: an sdist, and a wheel out of that.

    Made once for all workers of a test run. Raises CalledProcessError."""
    directory.mkdir(exist_ok=True)
    tools, made = directory / "tools" / "bin", directory / "made"
    variables = {"UV_CACHE_DIR": str(directory / "cache"), **_to_the_index()}
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(directory), **variables}
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            calm = {
                "check": True,
                "cwd": directory,
                "stdin": subprocess.DEVNULL,
                "env": environment,
            }
            subprocess.run([sys.executable, "-m", "venv", tools.parent], **calm)  # type: ignore[call-overload]
            subprocess.run([tools / "pip", "install", "--quiet", "uv", "pipx"], **calm)  # type: ignore[call-overload]
            build = [tools / "uv", "build", "--quiet", "--out-dir", directory / "dist", ROOT]
            subprocess.run(build, **calm)  # type: ignore[call-overload]
            made.touch()
    (wheel,), (sdist,) = ([*(directory / "dist").glob(end)] for end in ("*.whl", "*.tar.gz"))
    return Kit(wheel, sdist, tools / "uv", tools / "pipx", environment)


def _to_the_index() -> dict[str, str]:
    """The person's settings of pip and uv, certificates and proxies, and the versions to install."""
    begin, end = ("PIP_", "UV_", "SSL_"), ("_CA_BUNDLE", "_PROXY", "_proxy")
    found = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(begin) or name.endswith(end)
    }
    ask = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    index = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
    named = {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index} if index else {}
    versions = str(ROOT / "constraints.txt")
    chosen = {"PIP_CONSTRAINT": versions, "UV_CONSTRAINT": versions, "UV_PYTHON_DOWNLOADS": "never"}
    chosen["PIP_NO_COMPILE"] = "1"  # most of what is installed is never run
    return {**named, **found, **chosen}


def interpreter(version: str) -> str | None:
    """A Python of this version, "3.12", that works and makes environments; None: there is none.

    Looked for on PATH, in pyenv and in the tool cache of a CI runner; nothing is downloaded."""
    works = f"import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    for candidate in _interpreters(version):
        done = subprocess.run([candidate, "-c", works], capture_output=True, check=False)
        if done.returncode == 0:
            return str(candidate)
    return None


def _interpreters(version: str) -> Iterator[Path]:
    name = f"python{version}"
    yield Path(sys.executable).resolve()
    yield from (file for each in os.get_exec_path() if (file := Path(each, name)).exists())
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from (pyenv / "versions").glob(f"{version}.*/bin/{name}")
    if cache := os.environ.get("RUNNER_TOOL_CACHE"):
        yield from Path(cache, "Python").glob(f"{version}.*/*/bin/{name}")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir()
    print(install(place))
