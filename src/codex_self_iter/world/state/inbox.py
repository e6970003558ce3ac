"""Messages and sentinels: the files with which people (and programs) speak to a running loop.

A message is any file in `inbox/` whose name is not hidden or an editor's own; the next prompt gets
it once, then it lies in `inbox/done/`, and is a message again if it changes there: whoever has
written half of it goes on in the file that was moved. `inbox/goal` replaces the goal. `STOP` and
`PAUSE` are sentinels: that they exist is what counts. Everything written here is written under a
dot-name and renamed, so that nobody reads half a message.

Only light imports: `stop`, `pause`, `steer` and `goal` start in a moment."""

from __future__ import annotations

import codecs
import contextlib
import errno
import math
import os
import re
import stat

from codex_self_iter.errors import StorageError
from codex_self_iter.world.guarded import read_guarded, stat_or_none
from codex_self_iter.world.state.durable import replace_private, stamp, storing
from codex_self_iter.world.state.root import StateRoot, mode_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STOP_FILE, PAUSE_FILE = "STOP", "PAUSE"
GOAL = "goal"
MAX_MESSAGE = 256 * 1024
"""Bytes of one message that reach a prompt."""
MAX_FOREIGN = 32 * 1024
"""The same of one that is not by `steer`: nobody was told that it may be so long."""
MAX_MESSAGES = 1024 * 1024
"""Bytes of all messages of one prompt; the rest wait for the next one."""
_MAX_NAMES = 1000
_OWN_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}-[0-9a-f]{6}(\.now)?\.md|" + GOAL)
_NO_MESSAGE = re.compile(r"\..*|done|.*~|#.*#|.*\.sw[op]|4913", re.DOTALL)
_SETTLE_SEC = 0.5
_FOLLOWED = 20
_AFTER_ITERATION, _NOW = "after-iteration", "now"


class Message:
    """A message: file name, text (bounded, bad UTF-8 replaced), what tells its file from another
    one of the name, and if it must be heard at once."""

    __slots__ = ("mark", "name", "now", "text")

    def __init__(self, name: str, text: str, mark: str = "") -> None:
        """`now` comes from the name: `….now.md`."""
        self.name = name
        self.text = text
        self.mark = mark
        self.now = is_now(name)

    def __repr__(self) -> str:
        return f"Message({self.name!r}, {self.text[:40]!r})"


def is_now(name: str) -> bool:
    """True for the name of a message that is to be heard at once."""
    return name.rpartition(".")[0].endswith(".now") or name.endswith(".now")


def is_waiting(name: str) -> bool:
    """True for a name in `inbox/` under which a message or a goal waits."""
    return not _NO_MESSAGE.fullmatch(name)


