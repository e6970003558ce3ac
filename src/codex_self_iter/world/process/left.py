"""What works on although its supervisor is gone, as the commands see it: by recorded identity.

Light to import: `status` asks it of every loop that no supervisor has."""

from __future__ import annotations

import os
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from codex_self_iter.core.runs import RunIdentity


def at_work(state_dir: str) -> dict[str, RunIdentity]:
    """Directory -> identity of the runs, gates and hooks whose end nobody has recorded and of which the
    recorder or the first process lives, newest first. Only for a loop without a supervisor."""
    found: dict[str, RunIdentity | None] = {}
    for place in ("runs", "hooks"):
        above = os.path.join(state_dir, "logs", place)
        with suppress(OSError):
            directories = [f"{above}/{name}" for name in sorted(os.listdir(above), reverse=True)]
            found |= {one: identity_in(one) for one in directories if _open(one)}
    return {place: known for place, known in found.items() if known is not None and lives(known)}


def pid_of(identity: RunIdentity) -> int:
    """The process by which a person finds it."""
    return identity.agent_pid or identity.recorder_pid


def _open(directory: str) -> bool:
    begun, ended = (os.path.lexists(f"{directory}/{name}.json") for name in ("identity", "exit"))
    return begun and not ended


def identity_in(directory: str) -> RunIdentity | None:
    """A recorder's `identity.json`, if it is whole."""
    from codex_self_iter.core.runs import RunIdentity  # imports much
    from codex_self_iter.world.guarded import read_object

    try:
        return RunIdentity.from_json(read_object(f"{directory}/identity.json") or {})
    except (ValueError, KeyError, TypeError):
        return None


def lives(identity: RunIdentity) -> bool:
    """True while exactly its recorder or its first process runs."""
    from codex_self_iter.world.process import proctable  # imports much

    if identity.boot_id != proctable.boot_id():
        return False
    table = proctable.scan()
    recorder = proctable.alive(table, identity.recorder_pid, identity.recorder_start)
    return recorder or proctable.alive(table, identity.agent_pid, identity.agent_start)
