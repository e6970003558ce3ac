"""Codex's own record of a thread: what its event stream leaves out.

`$CODEX_HOME/sessions/YYYY/MM/DD/rollout-<time>-<thread id>.jsonl` (the local day on which the
thread began) tells the error's class, the exact reset time of a limit, the model, and the tokens of
a run that was killed."""

from __future__ import annotations

import dataclasses
import datetime
import glob
import os
from collections.abc import Iterable, Iterator
from typing import Any

from codex_self_iter.agents.run_files import RunFiles
from codex_self_iter.core.agent_report import Usage
from codex_self_iter.core.foreign import as_dict, as_int, as_number, as_text, decode

_DAYS_LOOKED_THROUGH = 400
_EARLY_SEC = 2.0
"""A turn may seem to begin before its run did: whole seconds are written."""
_USED_UP_PERCENT = 99.5
"""Not 100: a rounding must not hide a window that is used up."""


@dataclasses.dataclass(slots=True)
class Turn:
    """What a rollout says of a thread's last turn.

    Attributes:
        started_at: Unix seconds, 0 if unknown.
        seen_at: Unix seconds of the last thing written about it.
        before, after: the thread's totals when the turn began and now; None if unknown.
        code, http_status, message: of the error that ended it.
        limit_ends: when the windows that are used up end.
        ended: the turn's end was written."""

    started_at: float = 0.0
    seen_at: float = 0.0
    model: str = ""
    before: Usage | None = None
    after: Usage | None = None
    code: str = ""
    http_status: int = 0
    message: str = ""
    limit_ends: tuple[float, ...] = ()
    ended: bool = False


def find_rollout(home: str, thread_id: str) -> str | None:
    """Find a thread's rollout: on the day that the id (UUIDv7) tells, a day to either side for the
    time zone, else on the newest days. Bounded."""
    sessions = os.path.join(home, "sessions")
    name = f"rollout-*-{glob.escape(thread_id)}.jsonl"
    for day in [*_days_of(thread_id), *_newest_days(sessions)]:
        found = glob.glob(os.path.join(glob.escape(sessions), day, name))
        if found:
            return max(found)
    return None


def read_turn(home: str, thread_id: str, not_before: float = 0.0) -> Turn | None:
    """What the thread's last turn says; None without a rollout, or when nothing was written of it
    after `not_before` (Unix seconds): then it belongs to an earlier run."""
    path = find_rollout(home, thread_id)
    if path is None:
        return None
    directory, name = os.path.split(path)
    turn = parse_rollout(RunFiles(directory).iter_lines(name))
    return None if max(turn.started_at, turn.seen_at) < not_before - _EARLY_SEC else turn


def parse_rollout(lines: Iterable[str]) -> Turn:
    """Reduce a rollout to its last turn. Pure; never raises."""
    turn = Turn()
    for line in lines:
        # Most lines are whole messages, some of megabytes; only a few kinds matter, and a look
        # for their names is much cheaper than decoding.
        if (
            "task_started" in line
            or "turn_context" in line
            or "token_count" in line
            or "thread_token_usage" in line
            or "task_complete" in line
        ):
            value = decode(line)
            if value is not None:
                payload = as_dict(value.get("payload")) or value
                turn = _step(turn, as_text(value.get("type")), payload)
                turn.seen_at = _moment(as_text(value.get("timestamp"))) or turn.seen_at
    return turn


def _step(turn: Turn, kind: str, payload: dict[str, Any]) -> Turn:
    if kind == "turn_context":
        turn.model = as_text(payload.get("model")) or turn.model
    elif payload.get("type") == "task_started" and kind == "event_msg":
        # The counts are the thread's: what it had used until here belongs to the turns before.
        started_at = float(as_int(payload.get("started_at")))
        return Turn(started_at, turn.seen_at, turn.model, turn.after, turn.after)
    elif payload.get("type") == "token_count" and kind == "event_msg":
        total = as_dict(as_dict(payload.get("info")).get("total_token_usage"))
        turn.after = usage_of(total) if total else turn.after
        turn.limit_ends = _used_up(as_dict(payload.get("rate_limits"))) or turn.limit_ends
    elif kind == "token_usage_record":  # at once after a model call: a run may be ended
        total = as_dict(payload.get("thread_token_usage"))
        total = as_dict(total.get("total_token_usage")) or total
        turn.after = usage_of(total) if total else turn.after
    elif payload.get("type") == "task_complete" and kind == "event_msg":
        turn.ended = True
        _note_error(turn, as_dict(payload.get("error")))
    return turn


def usage_of(total: dict[str, Any]) -> Usage:
    """Codex's token counts; its input includes cached input, as ours does."""
    return Usage(
        as_int(total.get("input_tokens")),
        as_int(total.get("cached_input_tokens")),
        as_int(total.get("output_tokens")),
    )


def _note_error(turn: Turn, error: dict[str, Any]) -> None:
    info = error.get("codex_error_info")
    turn.message = as_text(error.get("message"))
    if isinstance(info, dict) and info:
        turn.code, detail = next(iter(info.items()))
        turn.http_status = as_int(as_dict(detail).get("http_status_code"))
    else:
        turn.code = as_text(info)


def _used_up(limits: dict[str, Any]) -> tuple[float, ...]:
    """The ends of the windows that are used up; with none used up, nothing is told."""
    windows = [as_dict(limits.get(name)) for name in ("primary", "secondary")]
    return tuple(
        float(as_int(window.get("resets_at")))
        for window in windows
        if as_int(window.get("resets_at"))
        and as_number(window.get("used_percent")) >= _USED_UP_PERCENT
    )


def _moment(text: str) -> float:
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def _days_of(thread_id: str) -> Iterator[str]:
    digits = thread_id.replace("-", "")[:12]
    try:
        # directories are local days
        began = datetime.datetime.fromtimestamp(int(digits, 16) / 1000)  # noqa: DTZ006
        days = [began + datetime.timedelta(days=shift) for shift in (0, -1, 1)]
    except (ValueError, OverflowError, OSError):
        return
    for day in days:
        yield day.strftime("%Y/%m/%d")


def _newest_days(sessions: str) -> list[str]:
    days = glob.glob("[0-9]*/[0-9]*/[0-9]*", root_dir=sessions)
    return sorted(days, reverse=True)[:_DAYS_LOOKED_THROUGH]
