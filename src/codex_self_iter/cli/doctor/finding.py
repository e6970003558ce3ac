"""What the checks of `doctor` share: what they look at, and what they find."""

from __future__ import annotations

import dataclasses
import functools
import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from codex_self_iter.settings import ResolvedPaths, Settings, resolve_paths

Status = Literal["ok", "warn", "fail"]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One result.

    Attributes:
        id: stable, `part.detail`.
        status: "fail" would stop or spoil a run; "warn" may; "ok" does not.
        what: one line for people.
        mend: the command or the edit that mends it; "" for "ok".
        loop: name of the loop, where there are several."""

    id: str
    status: Status
    what: str
    mend: str = ""
    loop: str = ""


def good(name: str, what: str) -> Finding:
    """Nothing to mend."""
    return Finding(name, "ok", what)


def warn(name: str, what: str, mend: str) -> Finding:
    """May spoil a run."""
    return Finding(name, "warn", what, mend)


def fail(name: str, what: str, mend: str) -> Finding:
    """Would stop or spoil a run."""
    return Finding(name, "fail", what, mend)


@dataclasses.dataclass(frozen=True)
class Context:
    """What the checks look at. `now` is the wall clock in Unix seconds."""

    settings: Settings
    environ: Mapping[str, str]
    now: float
    run_gates: bool = False

    @functools.cached_property
    def paths(self) -> ResolvedPaths:
        """The loop's paths; they need not exist."""
        return resolve_paths(self.settings)

    @property
    def workspace(self) -> str:
        """The workspace's path."""
        return str(self.paths.workspace)

    @property
    def quoted(self) -> str:
        """The workspace's path as a shell takes it."""
        return shlex.quote(self.workspace)

    @property
    def has_workspace(self) -> bool:
        """Whether there is a directory to look into; if not, one finding has said so."""
        return os.path.isdir(self.workspace)


Check = Callable[[Context], Iterable[Finding]]
