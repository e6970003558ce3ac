"""What stop, pause, resume and steer do, from a command or a screen: they change a file of the state
directory and say who will notice.

Every function returns the sentence that the person is told, and raises StorageError; `stop` also
WorkspaceBusyError, where an orphan cannot be ended."""

from __future__ import annotations

import os
from typing import NamedTuple

from codex_self_iter.core.text import clean
from codex_self_iter.errors import UsageError
from codex_self_iter.screens.loops import ENVIRONMENT, Target, life, read_config, read_status
from codex_self_iter.views.summary import Life
from codex_self_iter.world.guarded import read_guarded
from codex_self_iter.world.state import inbox

MAX_TEXT_BYTES = 256 * 1024
"""A message longer than this belongs into a file of the workspace that the message names."""


class Aim(NamedTuple):
    """The loop a control is for, and what is known of it at this moment."""

    loop: Target
    status: dict[str, object]
    life: Life


def aim(loop: Target) -> Aim:
    """The loop as it is now."""
    status = read_status(loop.state_dir)
    return Aim(loop, status, life(loop, status))


def control_file(at: Aim, recorded: str, key: str, default: str) -> str:
    """Path of a sentinel: as status.json recorded it, else as configured, else the default.

    The environment wins over the file, as everywhere."""
    path = at.status.get(recorded)
    if isinstance(path, str) and os.path.isabs(path):
        return path
    loop = at.loop
    configured = read_config(loop.workspace, loop.config)
    name = os.environ.get(ENVIRONMENT + key.upper()) or configured.get(key)
    base = loop.workspace if key.startswith("global_") else loop.state_dir
    return os.path.join(base, name if isinstance(name, str) and name else default)


def ends(at: Aim) -> str:
    """The words for what a request to act at once ends, where something runs."""
    at_work = {"running": "the running agent", "verifying": "the gates"}
    what = at_work.get(str(at.status.get("state")))
    return f"ends {what} and " if what else ""


def who_notices(at: Aim, living: str, dead: str) -> str:
    """The second half of every answer: what happens now, or at the next start."""
    whose = f"supervisor of {clean(at.loop.name)}"
    if at.life.late:
        return f"The {whose} (pid {at.life.pid}) is not responding; {living} when it does."
    if at.life.alive:
        return f"The {whose} (pid {at.life.pid}) {living}."
    orphan = f", but an agent works on (pid {at.life.orphan})" if at.life.orphan else ""
    return f"No {whose} is running{orphan}: {dead}."


def sound(text: str, what: str) -> str:
    """The text of a message, if it is one. Raises UsageError; `what` is "message" or "goal"."""
    if not text.strip():
        raise UsageError(f"the {what} is empty")
    if len(text.encode("utf-8", "surrogateescape")) > MAX_TEXT_BYTES:
        size = MAX_TEXT_BYTES // 1024
        raise UsageError(f"the {what} is longer than {size} KiB; put it into a file and name that")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"the {what} is not valid UTF-8")
    return text


def stop(at: Aim, *, after_iteration: bool = False) -> str:
    """Leave the STOP file. Where an agent works on without a supervisor, nobody is there who would
    obey: it is ended, unless it may end its iteration."""
    path = control_file(at, "stop_file", "stop_file_name", "STOP")
    state_dir, name = os.path.split(path)
    inbox.write_stop(state_dir, name, after_iteration=after_iteration)
    gently = after_iteration and inbox.read_stop(state_dir, name) != "now"
    living = "lets this iteration end, then stops" if gently else f"{ends(at)}stops now"
    dead = f"the next start will end at once, until {path} is removed (or 'run --clear-stop')"
    kept = after_iteration and not gently
    did = f"{path} says stop now already, and still does" if kept else f"Wrote {path}"
    said = f"{did}. {who_notices(at, living, dead)}"
    if at.life.orphan and not after_iteration:
        from codex_self_iter.screens.alone import end_left  # imports much

        end_left(at.loop)
        said += f" Ended it (pid {at.life.orphan}), with all that it had started."
    return said


def pause(at: Aim, *, now: bool = False) -> str:
    """Leave the PAUSE file; `now` ends the running agent."""
    path = control_file(at, "pause_file", "pause_file_name", "PAUSE")
    place = os.path.split(path)
    inbox.write_pause(*place, now=now)
    at_once = inbox.read_pause(*place) == "now"
    living = f"{ends(at)}pauses now" if at_once else "pauses when this iteration ends"
    dead = "the next start will pause at once, until 'codex-self-iter resume'"
    kept = f"{path} says pause now already, and still does"
    did = f"Wrote {path}" if at_once is now else kept
    return f"{did}. {who_notices(at, living, dead)}"


def resume(at: Aim) -> str:
    """Remove the PAUSE file."""
    path = control_file(at, "pause_file", "pause_file_name", "PAUSE")
    if inbox.remove_pause(*os.path.split(path)):
        where = who_notices(at, "goes on", "start it with 'codex-self-iter run'")
        return f"Removed {path}. {where} {_still_stopped(at)}".rstrip()
    return f"Nothing to resume: there is no {path}. {_still_stopped(at)}".rstrip()


def _still_stopped(at: Aim) -> str:
    stops = (
        control_file(at, "stop_file", "stop_file_name", "STOP"),
        control_file(at, "global_stop_file", "global_stop_file_name", ".codex-stop"),
    )
    there = [path for path in stops if os.path.lexists(path)]
    return f"But {' and '.join(there)} says stop: remove it before the next start." if there else ""


def steer(at: Aim, text: str, *, now: bool = False) -> str:
    """Leave a message for the next prompt; `now` ends the running agent, unless its turn takes it.
    Raises UsageError for a text that is none."""
    path = inbox.write_message(at.loop.state_dir, sound(text, "message"), now=now)
    dead = "the first prompt after the next start will have it"
    living = _at_once(at) if now else "puts it into the next prompt"
    return f"Wrote {path}. {who_notices(at, living, dead)}"


def _in_turn(at: Aim) -> bool:
    """Whether an agent runs whose turn takes messages: its output says that it speaks ACP."""
    run = at.status.get("run")
    directory = run.get("directory") if isinstance(run, dict) else None
    if at.status.get("state") != "running" or not isinstance(directory, str):
        return False
    try:
        return read_guarded(os.path.join(directory, "stdout.log"), len(_ACP)) == _ACP
    except OSError:
        return False


_ACP = b'{"type": "acp.'


def _at_once(at: Aim) -> str:
    if _in_turn(at):
        return "gives it to the running agent, or ends that and starts again with it"
    if ended := ends(at):
        return f"{ended}starts again with it"
    if at.status.get("state") in ("backoff", "cooldown"):
        return "waits no longer and starts the next run with it"
    return "puts it into the next prompt; no agent is running"
