"""Finding an agent's program, and asking it harmless questions in bounded time."""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence

from codex_self_iter.agents.base import AgentMissingError, Probe, VersionRange
from codex_self_iter.world.bounded import run
from codex_self_iter.world.start import start_directory

_PLACES = (
    "~/.local/bin",
    "~/bin",
    "~/.npm-global/bin",
    "~/.npm/bin",
    "~/.volta/bin",
    "~/.bun/bin",
    "~/.local/share/pnpm",
    "~/Library/pnpm",
    "~/.local/share/mise/shims",
    "~/.asdf/shims",
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/home/linuxbrew/.linuxbrew/bin",
    "/usr/bin",
)
_VERSIONED = ("~/.nvm/versions/node/*/bin", "~/.local/share/fnm/node-versions/*/installation/bin")
_ASK_SEC = 20.0
_ANSWER_BYTES = 64 * 1024
_MOST = 64 * 1024 * 1024
"""Of an answer whose end counts: a gate may say a lot before it."""


class Found(str):
    """Absolute path of a program that was found."""

    __slots__ = ()


def find_program(
    name: str,
    configured: str,
    environment: Mapping[str, str],
    *,
    mend: str,
    places: Iterable[str] = (),
) -> Found:
    """Find a program: the configured one, else PATH, else the common places (nvm, Homebrew,
    ~/.local/bin…).

    Raises:
        AgentMissingError: it is not there; `mend` is the end of the message."""
    wanted = configured or name
    if "/" in wanted:
        path = os.path.normpath(os.path.join(start_directory(), _expand(wanted, environment)))
        if _runnable(path):
            return Found(path)
        state = "cannot be executed" if os.path.exists(path) else "does not exist"
        raise AgentMissingError(f"agent {name!r}: the configured program {path} {state}; {mend}")
    on_path = shutil.which(wanted, path=environment.get("PATH") or os.defpath)
    if on_path:
        return Found(os.path.normpath(os.path.join(start_directory(), on_path)))
    looked = [*places, *_PLACES]
    for place in [*looked, *_versioned(environment)]:
        path = os.path.join(_expand(place, environment), wanted)
        if _runnable(path):
            return Found(path)
    raise AgentMissingError(
        f"agent {name!r}: no program {wanted!r} on PATH or in {', '.join(looked)}, "
        f"nvm's directories; {mend}"
    )


def with_path(program: str, environment: Mapping[str, str]) -> dict[str, str]:
    """A PATH on which the program's own directory comes last if it was not there: a service's PATH
    lacks the `node` that stands beside an nvm-installed CLI."""
    path = environment.get("PATH") or os.defpath
    directory = os.path.dirname(program)
    return {
        "PATH": path if directory in path.split(os.pathsep) else f"{path}{os.pathsep}{directory}"
    }


def ask(
    argv: Sequence[str],
    environment: Mapping[str, str],
    timeout_sec: float = _ASK_SEC,
    cwd: str | None = None,
) -> tuple[int | None, str]:
    """Run a harmless command: its exit code (negative for a signal; None: it did not start, or did
    not answer in time) and the end of what it said."""
    try:
        done = run(
            argv, env=environment, cwd=cwd, timeout_sec=timeout_sec, max_output=_MOST, merge=True
        )
    except OSError as error:
        return None, str(error)
    if done.timed_out:
        return None, f"no answer within {timeout_sec:g} s"
    said = done.stdout[-_ANSWER_BYTES:].decode("utf-8", "replace").strip()
    return -done.signal if done.signal else done.exit_code, said


def probe_program(
    program: str, environment: Mapping[str, str], known: VersionRange | None
) -> Probe:
    """Ask a program its version and compare it with the measured ones."""
    code, said = ask([program, "--version"], environment)
    found = re.search(r"\d+(?:\.\d+)+(?:[-+][0-9A-Za-z.]+)?", said)
    if code != 0 or found is None:
        last = said.splitlines()[-1] if said else "no output"
        return Probe(
            True, program, detail=f"`{program} --version` failed: {last}", mend="install it again"
        )
    version = found.group()
    remark = unmeasured(version, known)
    return Probe(True, program, version, measured=not remark, detail=remark or f"version {version}")


def unmeasured(version: str, known: VersionRange | None) -> str:
    """Says that a version is none of the measured ones; "" when it is."""
    if known is None or _number(known.first) <= _number(version) <= _number(known.last):
        return ""
    side = "older" if _number(version) < _number(known.first) else "newer"
    measured = f"{known.first} to {known.last}"
    return f"version {version} is {side} than those this was measured with ({measured})"


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _versioned(environment: Mapping[str, str]) -> list[str]:
    places = list(_VERSIONED)
    if environment.get("NVM_DIR"):
        places.insert(0, environment["NVM_DIR"] + "/versions/node/*/bin")
    found = [path for place in places for path in glob.glob(_expand(place, environment))]
    return sorted(found, key=_number_of_path, reverse=True)


def _number_of_path(path: str) -> tuple[int, ...]:
    found = re.findall(r"v(\d+(?:\.\d+)*)", path)
    return _number(found[-1]) if found else ()


def _expand(path: str, environment: Mapping[str, str]) -> str:
    home = environment.get("HOME") or os.path.expanduser("~")
    return home + path[1:] if path == "~" or path.startswith("~/") else path


def _runnable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)
