"""The loops of this user, a small file for each: `status` without a workspace lists them all.

`$XDG_STATE_HOME/codex-self-iter/loops/<hash of the state directory>.json` is written by a
supervisor when it takes a workspace. It only helps people to find loops: nothing depends on it, and
each entry can be deleted at any time. Standard library only."""

from __future__ import annotations

import json
import os
from collections import namedtuple

from codex_self_iter.world.guarded import read_object
from codex_self_iter.world.start import home_directory, start_directory
from codex_self_iter.world.state.holder import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_ENTRY_BYTES = 65536


class Entry(namedtuple("Entry", "name workspace state_dir pid boot_id")):
    """A loop of this user; `pid` and `boot_id` are its last supervisor's."""

    name: str
    workspace: str
    state_dir: str
    pid: int
    boot_id: str
    __slots__ = ()


def directory() -> str:
    """Where the entries are, "" without a home directory. Not created here."""
    base, home = os.environ.get("XDG_STATE_HOME", ""), home_directory()
    if not os.path.isabs(base):  # the specification: a relative value is to be ignored
        base = os.path.join(home, ".local", "state") if home else ""
    return os.path.join(base, "codex-self-iter", "loops") if base else ""


def process_alive(pid: int, its_boot_id: str) -> bool:
    """Whether process `pid` of that boot may still live (a reused number looks alive, too)."""
    here = boot_id()
    if pid <= 0 or (here and its_boot_id and here != its_boot_id):
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def register(name: str, workspace: str, state_dir: str) -> Entry:
    """Write or renew this process's entry. Raises OSError; a supervisor goes on without."""
    from codex_self_iter.world.state.durable import replace_private  # readers do not come here

    entry = Entry(
        name, os.path.abspath(workspace), os.path.abspath(state_dir), os.getpid(), boot_id()
    )
    if not directory():
        raise FileNotFoundError("there is no home directory: neither HOME nor an entry in passwd")
    path = _path(entry.state_dir)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    replace_private(path, json.dumps(entry._asdict()).encode())
    return entry


def forget(state_dir: str) -> None:
    """Remove the entry of a loop that will not run again. Raises OSError."""
    try:
        os.unlink(_path(os.path.abspath(state_dir)))
    except FileNotFoundError:
        pass


def entries(*, clean: bool = True, gone: bool = False) -> list[Entry]:
    """All loops, by name. `clean` removes entries whose state directory is gone; `gone` has them in
    the list where the workspace is still there: that may not have been meant.

    A living supervisor restores a state directory that was deleted under it, so its entry stays."""
    found: list[Entry] = []
    try:
        names = sorted(os.listdir(directory()))
    except OSError:
        return found
    for name in names:
        path = os.path.join(directory(), name)
        entry = _read(path) if name.endswith(".json") else None
        if entry is None:
            continue
        if os.path.isdir(entry.state_dir) or process_alive(entry.pid, entry.boot_id):
            found.append(entry)
            continue
        if gone and os.path.isdir(entry.workspace):
            found.append(entry)
        if clean:
            try:
                os.unlink(path)
            except OSError:
                pass
    return sorted(found, key=lambda entry: (entry.name, entry.workspace, entry.state_dir))


def display_names(found: Sequence[Entry]) -> dict[str, str]:
    """State directory -> a name that is unique among `found`.

    Equal names are told apart by as many leading directories as it takes, `work/app` and
    `home/app`."""
    names: dict[str, str] = {}
    for entry in found:
        twins = [
            other
            for other in found
            if other.name == entry.name and other.state_dir != entry.state_dir
        ]
        names[entry.state_dir] = _unique_name(entry, twins) if twins else entry.name
    return names


def find(text: str, found: Iterable[Entry]) -> list[Entry]:
    """The loops that `text` can mean: a display name, a name, a workspace or a state directory."""
    found = list(found)
    shown = display_names(found)
    path = os.path.normpath(os.path.join(start_directory(), text))  # it may be gone
    exact = [
        entry
        for entry in found
        if shown[entry.state_dir] == text or path in (entry.workspace, entry.state_dir)
    ]
    return exact or [entry for entry in found if entry.name == text]


def _unique_name(entry: Entry, twins: Sequence[Entry]) -> str:
    parts = entry.workspace.strip("/").split("/")
    for count in range(2, len(parts) + 1):
        suffix = "/".join(parts[-count:])
        if not any(("/" + twin.workspace.strip("/")).endswith("/" + suffix) for twin in twins):
            return suffix
    return f"{entry.name}~{_key(entry.state_dir)[:6]}"


def _key(state_dir: str) -> str:
    import hashlib  # loads OpenSSL; readers do not come here

    return hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:24]


def _path(state_dir: str) -> str:
    return os.path.join(directory(), _key(state_dir) + ".json")


def _read(path: str) -> Entry | None:
    """An entry, or None for anything else that may lie there."""
    data = read_object(path, MAX_ENTRY_BYTES) or {}
    *texts, pid = (data.get(key) for key in ("name", "workspace", "state_dir", "boot_id", "pid"))
    if not all(isinstance(text, str) for text in texts) or not isinstance(pid, int):
        return None
    return Entry(data["name"], data["workspace"], data["state_dir"], pid, data["boot_id"])
