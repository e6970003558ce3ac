"""What is around one run, for the fence around its agent. Looks, and makes the agent's homes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping

from codex_self_iter.core.agent_homes import homes, secrets, there
from codex_self_iter.core.fence import Ground, inside
from codex_self_iter.world import mounts
from codex_self_iter.world.git.repository import repository_key
from codex_self_iter.world.guarded import read_guarded, stat_or_none

_PROGRAMS = ("hooks", "config", "config.worktree", "info")
"""By these git is told what to run, and what to leave out."""
_LINKED = ("gitdir", "commondir")
"""What makes a linked work tree one of its repository."""
_MAIN = ("HEAD", "index")
"""What is the main work tree's alone, seen from a linked one."""
_MOST_MODULES = 200
_GIT_SEC = 10.0
_LINK = re.compile(rb"\Agitdir: (.+?)\n*\Z", re.DOTALL)
_LISTENS = 0x10000
"""Flag of a listening socket in /proc/net/unix."""
_ANYBODYS = ("/run/systemd/journal", "/run/systemd/resolve", "/run/systemd/userdb", "/run/nscd")
"""Sockets that any program asks for names or writes its log to."""
_SOCKET_PLACES = ("/tmp/.X11-unix", "/tmp/.ICE-unix", "/run/screen")  # noqa: S108 - looked at only


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a fence around one run.

    Attributes:
        agent: the adapter's name.
        run, scratch: the run's own directory, and its temporary one in it.
        environment: the agent's.
        allow_write, allow_read, deny_read: as configured.
        sealed: what it must not write beside git's own.
        opened: what it must write beside the workspace and its homes.
        stdin: the prompt's file, or ""."""

    agent: str
    workspace: str
    state: str
    run: str
    scratch: str
    environment: Mapping[str, str]
    allow_write: tuple[str, ...] = ()
    allow_read: tuple[str, ...] = ()
    deny_read: tuple[str, ...] = ()
    sealed: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()
    stdin: str = ""


def survey(wanted: Wanted, *, make: bool = True) -> tuple[Ground, tuple[str, ...]]:
    """Look at what is around a run; returns what a person should know beside it. Blocks. `make`: the
    agent's homes that are not there are made."""
    workspace, state = os.path.realpath(wanted.workspace), os.path.realpath(wanted.state)
    remarks: list[str] = []
    allowed, readable, denied = (
        _there(key, getattr(wanted, key), wanted, remarks)
        for key in ("allow_write", "allow_read", "deny_read")
    )
    own = tuple(homes(wanted.agent, wanted.environment))
    if make:
        _make((*own, *there(wanted.agent, os.getuid())))
    git_open, git_sealed, programs = _git(workspace)
    opened = _real((*own, *git_open, *wanted.opened, *allowed))
    sealed = (*git_sealed, *programs, *wanted.sealed)
    shut = _real((*secrets(wanted.agent, wanted.environment), *denied))
    closed = tuple(_still_closed(shut, {"allow_write": allowed, "allow_read": readable}, remarks))
    around = [path for path in opened if inside(workspace, path) and path != workspace]
    remarks += [f"{path} is open, and the workspace lies in it" for path in around]
    ground = Ground(
        workspace=workspace,
        state=state,
        run=os.path.realpath(wanted.run),
        scratch=os.path.realpath(wanted.scratch),
        open=opened,
        sealed=_real(sealed),
        programs=tuple(dict.fromkeys(map(_in_real_directory, programs))),
        places=_real(git_open),
        closed=closed,
        sockets=tuple(_sockets(wanted.environment, (workspace, *opened, *readable, state))),
        readable=tuple(_all_but((*closed, "/dev") if os.geteuid() == 0 else closed))
        if closed
        else (),
        below=tuple(_below((workspace, *opened))),
        stdin=wanted.stdin,
    )
    return ground, tuple(remarks)


def _real(paths: Iterable[str]) -> tuple[str, ...]:
    """Those that are there, without links."""
    return tuple(dict.fromkeys(os.path.realpath(path) for path in paths if os.path.exists(path)))


