"""The supervisor's own log: structlog to the terminal (or JSON for a service), and to
`logs/supervisor.log`."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TextIO

import structlog
from structlog.processors import JSONRenderer, TimeStamper, add_log_level, format_exc_info
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from codex_self_iter.world.state.redact import Redactor

FILE_KEY = "_file"
"""A bound value of this name is the file object that also gets the line, as JSON."""


class Printer:
    """Prints one line; a terminal that went away is no reason to stop."""

    def __init__(self, out: TextIO, before_line: Callable[[], None]) -> None:
        self._out, self._before_line = out, before_line

    def msg(self, message: str) -> None:
        """Print it."""
        self._before_line()
        try:
            self._out.write(message + os.linesep)
            self._out.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = exception = log = msg


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
    stream: TextIO | None = None,
    before_line: Callable[[], None] = lambda: None,
) -> FilteringBoundLogger:
    """Set structlog up and return the unbound logger. `before_line` is called before a line."""
    out = stream or sys.stderr
    as_json = wants_json(form, environ)
    colours = not as_json and out.isatty() and "NO_COLOR" not in environ
    to_people: list[Processor] = [
        _short_time,
        structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=22, sort_keys=False),
    ]
    structlog.configure(
        processors=[
            add_log_level,
            TimeStamper(fmt="iso", utc=as_json),
            format_exc_info,
            partial(_redact, Redactor.from_environment(environ)),
            _to_file,
            *([_JSON] if as_json else to_people),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_args: Printer(out, before_line),
        cache_logger_on_first_use=False,
    )
    log: FilteringBoundLogger = structlog.get_logger()
    return log


_JSON = JSONRenderer(json.dumps, ensure_ascii=False, default=str)


def _redact(redactor: Redactor, _logger: Any, _name: str, event: EventDict) -> EventDict:
    return {
        key: value if key == FILE_KEY else redactor.value(value) for key, value in event.items()
    }


def _to_file(logger: Any, name: str, event: EventDict) -> EventDict:
    file = event.pop(FILE_KEY, None)
    if file is not None:
        file.write(f"{_JSON(logger, name, event)!s}\n")
    return event


def _short_time(_logger: Any, _name: str, event: EventDict) -> EventDict:
    event["timestamp"] = str(event.get("timestamp", ""))[11:19]
    return event
