"""A fence around what an agent's runs may touch: which means build it, and what is open. Pure.

Paths are absolute and real (without links), and are there when they are named here."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Means(enum.StrEnum):
    """What the walls of level "write" are built with; `world/process/walls.py` builds them."""

    NAMESPACES = "namespaces"
    BUBBLEWRAP = "bubblewrap"
    LANDLOCK = "landlock"


EXACT = (Means.NAMESPACES, Means.BUBBLEWRAP)
"""They can close a path inside an open one."""
SCOPE_ABI = 6
"""Landlock keeps signals and abstract sockets inside from this version on (Linux 6.12)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """What this machine can do, as tried.

    Attributes:
        landlock: version of Landlock's interface; 0 for none.
        namespaces: why a mount namespace cannot be made; "" when it can.
        bubblewrap: why bubblewrap cannot be used; "" when it can.
        bwrap: path of its program.
        offline: the filter for sockets is known here."""

    landlock: int = 0
    namespaces: str = "not tried"
    bubblewrap: str = "not tried"
    bwrap: str = ""
    offline: bool = False

    def flaw(self, means: Means) -> str:
        """Why these means cannot be used here; "" when they can."""
        if means is Means.LANDLOCK:
            return "" if self.landlock else "this kernel has none, or it is switched off"
        return self.namespaces if means is Means.NAMESPACES else self.bubblewrap

    @property
    def scoped(self) -> bool:
        """Signals and abstract sockets of an agent reach nothing outside."""
        return self.landlock >= SCOPE_ABI


class Choice(NamedTuple):
    """The means that are taken, or why none is (`flaw`) and what mends it."""

    means: Means | None = None
    flaw: str = ""
    mend: str = ""


BYPASS = 'set agent_mode to "bypass", as the fence holds the agent without its own sandbox'
OUTSIDE = "set state_dir to a directory outside the workspace"


def choose(
    machine: Machine, by: str, *, offline: bool, state_inside: bool, sandboxed: str = ""
) -> Choice:
    """The means for level "write". `by` names one, or is "auto": the first that works.

    `state_inside`: the state directory lies in the workspace, where Landlock cannot close it: a rule
    of it opens a directory with all below. `sandboxed`: an agent whose commands run in a sandbox of
    its own that mounts."""
    if offline and not machine.offline:
        what = 'network = "none" cannot be kept on this machine'
        return Choice(flaw=what, mend='set [fence] network to "all"')
    flaws: dict[Means, str] = {}
    for means in Means if by == "auto" else (Means(by),):
        flaws[means] = machine.flaw(means)
        if not flaws[means] and means is Means.LANDLOCK and state_inside:
            flaws[means] = "it cannot close the state directory inside the workspace"
        elif not flaws[means] and means is Means.LANDLOCK and sandboxed:
            flaws[means] = f"{sandboxed}'s own sandbox cannot work inside it"
        if not flaws[means]:
            return Choice(means)
    said = "; ".join(f"{means}: {flaw}" for means, flaw in flaws.items())
    mends = ["allow unprivileged user namespaces", "install bubblewrap"]
    if by != "auto":
        mends = ['set [fence] by to "auto"']
    if machine.landlock and state_inside and Means.LANDLOCK in flaws:
        mends.append(OUTSIDE)
    elif machine.landlock and sandboxed and Means.LANDLOCK in flaws:
        mends.append(BYPASS)
    mend = ", or ".join(mends)
    return Choice(flaw=f'the fence\'s level "write" cannot be built here ({said})', mend=mend)


def weakness(machine: Machine, means: Means) -> tuple[str, ...]:
    """What the walls do not hold against on this machine, for people."""
    found = []
    if means not in EXACT:
        found += [
            "hooks and git's configuration are put back after a run, not closed during it",
            "gate files and the loop's configuration can be changed: no completion is believed then",
            "sockets of your programs can be reached",
            "the agent's own sandbox, if it has one, cannot work inside",
        ]
        if machine.landlock < 3:
            found.append("a file outside can be emptied, not written (Landlock below version 3)")
    if not machine.scoped:
        found.append(f"an agent may signal your processes (Landlock below version {SCOPE_ABI})")
    return tuple(found)


@dataclasses.dataclass(frozen=True, slots=True)
class Ground:
    """What is around one run.

    Attributes:
        workspace: where it works; the agent may write it.
        state: the state directory, of which it may write `run` (the run's own) and what `open` has.
        scratch: its temporary directory, in `run`.
        open: what else it may write: homes, git's directories, what was allowed.
        sealed: what it must not write though it lies in something open.
        programs: of these, what tells git which programs to run; also where it is not there yet.
        places: git's directories.
        stray: where the workspace's `.git` leads, if that does not know of the workspace: it is not
            opened.
        worktree_config: git reads config.worktree.
        closed: what it must not read.
        sockets: sockets of other programs, and directories that hold such.
        readable: all but what is closed, for Landlock, which knows only what is open.
        below: mounts inside something open that can be written outside the fence.
        stdin: the prompt's file, or ""."""

    workspace: str
    state: str
    run: str
    scratch: str
    open: tuple[str, ...] = ()
    sealed: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    stray: str = ""
    worktree_config: bool = False
    closed: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    stdin: str = ""


DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm")
"""What of /dev is open under Landlock."""


def walls(
    ground: Ground, means: Means, *, bwrap: str = "", offline: bool = False
) -> dict[str, Any]:
    """The plan by which `world/process/walls.py` builds the walls of one run."""
    opened = (ground.workspace, *ground.open, ground.run)
    plan: dict[str, Any] = {
        "by": str(means), "cwd": ground.workspace, "anchor": ground.scratch,
        "stdin": ground.stdin, "offline": offline, "bwrap": bwrap,
    }  # fmt: skip
    if means is Means.LANDLOCK:
        devices = [f"/dev/{name}" for name in DEVICES]
        plan["writable"] = [*opened, *devices]
        plan["readable"] = [*ground.readable, *devices] if ground.closed else None
        return plan
    shut = (ground.state, *ground.sealed, *ground.closed)
    apart = (ground.run, *_apart(ground.open, opened, shut))
    kinds: dict[str, str] = dict.fromkeys((ground.workspace, *apart), "rw")
    for path in shut:
        # a directory above it that could be renamed would take it along
        kinds |= {above: "rw" for above in _between(path, opened) if above not in kinds}
    kinds |= {path: "rw" for path in ground.below if not any(inside(path, one) for one in shut)}
    kinds |= dict.fromkeys((ground.state, *ground.sealed), "ro")
    kinds |= dict.fromkeys(apart, "rw")
    kinds |= dict.fromkeys((*ground.closed, *ground.sockets), "closed")
    hidden = [path for path, kind in kinds.items() if kind == "closed"]
    order = sorted(kinds, key=lambda path: (path.count("/"), path))
    plan["mounts"] = [
        (kinds[path], path)
        for path in order
        if not any(inside(path, other) and path != other for other in hidden)
    ]
    return plan


def guarded(ground: Ground, means: Means) -> tuple[str, ...]:
    """What tells git which programs to run and no wall closes: it is put back after the run, before
    anything of ours asks git."""
    opened = (ground.workspace, *ground.open)
    reached = [path for path in ground.programs if any(inside(path, one) for one in opened)]
    if means not in EXACT:
        return tuple(reached)
    # git reads the last only where its configuration says so, and that is closed
    return tuple(
        path
        for path in reached
        if path not in ground.sealed
        and (ground.worktree_config or not path.endswith("/config.worktree"))
    )


def closed_in_open(ground: Ground) -> str:
    """What is closed and lies in something open, or ""."""
    opened = (ground.workspace, *ground.open)
    return next((path for path in ground.closed if any(inside(path, one) for one in opened)), "")


def closed_to(ground: Ground, path: str) -> bool:
    """Whether the fence keeps an agent from reading a path."""
    return any(inside(path, one) for one in (*ground.closed, *ground.sockets))


def refused(ground: Ground, path: str) -> bool:
    """Whether the fence keeps an agent from writing to a path."""
    if closed_to(ground, path) or any(inside(path, one) for one in ground.sealed):
        return True
    if inside(path, ground.state):
        return not any(inside(path, one) for one in (ground.run, *ground.open))
    return not any(inside(path, one) for one in (ground.workspace, *ground.open, "/dev", "/proc"))


def lets(ground: Ground, agent: str) -> str:
    """What an agent may write beside its workspace, for people."""
    around = (ground.workspace, ground.state)
    homes = [path for path in ground.open if not any(inside(path, one) for one in around)]
    return f"its fence lets {agent} write {' and '.join(homes) or 'nothing'} beside the workspace"


def inside(path: str, directory: str) -> bool:
    """Whether a path is a directory, or lies in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _apart(paths: Iterable[str], opened: Iterable[str], shut: Iterable[str]) -> list[str]:
    """Of open paths those that nothing around them opens already: what is mounted cannot be renamed
    over, as editors do with what they save."""
    return [
        path
        for path in paths
        if any(inside(path, one) for one in shut)
        or not any(inside(path, one) and path != one for one in opened)
    ]


def _between(path: str, opened: Iterable[str]) -> list[str]:
    """The directories above a path, as far as they lie in something open."""
    around = [one for one in opened if inside(path, one)]
    found: list[str] = []
    parent = path.rpartition("/")[0]
    while parent and any(inside(parent, one) for one in around):
        found.append(parent)
        parent = parent.rpartition("/")[0]
    return found


def closed_variables(environment: Mapping[str, str], closed: Iterable[str]) -> tuple[str, ...]:
    """The variables that lead to sockets behind the walls: they are left out."""
    shut = tuple(closed)
    return tuple(
        name
        for name in (
            "SSH_AUTH_SOCK",
            "XDG_RUNTIME_DIR",
            "DBUS_SESSION_BUS_ADDRESS",
            "DOCKER_HOST",
            "TMUX",
        )
        if (value := environment.get(name)) and any(inside(_path_in(value), path) for path in shut)
    )


def _path_in(value: str) -> str:
    """The path in an address such as `unix:path=/run/user/1000/bus`, or in tmux's `path,1,0`."""
    text = value.removeprefix("unix:path=").removeprefix("unix://")
    return text.partition(",")[0]