def _in_real_directory(path: str) -> str:
    """The path with no link above it; it may be one itself."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def expanded(path: str, workspace: str, environment: Mapping[str, str]) -> str:
    """A configured path: `~` is HOME, a relative one counts from the workspace."""
    if path == "~" or path.startswith("~/"):
        path = environment.get("HOME", "").rstrip("/") + path[1:]
    return os.path.normpath(os.path.join(workspace, path))


def _there(key: str, paths: Iterable[str], wanted: Wanted, remarks: list[str]) -> tuple[str, ...]:
    """Configured paths without links; one that is not there is remarked."""
    places = {path: expanded(path, wanted.workspace, wanted.environment) for path in paths}
    lost = [path for path, place in places.items() if not os.path.exists(place)]
    remarks += [f"{key}: {path} is not there" for path in lost]
    return _real(places.values())


def _make(homes: Iterable[str]) -> None:
    """Make the directories among them that are not there, for their user alone."""
    for path in homes:
        if not os.path.lexists(path) and not path.endswith(".json"):
            with contextlib.suppress(OSError):
                os.makedirs(path, 0o700)


def _still_closed(
    shut: Iterable[str], allowed: Mapping[str, Iterable[str]], remarks: list[str]
) -> Iterator[str]:
    """What nothing opens that is allowed; each opening is remarked."""
    for path in shut:
        keys = [
            key for key in allowed for one in allowed[key] if inside(path, one) or inside(one, path)
        ]
        if keys:
            remarks.append(f"{keys[0]} opens {path}, which is closed otherwise")
        else:
            yield path


# -- git -------------------------------------------------------------------------------------------


def _git(workspace: str) -> tuple[list[str], list[str], list[str]]:
    """The directories that git writes, what in them must not be written, and what tells git which
    programs to run."""
    key = repository_key(workspace)
    if key is None:
        return [], [], []
    link = key[0]
    linked = os.path.isfile(link)
    git_dir = os.path.realpath(_named(_LINK, link, os.path.dirname(link)) if linked else link)
    common = os.path.realpath(_named(_WHOLE, f"{git_dir}/commondir", git_dir))
    programs = [f"{common}/{name}" for name in _PROGRAMS] + [*_modules(f"{common}/modules")]
    programs += hooks_directory(workspace)
    sealed: list[str] = []
    if linked or os.path.islink(link):
        programs.append(link)
    if common != git_dir:
        programs.append(f"{git_dir}/config.worktree")
        sealed += [f"{git_dir}/{name}" for name in _LINKED] + [f"{common}/{name}" for name in _MAIN]
    return [common, git_dir], [*sealed, f"{common}/worktrees"], programs


_WHOLE = re.compile(rb"\A(.+?)\n*\Z", re.DOTALL)


def _named(pattern: re.Pattern[bytes], path: str, base: str) -> str:
    """The directory that a small file of git names, else `base`."""
    said = None
    with contextlib.suppress(OSError):
        said = pattern.match(read_guarded(path, 4096))
    return os.path.join(base, os.fsdecode(said[1])) if said else base


def _modules(top: str) -> Iterator[str]:
    """What must not be written in the git directories of submodules."""
    count = 0
    for directory, names, files in os.walk(top):
        if "config" in files and "objects" in names:
            names[:] = [name for name in names if name == "modules"]
            yield from (f"{directory}/{name}" for name in _PROGRAMS)
            count += 1
            if count >= _MOST_MODULES:
                return


def hooks_directory(workspace: str) -> tuple[str, ...]:
    """Where git looks for hooks if that is not in its own directory (`core.hooksPath`)."""
    key = repository_key(workspace)
    if key is None:
        return ()
    marks = (
        stat_or_none(path) for path in (f"{key[0]}/config", os.path.expanduser("~/.gitconfig"))
    )
    return _hooks_directory(workspace, tuple(mark.st_mtime_ns if mark else 0 for mark in marks))


@functools.lru_cache(maxsize=64)
def _hooks_directory(workspace: str, _marks: tuple[int, ...]) -> tuple[str, ...]:
    command = ["git", "-C", workspace, "rev-parse", "--git-path", "hooks"]
    try:
        asked = subprocess.run(command, capture_output=True, timeout=_GIT_SEC, check=False)
    except (OSError, subprocess.SubprocessError):
        return ()
    said = os.fsdecode(asked.stdout).rstrip("\n")
    return (
        (os.path.normpath(os.path.join(workspace, said)),) if asked.returncode == 0 and said else ()
    )


# -- sockets, mounts, and what may be read ---------------------------------------------------------


def _sockets(environment: Mapping[str, str], keep: tuple[str, ...]) -> Iterator[str]:
    """Where programs outside listen, and directories of such places."""
    user = os.getuid()
    places = [environment.get("XDG_RUNTIME_DIR") or f"/run/user/{user}", f"/tmp/tmux-{user}"]  # noqa: S108
    directories = [
        path
        for path in _real((*places, *_SOCKET_PLACES))
        if os.path.isdir(path) and not any(inside(one, path) or inside(path, one) for one in keep)
    ]
    yield from directories
    kept = (*keep, *directories, *_ANYBODYS)
    for path in _listening():
        if not any(inside(path, one) for one in kept):
            yield path


def _listening() -> Iterator[str]:
    """Sockets of this machine on which somebody listens, as real paths."""
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        words = line.split(maxsplit=7)
        if len(words) == 8 and words[7].startswith("/") and int(words[3], 16) & _LISTENS:
            path = os.path.realpath(words[7])
            found = stat_or_none(path)
            if found is not None and stat.S_ISSOCK(found.st_mode):
                yield path


def _below(opened: tuple[str, ...]) -> Iterator[str]:
    """What is mounted in something open and can be written."""
    for point in mounts.points():
        if point.writable and any(inside(point.path, one) for one in opened):
            yield point.path


def _all_but(closed: Iterable[str]) -> Iterator[str]:
    """The largest directories and files that hold nothing closed: whatever is not closed is in one
    of them, but for what comes later beside something closed. Links lead to what has its own."""
    shut = set(closed)
    above = {parent for path in shut for parent in _parents(path)}

    def down(directory: str) -> Iterator[str]:
        try:
            with os.scandir(directory) as entries:
                names = [entry.name for entry in entries if not entry.is_symlink()]
        except OSError:
            return
        for name in names:
            path = os.path.join(directory, name)
            if path in above:
                yield from down(path)
            elif path not in shut:
                yield path

    return down("/")


def _parents(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path