class Inbox:
    """The supervisor's side of `inbox/`."""

    def __init__(self, root: StateRoot) -> None:
        self._root = root
        self.occupied = True
        """False when the last call of `names` found nothing, not even a file that is not ready
        yet or may still change."""
        self._moved: dict[str, tuple[str, str]] = {}
        """Name in `inbox/done/` -> (name, mark) of the last ones that are not by `steer`."""

    def names(self, wall: float = math.inf) -> list[str]:
        """Names of the waiting messages as they arrived; `wall` is now. Empty files and those that
        may not be whole are not ready yet; what is no file is among them, so that whoever reads it
        sets it aside.

        Raises StorageError."""
        with (
            self._root.guard,
            storing("read", f"{self._root.path}/inbox"),
            self._root.directory("inbox") as fd,
        ):
            arrived = []
            self._bring_back(fd)
            self.occupied = bool(self._moved)
            with os.scandir(fd) as entries:
                for entry in entries:
                    if not is_waiting(entry.name):
                        continue
                    self.occupied = True
                    if entry.name == GOAL:
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        if not stat.S_ISREG(found.st_mode) or (
                            found.st_size and not _arriving(entry.name, found, wall)
                        ):
                            arrived.append((found.st_ctime_ns, entry.name))
        return [name for _, name in sorted(arrived)[:_MAX_NAMES]]

    def arriving(self, wall: float) -> bool:
        """True while a file not written by `steer` may not be whole yet; `wall` is now."""
        with contextlib.suppress(OSError), os.scandir(f"{self._root.path}/inbox") as entries:
            return any(
                is_waiting(entry.name)
                and entry.is_file(follow_symlinks=False)
                and _arriving(entry.name, entry.stat(follow_symlinks=False), wall)
                for entry in entries
            )
        return False

    def _bring_back(self, inbox: int) -> None:
        """What has changed since it was moved to `inbox/done/` is a message again."""
        if not self._moved:
            return
        with self._root.directory("inbox/done") as done:
            for target, (name, mark) in list(self._moved.items()):
                if _mark_in(done, target) != mark:
                    del self._moved[target]
                    back = f"{stamp()}-{name[-40:]}" if mode_in(inbox, name) else name
                    with contextlib.suppress(FileNotFoundError):
                        os.rename(target, back, src_dir_fd=done, dst_dir_fd=inbox)

    def messages(self, room: int = MAX_MESSAGES, wall: float = math.inf) -> list[Message]:
        """The waiting messages in order, up to `room` characters; a first one fits always.

        What is no file of ours, no text, or may not be read, is set aside, and the others are read.
        Raises StorageError."""
        taken: list[Message] = []
        for name in self.names(wall):
            found = self._root.look(f"inbox/{name}")
            text = self._text(f"inbox/{name}") if found is not None else None
            if text is None or found is None:
                continue
            room -= len(text)
            if room < 0 and (taken or room + len(text) < MAX_MESSAGES):
                break
            taken.append(Message(name, text, _mark(found)))
        return taken

    def goal(self) -> str | None:
        """The goal that waits in `inbox/goal`, or None."""
        text = self._text(f"inbox/{GOAL}")
        return text.strip() or None if text is not None else None

    def _text(self, name: str) -> str | None:
        try:
            data = self._root.read(name, MAX_MESSAGE)
        except StorageError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in (errno.EACCES, errno.EPERM):
                raise
            self._root.set_aside(name, "it may not be read")
            return None
        if data is None:
            return None
        leaf = name.rpartition("/")[2]
        limit = MAX_MESSAGE if _OWN_NAME.fullmatch(leaf) else MAX_FOREIGN
        utf16 = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        text = data[:limit].decode("utf-16" if utf16 else "utf-8-sig", "replace")
        if "\0" in text:
            self._root.set_aside(name, "it is no text; name such a file in a message")
            return None
        rest = f"\n[the message was longer; the rest is in {self._root.path}/inbox/done/*-{leaf}]"
        return text + (rest if len(data) > limit else "")

    def mark_done(
        self, names: Iterable[str], iteration: int, marks: Mapping[str, set[str]] | None = None
    ) -> None:
        """Move messages (or GOAL) to `inbox/done/000012-name`; one may be gone already. Where there
        are `marks` for a name, only a file that has one of them is moved.

        Raises StorageError."""
        root = self._root
        with (
            root.guard,
            storing("move to inbox/done", f"{root.path}/inbox"),
            root.directory("inbox") as inbox,
            root.directory("inbox/done") as done,
        ):
            for name in names:
                wanted, mark = (marks or {}).get(name), _mark_in(inbox, name)
                if wanted and not wanted & {"", mark}:
                    continue
                target = f"{iteration:06d}-{name}"
                if len(os.fsencode(target)) > 255 or mode_in(done, target):
                    target = f"{iteration:06d}-{stamp()}-{name[-40:]}"
                with contextlib.suppress(FileNotFoundError):
                    os.rename(name, target, src_dir_fd=inbox, dst_dir_fd=done)
                    if not _OWN_NAME.fullmatch(name):
                        self._moved[target] = name, mark
            for target in list(self._moved)[:-_FOLLOWED]:
                del self._moved[target]


def _arriving(name: str, found: os.stat_result, wall: float) -> bool:
    """True while a file that is not by `steer` has not stood still for a moment."""
    return not _OWN_NAME.fullmatch(name) and 0 <= wall - found.st_mtime < _SETTLE_SEC


