"""The supervisor's own log: structlog to the terminal (or JSON for a service), and to
`logs/supervisor.log`."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import structlog
from structlog.processors import JSONRenderer, add_log_level, format_exc_info
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from codex_self_iter.core.text import clean_block, epoch, iso, moment
from codex_self_iter.views.summary import clock
from codex_self_iter.world.console import Console
from codex_self_iter.world.state.logfile import LogFile
from codex_self_iter.world.state.redact import Redactor

FILES: dict[str, LogFile] = {}
"""The log file of each loop that is on, by its name: it gets every line that names the loop, and
those that name none, as JSON."""


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
        _Short(),
        structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=22, sort_keys=False),
    ]
    structlog.configure(
        processors=[
            add_log_level,
            _stamp,
            format_exc_info,
            partial(_redact, Redactor.from_environment(environ)),
            _to_files,
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
    return {key: redactor.value(value) for key, value in event.items()}


def _stamp(_logger: Any, _name: str, event: EventDict) -> EventDict:
    event["timestamp"] = iso(time.time())
    return event


def _to_files(logger: Any, name: str, event: EventDict) -> EventDict:
    loop = event.get("loop")
    for file in [*FILES.values()] if loop is None else filter(None, [FILES.get(loop)]):
        if lost := file.lost_lines:
            told = {"lines": lost, "event": "log.lines_lost", "level": "warning"}
            told["timestamp"] = event.get("timestamp")
            file.lost_lines = 0
            file.write(f"{_JSON(logger, name, told)!s}\n")
            if file.lost_lines:  # there is still no room
                file.lost_lines = lost
        file.write(f"{_JSON(logger, name, event)!s}\n")
    return event


class _Short:
    """For people: local times, the date with the first line of a day, and no field that says
    nothing."""

    def __init__(self) -> None:
        self._day = ""

    def __call__(self, _logger: Any, _name: str, event: EventDict) -> EventDict:
        now = time.time()
        day, at = moment(now)[:10], clock(now, now)
        event["timestamp"] = at if day == self._day else f"{day} {at}"
        self._day = day
        if (until := epoch(event.get("until"))) is not None:
            event["until"] = clock(until, now)
        if event["event"] == "loop.terms":  # sentences of their own
            event["event"] = event.pop("text")
        return {key: _harmless(value) for key, value in event.items() if value not in ("", None)}


def _harmless(value: Any) -> Any:
    """A text that does nothing to a terminal, whoever has written it."""
    return clean_block(value) if isinstance(value, str) else value
