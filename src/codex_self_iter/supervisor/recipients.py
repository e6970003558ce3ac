"""Who is told: the targets of `[notify]`, and one word sent to one of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from codex_self_iter.core.foreign import as_number, as_text
from codex_self_iter.core.text import clean
from codex_self_iter.settings import Settings
from codex_self_iter.views.notice import Message
from codex_self_iter.world import installed
from codex_self_iter.world.guarded import parse_object
from codex_self_iter.world.process.tool import run_tool

TIMEOUT_SEC = 30.0
"""For a command, and for the program that sends to a URL."""
EXTRA = ("notify", "apprise")
COMMAND = "command"
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_PLAIN = {  # no secrets, and needed by others
    "HOME",
    "HOSTNAME",
    "LANG",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TZ",
    "USER",
}
_SECRET = re.compile(r"(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,}|://[^/\s:@$]*:[^/?\s@$]{4,}@")
"""Part of a URL that looks like a key, or a password before an @."""


class Target(NamedTuple):
    """One of those who are told; `url` is "" for the command, which is run at any hour."""

    name: str
    url: str
    events: frozenset[str]
    markdown: bool = False
    at_night: bool = False


class Answer(NamedTuple):
    """What became of a word: `why` it was not taken, "" when it was, without secrets; `rest`: so many
    seconds the target asks to be left alone."""

    why: str = ""
    rest: float = 0.0


def targets(settings: Settings) -> tuple[Target, ...]:
    """All of them, each with a name of its own."""
    notify = settings.notify
    events = frozenset(notify.events)
    found = [Target(COMMAND, "", events, at_night=True)] if notify.command else []
    found += [Target("", url, events) for url in notify.urls]
    for given in notify.targets:
        own = frozenset(given.events) or events
        found.append(Target(given.name, given.url, own, given.markdown, given.at_night))
    named: list[Target] = []
    for one in found:
        base = clean(one.name or one.url.partition(":")[0], 40) or "url"
        taken = {other.name for other in named}
        number = 1
        name = base
        while name in taken:
            number += 1
            name = f"{base}-{number}"
        named.append(one._replace(name=name))
    return tuple(named)


def expanded(url: str, environ: Mapping[str, str]) -> tuple[str, list[str]]:
    """The URL with its variables' values, and those values. Raises ValueError, naming what is not
    set."""
    values: list[str] = []

    def value(match: re.Match[str]) -> str:
        if not environ.get(match[1]):
            raise ValueError(f"the variable {match[1]} is not set")
        values.append(environ[match[1]])
        return environ[match[1]]

    return _VARIABLE.sub(value, url), values


def flaw(target: Target, environ: Mapping[str, str]) -> str:
    """Why nothing can be sent to it, for all that is known before; "" for nothing."""
    if not target.url:
        return ""
    if lack := installed.lack(*EXTRA):
        return f"it {lack}"
    try:
        expanded(target.url, environ)
    except ValueError as error:
        return str(error)
    return ""


def looks_secret(url: str) -> bool:
    """Whether a secret stands in the URL itself, as far as that can be seen."""
    return bool(_SECRET.search(_VARIABLE.sub("", url)))


def without_secrets(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """An environment without the variables that messages, replies and exports are given their secrets
    by: no agent and no gate is to have them."""
    notify = settings.notify
    texts = [*notify.urls, settings.otlp, *(one.url for one in notify.targets)]
    texts += [text for one in notify.replies for text in (one.url, *one.allow)]
    hidden = {name for text in texts for name in _VARIABLE.findall(text)} - _PLAIN
    return {name: text for name, text in environ.items() if name not in hidden}


def literal(text: str) -> bool:
    """Whether a text names no variable."""
    return not _VARIABLE.search(text)


def quiet_until(settings: Settings, now: float) -> float:
    """Unix seconds of the end of the quiet hours that are on; 0.0 while there are none."""
    hours = settings.notify.quiet
    if not hours:
        return 0.0
    here = _here(settings, now)
    begins, ends = (_hour(here, text) for text in hours.split("-"))
    if begins < ends:
        return ends.timestamp() if begins <= here < ends else 0.0
    if here >= begins:
        return (ends + timedelta(days=1)).timestamp()
    return ends.timestamp() if here < ends else 0.0


def digest_hour(settings: Settings, now: float) -> tuple[int, float]:
    """The day that it is, as a number, and when its digest is to be told (Unix seconds)."""
    here = _here(settings, now)
    return here.toordinal(), _hour(here, settings.notify.digest_at).timestamp()


def _here(settings: Settings, now: float) -> datetime:
    if not settings.notify.zone:
        return datetime.fromtimestamp(now)  # noqa: DTZ006 - naive is local, by the rules of each day
    import zoneinfo  # only for who sets it

    return datetime.fromtimestamp(now, zoneinfo.ZoneInfo(settings.notify.zone))


def _hour(here: datetime, text: str) -> datetime:
    return here.replace(hour=int(text[:2]), minute=int(text[3:]), second=0, microsecond=0, fold=0)


async def send(
    target: Target,
    message: Message,
    payload: Mapping[str, Any],
    settings: Settings,
    environ: Mapping[str, str],
) -> Answer:
    """Send one word to one target. `payload` is what a command is told."""
    if target.url:
        return await _by_url(target, message, environ)
    result = await run_tool(
        tuple(settings.notify.command),
        cwd=_directory(str(settings.workspace_path)),
        timeout_sec=TIMEOUT_SEC,
        stdin=json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace"),
    )
    if result.exit_code == 0:
        return Answer()
    why = "it timed out" if result.timed_out else result.error or f"exit code {result.exit_code}"
    return Answer(why)


def _directory(workspace: str) -> str:
    return workspace if os.path.isdir(workspace) else "/"


async def _by_url(target: Target, message: Message, environ: Mapping[str, str]) -> Answer:
    if why := flaw(target, environ):
        return Answer(why.removeprefix("it "))
    url, secrets = expanded(target.url, environ)
    asked = {
        "url": url,
        "title": message.title,
        "body": message.body,
        "format": "markdown" if target.markdown else "text",
        "secrets": [url, *secrets],
    }
    result = await run_tool(
        installed.program("codex_self_iter.telling"),
        cwd="/",
        timeout_sec=TIMEOUT_SEC,
        stdin=json.dumps(asked).encode(),
    )
    if result.exit_code == 0:
        return Answer()
    if result.timed_out:
        return Answer(f"no answer within {TIMEOUT_SEC:.0f} s")
    told = parse_object(result.stdout) or {} if result.exit_code in (1, 2) else {}
    why = as_text(told.get("why")) or result.error
    why = clean(why or f"its program ended with code {result.exit_code}", 300)
    return Answer(why, as_number(told.get("rest_sec")))