def _mark(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


def _mark_in(fd: int, name: str) -> str:
    """The mark of a file in an open directory; of one that is gone nothing's."""
    try:
        return _mark(os.stat(name, dir_fd=fd, follow_symlinks=False))
    except FileNotFoundError:
        return "gone"


# -- the writers of the commands -------------------------------------------------------------------


def leave(state_dir: str, name: str, text: str) -> str:
    """Write a file of a state directory, both made if need be, whole or not at all; returns its
    path. Raises StorageError."""
    with contextlib.closing(StateRoot(state_dir)) as root:
        parent, _, leaf = name.rpartition("/")
        with storing("write", f"{root.path}/{name}"), root.directory(parent) as fd:
            if root.look(".gitignore") is None:
                root.replace(".gitignore", b"*\n", durable=False)
            replace_private(leaf, text.encode("utf-8", "surrogateescape"), dir_fd=fd, sync=True)
        return f"{root.path}/{name}"


def write_message(state_dir: str, text: str, *, now: bool = False) -> str:
    """Put a message into the inbox, made if need be; returns its path. Raises StorageError."""
    name = f"{stamp()}-{os.urandom(3).hex()}{'.now' if now else ''}.md"
    return leave(state_dir, f"inbox/{name}", text if text.endswith("\n") else f"{text}\n")


def write_goal(state_dir: str, text: str) -> str:
    """Ask for another goal, in the place of one that waits. The path. Raises StorageError."""
    return leave(state_dir, f"inbox/{GOAL}", text if text.endswith("\n") else f"{text}\n")


def waiting_goal(state_dir: str) -> str:
    """The goal that waits, for people; "" for none, or one that cannot be read. Never raises."""
    try:
        data = read_guarded(os.path.join(state_dir, "inbox", GOAL), MAX_MESSAGE)
    except OSError:
        return ""
    return data.decode("utf-8", "replace").strip()


def write_stop(state_dir: str, name: str = STOP_FILE, *, after_iteration: bool = False) -> str:
    """Write the STOP sentinel, but soften none; returns its path. Raises StorageError."""
    if after_iteration and read_stop(state_dir, name) == _NOW:
        return os.path.join(state_dir, name)
    return leave(state_dir, name, f"{_AFTER_ITERATION}\n" if after_iteration else f"{_NOW}\n")


def write_pause(state_dir: str, name: str = PAUSE_FILE, *, now: bool = False) -> str:
    """Write the PAUSE sentinel (`now` ends the running run), but soften none. The path. Raises
    StorageError."""
    if not now and read_pause(state_dir, name) == _NOW:
        return os.path.join(state_dir, name)
    return leave(state_dir, name, f"{_NOW}\n" if now else "after the run\n")


def _remove(directory: str, name: str) -> bool:
    path = os.path.join(directory, name)
    with storing("remove", path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM):
                raise
            os.rmdir(path)  # somebody made a directory of that name
    return True


def remove_stop(directory: str, name: str = STOP_FILE) -> bool:
    """Remove a STOP sentinel, also a workspace's; False: there was none. Raises StorageError."""
    return _remove(directory, name)


def remove_pause(state_dir: str, name: str = PAUSE_FILE) -> bool:
    """Remove the PAUSE sentinel; False when there was none. Raises StorageError."""
    return _remove(state_dir, name)


def _first_line(directory: str, name: str) -> str | None:
    path = os.path.join(directory, name)
    found = stat_or_none(path, follow=False)
    if found is None:
        return None  # missing, or the directory cannot be read now: that is no sentinel
    if not stat.S_ISREG(found.st_mode):
        return ""  # whatever it is, somebody meant it
    try:
        return read_guarded(path, 256).decode("utf-8", "replace").partition("\n")[0].strip().lower()
    except FileNotFoundError:
        return None
    except OSError:
        return ""


def read_stop(directory: str, name: str = STOP_FILE) -> str | None:
    """None: no sentinel; "after-iteration" if its first line says so; else "now". Never raises."""
    line = _first_line(directory, name)
    return None if line is None else _AFTER_ITERATION if line == _AFTER_ITERATION else _NOW


def read_pause(state_dir: str, name: str = PAUSE_FILE) -> str | None:
    """None: no sentinel; "now" if its first line says so; else "after-run". Never raises."""
    line = _first_line(state_dir, name)
    return None if line is None else _NOW if line == _NOW else "after-run"
