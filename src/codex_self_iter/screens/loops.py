"""A loop as everybody sees it from outside: where it is, what its files say, whether its supervisor
lives.

Only light imports: every reading command starts through here."""

from __future__ import annotations

import os
import time

from codex_self_iter.core.text import clean, epoch
from codex_self_iter.errors import UsageError
from codex_self_iter.views.summary import Life, Seen
from codex_self_iter.world import registry
from codex_self_iter.world.guarded import read_object
from codex_self_iter.world.start import home_directory

DEFAULT_STATE_DIR = ".codex-self-iter"
CONFIG_NAME = "codex-self-iter.toml"
ENVIRONMENT = "CODEX_SELF_ITER_"
MAX_STATUS_BYTES = 4_000_000
SCHEMA = 1
"""Of `status.json`, as far as it is known here."""


class Target:
    """One loop, as the person named it. `config` is the file given with --config, else ""."""

    def __init__(self, name: str, workspace: str, state_dir: str, config: str = "") -> None:
        self.name, self.workspace, self.state_dir, self.config = name, workspace, state_dir, config


def read_config(workspace: str, config: str = "") -> dict[str, object]:
    """The plain content of the configuration file, {} when there is none or it cannot be read.

    The commands that come here need a name or two of it and must work whatever its state; `config
    check` judges it. Raises UsageError only for a file that was named and is not there."""
    path = config_path(workspace, config)
    if not path:
        return {}
    import tomllib  # only where there is something to read: it costs a tenth of the start

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError):
        return {}


def need_file(config: str) -> None:
    """Raises UsageError unless the configuration file is there and is a file."""
    if os.path.isdir(config):
        hint = "name the file in it, or use `run --config-dir`"
        raise UsageError(f"configuration file {config} is a directory; {hint}")
    if not os.path.isfile(config):
        raise UsageError(f"configuration file {config} does not exist")


def config_path(workspace: str, config: str) -> str:
    """The configuration file that counts, or ""."""
    if config:
        need_file(config)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home_directory(), ".config")
    places = (
        config,
        os.path.join(workspace, CONFIG_NAME),
        os.path.join(home, "codex-self-iter", "config.toml") if os.path.isabs(home) else "",
    )
    return next((path for path in places if path and os.path.isfile(path)), "")


def read_status(state_dir: str) -> dict[str, object]:
    """`status.json`, or {} when it is missing, unreadable or not ours."""
    return read_object(os.path.join(state_dir, "status.json"), MAX_STATUS_BYTES) or {}


def life(loop: Target, status: dict[str, object], now: float | None = None) -> Life:
    """Whether the supervisor of a loop lives, and how old its last sign is.

    Its lock is the truth: a process id may have been used again, and means nothing across
    containers."""
    from codex_self_iter.world.state.holder import LOCK_FILE, probe

    heard = epoch(status.get("updated_at"))
    stale = None if heard is None else max(0.0, (time.time() if now is None else now) - heard)
    pid = status.get("pid")
    pid = pid if isinstance(pid, int) else 0
    known = os.path.exists(os.path.join(loop.state_dir, LOCK_FILE))
    # A lock file of another name, or none (deleted this second): then the workspace's lock answers.
    holder = probe(loop.state_dir, workspace="" if known else loop.workspace)
    if holder:
        return Life(True, stale, holder.pid or pid)
    from codex_self_iter.world.process import left

    orphans = map(left.pid_of, left.at_work(loop.state_dir).values())
    return Life(False, stale, pid, next(orphans, 0))


def look(loop: Target, *, had: bool = False) -> Seen:
    """The loop as it is at this moment; `had`: it has run before."""
    status = read_status(loop.state_dir)
    gone = had and not os.path.isdir(loop.state_dir)
    flaw = (
        f"its state directory {loop.state_dir} is gone" if gone else flaw_of(loop.state_dir, status)
    )
    living = life(loop, status)
    return Seen(loop.name, loop.workspace, loop.state_dir, status, living, flaw=flaw, gone=gone)


def flaw_of(state_dir: str, status: dict[str, object]) -> str:
    """Why what the loop says of itself cannot be believed, and what helps; "" when it can."""
    path = os.path.join(state_dir, "status.json")
    schema = status.get("schema", SCHEMA)
    if isinstance(schema, int) and schema > SCHEMA:
        who = f"codex-self-iter {clean(str(status.get('version')), 40)}"
        return f"{path} is of a newer form ({schema}; known is {SCHEMA}): look with {who}"
    if status or not os.path.lexists(path):
        return ""
    if not os.access(path, os.R_OK):
        return f"{path} may not be read by this user"
    return f"{path} cannot be read as JSON; 'codex-self-iter history' reads the journal instead"


def waiting(state_dir: str) -> tuple[str, int]:
    """The goal and the number of messages in the inbox that nothing has read yet."""
    try:
        every = os.listdir(os.path.join(state_dir, "inbox"))
    except OSError:
        every = []
    if not set(every) - {"done"}:
        return "", 0
    # only where there is something to read
    from codex_self_iter.world.state.inbox import GOAL, is_waiting, waiting_goal

    return waiting_goal(state_dir), len(set(filter(is_waiting, every)) - {GOAL})


def known(*, forget: bool = False) -> list[tuple[str, Target]]:
    """All loops of this user by name, each with a name that no other has; also those whose state
    directory is gone while their workspace is there. `forget` removes all that are gone from the
    registry."""
    entries = registry.entries(clean=forget, gone=True)
    names = registry.display_names(entries)
    loops = (Target(entry.name, entry.workspace, entry.state_dir) for entry in entries)
    return [(names[loop.state_dir], loop) for loop in loops]
