"""What a service is made of, whatever the service manager. Values only."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from codex_self_iter.core.foreign import as_dict
from codex_self_iter.world import installed

MARK = "Written by 'codex-self-iter service install'; install again rather than edit (or use a drop-in)."
"""Stands in every file that we write; only files with it are replaced or removed."""
STOP_MARGIN_SEC = 35
"""Beside kill_grace_sec: the sweep of left-overs, the last write of the state, a slow disk."""


class ServiceSpec(NamedTuple):
    """One service: absolute paths, nothing escaped yet.

    Attributes:
        name: of the service, without prefix and suffix.
        workspace: where the loop runs.
        argv: the supervisor's whole command line.
        env_file: file with further variables; need not exist.
        environment: variables that are set in the unit itself.
        stop_sec: how long the supervisor may take to end.
        system: for the whole machine rather than for one user.
        user: account of a system service, "" for root."""

    name: str
    workspace: str
    argv: tuple[str, ...]
    env_file: str
    environment: Mapping[str, str]
    stop_sec: int
    system: bool = False
    user: str = ""


def data(name: str) -> str:
    """Absolute path of a file of the package's `data/`."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", name)


def service_name(workspace: str) -> str:
    """A name made of the workspace's own: letters, digits, `_`, `.` and `-`."""
    leaf = os.path.basename(os.path.normpath(workspace))
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", leaf).strip("-.") or "loop"


def supervisor_argv(workspace: str = "", config: str = "", config_dir: str = "") -> tuple[str, ...]:
    """The command line that starts this very installation, with the options that are not empty."""
    options = {"--workspace": workspace, "--config": config, "--config-dir": config_dir}
    words = (word for option, value in options.items() if value for word in (option, value))
    return (*installed.program("codex_self_iter"), *words)


def stop_seconds(config: Mapping[str, Any]) -> int:
    """The time a supervisor needs to end, by its configuration: its own bounds and a margin."""
    service = as_dict(config.get("service"))
    waits = service.get("on_stop") == "finish"
    finish = _seconds(service.get("finish_timeout_sec"), 3600) if waits else 0
    return finish + _seconds(config.get("kill_grace_sec"), 10) + STOP_MARGIN_SEC


def _seconds(value: object, default: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 10**8:
        return default
    return math.ceil(value)
