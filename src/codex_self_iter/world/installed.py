"""What is installed beside us, read from the names of files: `importlib.metadata` would take longer
than all the rest of a start."""

from __future__ import annotations

import os
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = "codex-self-iter"
_REQUIREMENT = r"^Requires-Dist: ([\w.-]+)[^;\n]*(?:; extra == '([^']+)')?$"
"""One with a further condition (a platform, a version of Python) does not match."""


def versions() -> dict[str, str]:
    """Name, in lower case and with hyphens, and version of every distribution that can be
    imported."""
    return {name: version for name, version, _ in _distributions()}


def requirements() -> dict[str, tuple[str, ...]]:
    """What our distribution asks for on every machine: names under "" for what it cannot do
    without, and under the name of each extra. Empty where we run from files that were never
    installed."""
    places = {name: path for name, _, path in _distributions()}
    if OURS not in places:
        return {}
    with open(os.path.join(places[OURS], "METADATA"), encoding="utf-8") as file:
        head = file.read().partition("\n\n")[0]
    found: dict[str, set[str]] = {"": set()}
    for extra in re.findall(r"^Provides-Extra: (.+)$", head, re.M):
        found[extra] = set()
    for name, extra in re.findall(_REQUIREMENT, head, re.M):
        found.setdefault(extra, set()).add(_normal(name))
    return {extra: tuple(sorted(names)) for extra, names in found.items()}


_there: set[str] = set()
"""Modules that were found: to look for one costs a part of a millisecond, and is done for each message."""


def program(module: str) -> tuple[str, ...]:
    """The command line of a module of ours as a program of its own. -P: nothing of the directory that
    we happen to be in is imported."""
    return sys.executable, "-P", "-m", module


def lack(extra: str, *modules: str) -> str:
    """What is missing of an extra, with the command that installs it; "" when all modules are
    there."""
    import importlib.util  # only where an extra is asked for
    import shlex

    missing = [
        name for name in modules if name not in _there and importlib.util.find_spec(name) is None
    ]
    _there.update(modules if not missing else ())
    if not missing:
        return ""
    asked = requirements().get(extra, ())
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    if importlib.util.find_spec("pip") is None:
        pip = f"uv pip install --python {shlex.quote(sys.executable)}"
    return (
        f"needs the extra [{extra}] ({', '.join(missing)} is not installed): "
        f"{pip} {' '.join(asked) or ' '.join(missing)}"
    )


def _distributions() -> Iterator[tuple[str, str, str]]:
    """Name, version and directory of metadata; the last is the one that is imported."""
    for place in reversed(sys.path):
        for entry in os.listdir(place) if os.path.isdir(place) else ():
            if entry.endswith(".dist-info"):
                name, _, version = entry.removesuffix(".dist-info").rpartition("-")
                yield _normal(name), version, os.path.join(place, entry)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
