"""Which installed service runs a loop: by the files of systemd and launchd, for this user and for all."""

from __future__ import annotations

import glob
import itertools
import os
import plistlib
import re
from collections.abc import Iterable
from contextlib import suppress
from xml.parsers.expat import ExpatError

from codex_self_iter.service import launchd, systemd


def of(workspace: str, configs: Iterable[str]) -> str:
    """The path of a service of this workspace, or of one of these configuration files; "" for none."""
    files = [*map(os.path.realpath, configs)]
    wanted = {
        ("--workspace", os.path.realpath(workspace)),
        *(("--config", path) for path in files),
        *(("--config-dir", os.path.dirname(path)) for path in files),
    }
    for system in (False, True):
        units = os.path.dirname(systemd.unit_path("x", system=system))
        lists = os.path.dirname(launchd.plist_path("x", system=system))
        for pattern in (
            f"{glob.escape(units)}/{systemd.PREFIX}*.service",
            f"{glob.escape(lists)}/*.plist",
        ):
            for path in sorted(glob.glob(pattern)):
                if wanted & _options(path):
                    return path
    return ""


def _options(path: str) -> set[tuple[str, str]]:
    """Pairs of words that follow each other in the command line of a service."""
    words: list[str] = []
    with suppress(OSError, ValueError, ExpatError, AttributeError):
        with open(path, "rb") as file:
            data = file.read(1_000_000)
        if path.endswith(".plist"):
            words = [str(word) for word in plistlib.loads(data).get("ProgramArguments", [])]
        else:
            line = re.search(r"^ExecStart=(.*)$", data.decode("utf-8", "replace"), re.MULTILINE)
            words = systemd.words(line[1]) if line else []
    return {(one, os.path.realpath(other)) for one, other in itertools.pairwise(words)}
