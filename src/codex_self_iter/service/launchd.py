"""launchd: render and check a property list. By its documentation; no test runs on macOS."""

from __future__ import annotations

import os
import plistlib
from typing import Any
from xml.parsers.expat import ExpatError

from codex_self_iter.service.spec import MARK, ServiceSpec, data

THROTTLE_SEC = 30
"""launchd's own floor between two starts is 10 s."""
_TYPES: dict[str, type] = {
    "Label": str, "ProgramArguments": list, "WorkingDirectory": str, "EnvironmentVariables": dict,
    "RunAtLoad": bool, "KeepAlive": dict, "ThrottleInterval": int, "ExitTimeOut": int,
    "StandardOutPath": str, "StandardErrorPath": str, "ProcessType": str,
    "AbandonProcessGroup": bool, "SoftResourceLimits": dict, "UserName": str,
}  # fmt: skip


def label(name: str) -> str:
    """The job's label."""
    return f"codex-self-iter.{name}"


def plist_path(name: str, *, system: bool) -> str:
    """Where the property list belongs."""
    own = os.path.join(os.path.expanduser("~"), "Library", "LaunchAgents")
    return os.path.join("/Library/LaunchDaemons" if system else own, label(name) + ".plist")


def plist(spec: ServiceSpec, logs: str = "") -> dict[str, Any]:
    """The property list's keys. `logs` is a directory; by default the usual one."""
    home_logs = os.path.join(os.path.expanduser("~"), "Library", "Logs")
    directory = logs or ("/Library/Logs" if spec.system else home_logs)
    log = os.path.join(directory, label(spec.name) + ".log")
    keys: dict[str, Any] = {
        "Label": label(spec.name),
        # The wrapper turns the exit codes after which a restart would not help into 0; see there.
        "ProgramArguments": ["/bin/sh", data("launchd-wrapper.sh"), *spec.argv],
        "WorkingDirectory": spec.workspace,
        "EnvironmentVariables": {**spec.environment, "CODEX_SELF_ITER_ENV_FILE": spec.env_file},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": THROTTLE_SEC,
        "ExitTimeOut": spec.stop_sec,
        "StandardOutPath": log,
        "StandardErrorPath": log,
        "ProcessType": "Standard",
        "AbandonProcessGroup": False,
        "SoftResourceLimits": {"NumberOfFiles": 4096},
    }
    return keys | ({"UserName": spec.user} if spec.user else {})


def render(spec: ServiceSpec, logs: str = "") -> str:
    """The property list as XML, with our mark."""
    text = plistlib.dumps(plist(spec, logs), sort_keys=False).decode("utf-8")
    head, rest = text.split("\n", 1)
    return f"{head}\n<!-- {MARK.replace('--', '-')} -->\n{rest}"


def verify(text: str) -> str:
    """What is wrong with a property list, "" if nothing is."""
    try:
        keys = plistlib.loads(text.encode("utf-8"))
    except (ValueError, ExpatError) as error:
        return f"not a property list: {error}"
    for key, value in keys.items():
        if key not in _TYPES:
            return f"unknown key {key}"
        if not isinstance(value, _TYPES[key]):
            return f"{key} has the wrong type"
    missing = [key for key in ("Label", "ProgramArguments") if key not in keys]
    return f"{missing[0]} is missing" if missing else ""
