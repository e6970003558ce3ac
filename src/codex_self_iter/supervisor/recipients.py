"""Who is told: the targets of `[notify]`, and one word sent to one of them."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from codex_self_iter.core.text import clean
from codex_self_iter.settings import Settings
from codex_self_iter.views.notice import Message
from codex_self_iter.world import installed
from codex_self_iter.world.process.tool import run_tool

TIMEOUT_SEC = 30.0
"""For a command, and for the program that sends to a URL."""
EXTRA = ("notify", "apprise")
COMMAND = "command"
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECRET = re.compile(r"(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,}|://[^/\s:@$]*:[^/\s@$]{4,}@")
"""Part of a URL that looks like a key, or a password before an @."""


class Target(NamedTuple):
    """One of those who are told; `url` is "" for the command, which is run at any hour."""

    name: str
    url: str
    events: frozenset[str]
    markdown: bool = False
    at_night: bool = False


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


def looks_secret(url: str) -> bool:
    """Whether a secret stands in the URL itself, as far as that can be seen."""
    return bool(_SECRET.search(_VARIABLE.sub("", url)))


def literal(text: str) -> bool:
    """Whether a text names no variable."""
    return not _VARIABLE.search(text)


def quiet_until(settings: Settings, now: float) -> float:
    """Unix seconds of the end of the quiet hours that are on; 0.0 while there are none."""
    hours = settings.notify.quiet
    if not hours:
        return 0.0
    zone = None
    if settings.notify.zone:
        import zoneinfo  # only for who sets it

        zone = zoneinfo.ZoneInfo(settings.notify.zone)
    here = datetime.fromtimestamp(now, zone) if zone else datetime.fromtimestamp(now).astimezone()
    begins, ends = (
        here.replace(hour=int(text[:2]), minute=int(text[3:]), second=0, microsecond=0)
        for text in hours.split("-")
    )
    if begins < ends:
        return ends.timestamp() if begins <= here < ends else 0.0
    if here >= begins:
        return (ends + timedelta(days=1)).timestamp()
    return ends.timestamp() if here < ends else 0.0


async def send(
    target: Target,
    message: Message,
    payload: Mapping[str, Any],
    settings: Settings,
    environ: Mapping[str, str],
) -> str:
    """Send one word to one target; "" when it was taken, else why not, without secrets. `payload` is
    what a command is told."""
    if target.url:
        return await _by_url(target, message, environ)
    result = await run_tool(
        tuple(settings.notify.command),
        cwd=_directory(str(settings.workspace_path)),
        timeout_sec=TIMEOUT_SEC,
        stdin=json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace"),
    )
    if result.exit_code == 0:
        return ""
    return "it timed out" if result.timed_out else result.error or f"exit code {result.exit_code}"


def _directory(workspace: str) -> str:
    return workspace if os.path.isdir(workspace) else "/"


async def _by_url(target: Target, message: Message, environ: Mapping[str, str]) -> str:
    if flaw := installed.lack(*EXTRA):
        return flaw
    try:
        url, secrets = expanded(target.url, environ)
    except ValueError as error:
        return str(error)
    asked = {
        "url": url,
        "title": message.title,
        "body": message.body,
        "format": "markdown" if target.markdown else "text",
        "secrets": [url, *secrets],
    }
    result = await run_tool(
        # -P: nothing of the directory that we happen to be in is imported
        (sys.executable, "-P", "-m", "codex_self_iter.telling"),
        cwd="/",
        timeout_sec=TIMEOUT_SEC,
        stdin=json.dumps(asked).encode(),
    )
    if result.exit_code == 0:
        return ""
    if result.timed_out:
        return f"no answer within {TIMEOUT_SEC:.0f} s"
    said = result.stdout.decode("utf-8", "replace") if result.exit_code in (1, 2) else ""
    return clean(said or result.error or f"its program ended with code {result.exit_code}", 300)
