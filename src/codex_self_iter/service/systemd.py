"""systemd: render, check, place and remove a unit."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping

from codex_self_iter.service.spec import MARK, ServiceSpec, data
from codex_self_iter.world.bounded import run

PREFIX = "codex-self-iter"
VERIFY_TIMEOUT_SEC = 30


def unit_name(name: str) -> str:
    """`codex-self-iter-NAME.service`."""
    return f"{PREFIX}-{name}.service"


def unit_path(name: str, *, system: bool) -> str:
    """Where the unit belongs."""
    if system:
        return os.path.join("/etc/systemd/system", unit_name(name))
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "systemd", "user", unit_name(name))


def escape_path(path: str) -> str:
    """A path as the value of WorkingDirectory= and the like, which take the rest of the line."""
    return path.replace("%", "%%")


def escape_argument(text: str) -> str:
    """One word of ExecStart= or Environment=: no specifier, variable or escape is expanded."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    text = text.replace("\n", "\\n").replace("\t", "\\t")
    return f'"{text}"' if not text or set(text) & set(" '\";\\") else text


def words(line: str) -> list[str]:
    """The words that `escape_argument` made a command line of."""
    plain = {"\\n": "\n", "\\t": "\t", "%%": "%", "$$": "$"}
    return [
        re.sub(r"\\.|%%|\$\$", lambda found: plain.get(found[0], found[0][-1]), quoted or bare)
        for quoted, bare in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)
    ]


def _variable(text: str) -> str:
    """One word of a setting that knows no variables: a dollar stays single there."""
    return escape_argument(text).replace("$$", "$")


def render(spec: ServiceSpec) -> str:
    """The whole unit for one installation."""
    pairs = [_variable(f"{key}={value}") for key, value in spec.environment.items()]
    return fill(
        {
            "HEAD": MARK,
            "DESCRIPTION": escape_path(spec.workspace),
            "EXEC": " ".join(escape_argument(word) for word in spec.argv),
            "KILL": shutil.which("kill") or "/bin/kill",
            "WORKSPACE": escape_path(spec.workspace),
            "USER": f"User={escape_path(spec.user)}\n" if spec.user else "",
            "ENVIRONMENT": "".join(f"Environment={pair}\n" for pair in pairs),
            "ENV_FILE": escape_path(spec.env_file),
            "STOP_SEC": str(spec.stop_sec),
        }
        | system_values(_variable(spec.workspace), spec.workspace, system=spec.system)
    )


def system_values(word: str, workspace: str, *, system: bool) -> dict[str, str]:
    """What differs between a user's and a system's unit. `word` is the workspace, escaped."""
    if not system:
        return {"UNIT_EXTRA": "", "HARDENING": "", "TARGET": "default.target"}
    hardening = _read("hardening-system.in").rstrip().replace("@WORKSPACE@", word)
    if workspace and os.path.realpath(workspace).startswith(("/tmp/", "/var/tmp/")):  # noqa: S108
        hardening = hardening.replace("PrivateTmp=yes", "# (not here: the workspace is there)")
    extra = (
        "# Not before the workspace's file system is there, and the network the agents need.\n"
        f"RequiresMountsFor={word}\nWants=network-online.target\nAfter=network-online.target\n"
    )
    return {"UNIT_EXTRA": extra, "HARDENING": hardening + "\n", "TARGET": "multi-user.target"}


def fill(values: Mapping[str, str]) -> str:
    """The unit with these values in place of the template's marks."""
    text = _read("codex-self-iter.service.in")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def _read(name: str) -> str:
    with open(data(name), encoding="utf-8") as file:
        return file.read()


def verify(text: str, name: str, *, system: bool) -> str:
    """What systemd-analyze has against a unit; "" when it is content, or not there to be asked."""
    if not shutil.which("systemd-analyze"):
        return ""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        scope = "--system" if system else "--user"
        # the user's manager is looked for there, and a shell by sudo or ssh may lack it
        runtime = os.environ.get("XDG_RUNTIME_DIR") or directory
        environment = os.environ | {"XDG_RUNTIME_DIR": runtime}
        try:
            argv = ["systemd-analyze", "--man=no", scope, "verify", path]
            done = run(argv, env=environment, timeout_sec=VERIFY_TIMEOUT_SEC)
        except OSError:
            return ""
    if done.timed_out:
        return ""
    ours = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if name in line]
    return "\n".join(ours) if done.exit_code != 0 or ours else ""
