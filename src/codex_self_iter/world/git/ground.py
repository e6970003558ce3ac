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
from typing import NamedTuple

from codex_self_iter.core.agent_homes import homes, secrets, there
from codex_self_iter.core.fence import Ground, inside
from codex_self_iter.world import mounts
from codex_self_iter.world.git.repository import repository_key
from codex_self_iter.world.guarded import read_guarded, stat_or_none

_PROGRAMS = ("hooks", "config", "config.worktree", "info")
"""By these git is told what to run, and what to leave out."""
_LINKED = ("gitdir", "commondir", "config.worktree")
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
    git_open, git_sealed, programs, stray = _git(workspace)
    if stray:
        remarks.append(
            f".git leads to {stray}, which does not know this workspace: it is not opened"
        )
    opened = _not_led_out((*own, *git_open, *wanted.opened, *allowed), workspace, remarks)
    sealed = (*git_sealed, *programs, *wanted.sealed)
    shut = _real((*secrets(wanted.agent, wanted.environment), *denied))
    readable = _real(readable)
    keys = {"allow_write": _real(allowed), "allow_read": readable}
    closed = tuple(_still_closed(shut, keys, remarks))
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
        stray=stray,
        worktree_config=_has_worktree_config(git_open),
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


def _not_led_out(paths: Iterable[str], workspace: str, remarks: list[str]) -> tuple[str, ...]:
    """Those that are there, without links. What lies in something that is open itself may be a link
    that an agent has made: it is not followed out of there."""
    named = [os.path.normpath(path) for path in paths if os.path.exists(path)]
    found = []
    for path in named:
        place = os.path.realpath(path)
        around = [one for one in (workspace, *named) if one != path and inside(path, one)]
        if any(not inside(place, os.path.realpath(one)) for one in around):
            remarks.append(f"{path} leads out of what is open: it is not followed")
        else:
            found.append(place)
    return tuple(dict.fromkeys(found))


def _in_real_directory(path: str) -> str:
    """The path with no link above it; it may be one itself."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def expanded(path: str, workspace: str, environment: Mapping[str, str]) -> str:
    """A configured path: `~` is HOME, a relative one counts from the workspace."""
    if path == "~" or path.startswith("~/"):
        path = environment.get("HOME", "").rstrip("/") + path[1:]
    return os.path.normpath(os.path.join(workspace, path))


def _there(key: str, paths: Iterable[str], wanted: Wanted, remarks: list[str]) -> tuple[str, ...]:
    """Configured paths that are there; one that is not is remarked."""
    places = {path: expanded(path, wanted.workspace, wanted.environment) for path in paths}
    lost = [path for path, place in places.items() if not os.path.exists(place)]
    remarks += [f"{key}: {path} is not there" for path in lost]
    return tuple(place for place in places.values() if os.path.exists(place))


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


class _Git(NamedTuple):
    """The directories that git writes, what in them must not be written, and what tells git which
    programs to run, there or not; `stray` as in `Ground`."""

    opened: list[str]
    sealed: list[str]
    programs: list[str]
    stray: str = ""


def _git(workspace: str) -> _Git:
    """What an agent could have written opens nothing: a `.git` that is a file or a link counts only
    where the directory that it names knows of it."""
    key = repository_key(workspace)
    if key is None:
        return _Git([], [], [])
    link = key[0]
    if os.path.isfile(link):
        return _git_by_file(link)
    common, top = os.path.realpath(link), os.path.dirname(os.path.realpath(link))
    programs = [f"{common}/{name}" for name in (*_PROGRAMS, "commondir")]
    programs += [*_modules(f"{common}/modules"), *configured(workspace)]
    if os.path.islink(link):
        programs.append(link)
        if not inside(common, os.path.dirname(link)) and not _is_module(common, top):
            return _Git([], [], programs, common)
    return _Git([common], [f"{common}/worktrees"], programs)


def _git_by_file(link: str) -> _Git:
    """The same for a linked work tree and a submodule."""
    git_dir = os.path.realpath(_named(_LINK, link, os.path.dirname(link)))
    common = os.path.realpath(_named(_WHOLE, f"{git_dir}/commondir", git_dir))
    back = os.path.realpath(_named(_WHOLE, f"{git_dir}/gitdir", git_dir))
    top = os.path.dirname(os.path.realpath(link))
    linked = back == os.path.realpath(link) and common == os.path.dirname(os.path.dirname(git_dir))
    if not linked and (common != git_dir or not _is_module(git_dir, top)):
        return _Git([], [], [link], git_dir)
    programs = [f"{common}/{name}" for name in _PROGRAMS] + [*_modules(f"{common}/modules")]
    programs += [link, *configured(top)]
    if not linked:
        return _Git([git_dir], [f"{common}/worktrees"], [*programs, f"{git_dir}/commondir"])
    programs += [f"{git_dir}/{name}" for name in _LINKED]
    sealed = [f"{common}/{name}" for name in (*_MAIN, "worktrees")]
    return _Git([common, git_dir], sealed, programs)


def _is_module(git_dir: str, top: str) -> bool:
    """Whether a git directory says that its work tree is there, as a submodule's does."""
    try:
        said = re.search(
            rb"(?m)^\s*worktree\s*=\s*(.+?)\s*$", read_guarded(f"{git_dir}/config", 65536)
        )
    except OSError:
        return False
    return said is not None and os.path.realpath(os.path.join(git_dir, os.fsdecode(said[1]))) == top


def _has_worktree_config(git_dirs: list[str]) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return b"worktreeconfig" in read_guarded(f"{git_dirs[0]}/config", 1 << 20).lower()
    return False


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


def configured(workspace: str) -> tuple[str, ...]:
    """What git's configuration names for this workspace: where hooks are, and files that it includes,
    there or not."""
    key = repository_key(workspace)
    if key is None:
        return ()
    marks = (
        stat_or_none(path) for path in (f"{key[0]}/config", os.path.expanduser("~/.gitconfig"))
    )
    return _configured(workspace, tuple(mark.st_mtime_ns if mark else 0 for mark in marks))


@functools.lru_cache(maxsize=64)
def _configured(workspace: str, _marks: tuple[int, ...]) -> tuple[str, ...]:
    hooks = _said(workspace, "rev-parse", "--git-path", "hooks").rstrip("\n")
    found = [os.path.join(workspace, hooks)] if hooks else []
    words = iter(_said(workspace, "config", "--list", "--show-origin", "-z").split("\0"))
    for origin, said in zip(words, words, strict=False):  # its file, then key and value
        path = os.path.join(workspace, origin.removeprefix("file:"))
        name, _, value = said.partition("\n")
        found.append(path)
        if name.startswith("include") and name.endswith(".path"):
            value = os.path.expanduser(value)
            found.append(os.path.join(os.path.dirname(os.path.realpath(path)), value))
    return tuple(dict.fromkeys(map(os.path.normpath, found)))


def _said(workspace: str, *words: str) -> str:
    try:
        asked = subprocess.run(
            ["git", "-C", workspace, *words], capture_output=True, timeout=_GIT_SEC, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return os.fsdecode(asked.stdout) if asked.returncode == 0 else ""


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
