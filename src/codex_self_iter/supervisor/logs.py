"""The supervisor's own log: structlog to the terminal (or JSON for a service) and to
`logs/supervisor.log`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TextIO

import structlog

from codex_self_iter.world.state.redact import Redactor

FILE_KEY = "_file"
"""A bound value of this name is the file object that also gets the line, as JSON."""
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

Event = MutableMapping[str, Any]


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
) -> Any:
    """Set structlog up and return the unbound logger. `before_line` is called before a line is
    printed.
    """
    out = stream or sys.stderr
    redactor = Redactor.from_environment(environ)
    as_json = wants_json(form, environ)
    colours = not as_json and out.isatty() and "NO_COLOR" not in environ
    console = structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=22, sort_keys=False)

    def redact(_logger: Any, _name: str, event: Event) -> Event:
        for key, value in event.items():
            if key != FILE_KEY:
                event[key] = redactor.value(value)
        return event

    def write(logger: Any, name: str, event: Event) -> str:
        file = event.pop(FILE_KEY, None)
        line = json.dumps(event, ensure_ascii=False, default=str)
        if file is not None:
            file.write(f"{line}\n")
        if as_json:
            return line
        stamp = str(event.pop("timestamp", ""))
        event["timestamp"] = stamp[11:19]
        return str(console(logger, name, event))

    class Printer:
        """Prints one line; a terminal that went away is no reason to stop."""

        def msg(self, message: str) -> None:
            before_line()
            try:
                out.write(message + os.linesep)
                out.flush()
            except (OSError, ValueError):
                pass

        debug = info = warning = error = critical = exception = log = msg

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=as_json),
            structlog.processors.format_exc_info,
            redact,
            write,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS.get(level, logging.INFO)),
        logger_factory=lambda *_args: Printer(),
        cache_logger_on_first_use=False,
    )
    return structlog.get_logger()
