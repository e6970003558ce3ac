"""The supervisor's own log: structlog to the terminal (or JSON for a service), and to
`logs/supervisor.log`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from structlog.processors import JSONRenderer, TimeStamper, add_log_level, format_exc_info
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from codex_self_iter.world.console import Console
from codex_self_iter.world.state.redact import Redactor

FILE_KEY = "_file"
"""A bound value of this name is the file object that also gets the line, as JSON."""


class Printer:
    """What structlog prints with: hands the line on."""

    def __init__(self, console: Console) -> None:
        self.msg = console.line
        self.debug = self.info = self.warning = self.error = self.critical = self.msg
        self.exception = self.log = self.msg


def wants_json(form: str, environ: Mapping[str, str]) -> bool:
    """True when lines go to a service manager (or were asked for as JSON), not to a person."""
    if form != "auto":
        return form == "json"
    return bool({"INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET"} & environ.keys())


def configure(
    *,
    level: str,
    form: str,
    environ: Mapping[str, str],
    console: Console,
    terminal: bool,
) -> FilteringBoundLogger:
    """Set structlog up and return the unbound logger. `terminal`: whether a person reads."""
    as_json = wants_json(form, environ)
    colours = (
        not as_json and terminal and "NO_COLOR" not in environ and environ.get("TERM") != "dumb"
    )
    to_people: list[Processor] = [
        _short,
        structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=22, sort_keys=False),
    ]
    structlog.configure(
        processors=[
            add_log_level,
            TimeStamper(fmt="iso", utc=True),
            format_exc_info,
            partial(_redact, Redactor.from_environment(environ)),
            _to_file,
            *([_JSON] if as_json else to_people),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_args: Printer(console),
        cache_logger_on_first_use=False,
    )
    log: FilteringBoundLogger = structlog.get_logger()
    console.say_lost = lambda lines: log.warning("console.lines_lost", lines=lines)
    return log


_JSON = JSONRenderer(json.dumps, ensure_ascii=False, default=str)


def _redact(redactor: Redactor, _logger: Any, _name: str, event: EventDict) -> EventDict:
    return {
        key: value if key == FILE_KEY else redactor.value(value) for key, value in event.items()
    }


def _to_file(logger: Any, name: str, event: EventDict) -> EventDict:
    file = event.pop(FILE_KEY, None)
    if file is not None:
        if lost := file.lost_lines:
            told = {"lines": lost, "event": "log.lines_lost", "level": "warning"}
            told["timestamp"] = event.get("timestamp")
            file.lost_lines = 0
            file.write(f"{_JSON(logger, name, told)!s}\n")
            if file.lost_lines:  # there is still no room
                file.lost_lines = lost
        file.write(f"{_JSON(logger, name, event)!s}\n")
    return event


def _short(_logger: Any, _name: str, event: EventDict) -> EventDict:
    """For people: the local time of day, and no field that says nothing."""
    at = datetime.fromisoformat(event["timestamp"]).astimezone()
    event["timestamp"] = f"{at:%H:%M:%S}"
    return {key: value for key, value in event.items() if value != ""}
