"""`version`: what is installed here, for a report of a defect or a check of an installation."""

from __future__ import annotations

import argparse
import json
import os
import sys

import codex_self_iter
from codex_self_iter.cli import PROGRAM
from codex_self_iter.errors import ExitCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = (
        "one JSON object: name, version, location, python, executable, platform, libraries, extras"
    )
    parser.add_argument("--json", action="store_true", help=what)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    facts = _facts()
    text = json.dumps(facts, indent=2) if args.json else "\n".join(_lines(facts))
    sys.stdout.write(text + "\n")
    return int(ExitCode.OK)


def _facts() -> dict[str, Any]:
    from codex_self_iter.world import installed

    have, asked = installed.versions(), installed.requirements()
    libraries = {extra: {name: have.get(name) for name in asked[extra]} for extra in asked}
    return {
        "name": PROGRAM,
        "version": codex_self_iter.__version__,
        "location": os.path.dirname(codex_self_iter.__file__),
        "python": ".".join(map(str, sys.version_info[:3])),
        "executable": sys.executable,
        "platform": f"{sys.platform}-{os.uname().machine}",
        "libraries": libraries.pop("", {}),
        "extras": {
            extra: {"installed": None not in its.values(), "libraries": its}
            for extra, its in libraries.items()
        },
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    extras = [
        f"{extra} ({'installed' if its['installed'] else 'not installed'}: {_named(its['libraries'])})"
        for extra, its in facts["extras"].items()
    ]
    return [
        f"{facts['name']} {facts['version']}, in {facts['location']}",
        f"python     {facts['python']}, {facts['executable']}",
        f"platform   {facts['platform']}",
        f"libraries  {_named(facts['libraries']) or 'unknown: it was not installed as a package'}",
        f"extras     {'; '.join(extras) or 'none'}",
    ]


def _named(libraries: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'missing'}" for name, version in libraries.items())
