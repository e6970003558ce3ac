"""The kinds of value that a key may have, each with the words that say what is allowed."""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, Strict

from codex_self_iter.core import agent_names
from codex_self_iter.core.template import for_a_shell

AGENT_NAMES = agent_names.NAMES

_ONE_OF = "one of " + ", ".join(f'"{name}"' for name in AGENT_NAMES)
_LARGEST_COUNT = 2**53
"""Beyond this an integer does not survive a JSON reader that knows only doubles."""
_LONGEST_SEC = 1e9
"""About 31 years: longer than any wait, and safe for every clock call."""


@dataclasses.dataclass(frozen=True, slots=True)
class Allowed:
    """Metadata of a kind: what is allowed, for error messages and for the documentation."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """Metadata of a key: its flag on the command line, where that is not the key's own name."""

    name: str


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _file_name(value: str) -> str:
    if value in ("", ".", "..") or "/" in value or "\\" in value or value != value.strip():
        raise ValueError("must be the plain name of a file, not empty and not a path")
    if len(value.encode()) > 255 or not value.isprintable():
        raise ValueError("must be a printable file name of at most 255 bytes")
    return value


def _path(value: Any) -> Any:
    """Refuse what `Path` would quietly take: an empty text is not the current directory."""
    if not isinstance(value, (str, Path)) or not str(value).strip():
        raise ValueError("must be a path (text, not empty)")
    _no_nul(str(value))
    return Path(value)


def _template(value: str) -> str:
    if value and (flaw := for_a_shell(value)):
        raise ValueError(flaw)
    return value


def _date(value: Any) -> Any:
    """A TOML date, or its text; "" is unknown."""
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value.isoformat()
    if value == "":
        return value
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        raise ValueError("must be a date")
    datetime.date.fromisoformat(value)
    return value


def _commit(value: Any) -> Any:
    """`true` and `false` are the short forms of "supervisor" and "none"."""
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value, value)
    if isinstance(value, bool):
        return "supervisor" if value else "none"
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


def freeze(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A read-only copy."""
    return MappingProxyType(dict(value))


def _variable_names(value: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in value:
        if not name or "=" in name or "\0" in name:
            raise ValueError(f"{name!r} cannot be the name of an environment variable")
    return value


def _glob(value: str) -> str:
    if value.startswith(("/", "~")) or ".." in value.split("/"):
        raise ValueError("must be relative to the workspace, and below it")
    return value


def _word(value: str) -> str:
    if value != value.strip() or "\n" in value:
        raise ValueError("must be one line without blanks around it: no other is ever found")
    return value


def _fence_paths(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Paths, none of which is empty or has a NUL."""
    if any(not path.strip() or "\0" in path for path in paths):
        raise ValueError
    return _once(paths)


def _once(value: tuple[str, ...]) -> tuple[str, ...]:
    """Each item of a list once: the second would do nothing."""
    twice = next((item for at, item in enumerate(value) if item in value[:at]), None)
    if twice is not None:
        raise ValueError(f"has {twice!r} twice")
    return value


def _hours(value: str) -> str:
    """Quiet hours: two different times of day."""
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", value)
    if value and (not found or found[0][:5] == found[0][6:]):
        raise ValueError("must be two times of a day")
    return value


def _reply_url(value: str) -> str:
    if not re.match(r"(ntfys?|tgram)://.", value):
        raise ValueError("must begin with ntfys://, ntfy:// or tgram://")
    return value


def _some(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must name somebody")
    return value


def _hour(value: str) -> str:
    if value and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
        raise ValueError("must be a time of day")
    return value


def _textfile(value: str) -> str:
    if value and not (value.startswith(("/", "~/")) and value.endswith(".prom")):
        raise ValueError("must be an absolute path that ends in .prom, for the collector")
    if set(re.findall(r"\{[^}]*\}?|\}", value)) - {"{name}"}:
        raise ValueError("may have {name} in it and no other {…}")
    return value


def _landed_message(value: str) -> str:
    if set(re.findall(r"\{[^}]*\}?|\}", value)) - {"{title}", "{number}", "{lane}", "{body}"}:
        raise ValueError("may have {title}, {number}, {lane} and {body} in it and no other {…}")
    return _not_blank(value)


def _identity(value: str) -> str:
    if value and not re.fullmatch(r"[^<>\n]*[^<>\s][^<>\n]* <[^<>\s]+>", value):
        raise ValueError("must be a name and an address as git has them")
    return value


def _far_directory(value: str) -> str:
    if value and not value.startswith(("/", "~")):
        raise ValueError("must be absolute, or begin with ~")
    return value


def _receiver(value: str) -> str:
    if value and not re.fullmatch(r"(?:https?://|\$\{\w+\})\S*", value):
        raise ValueError("must be the address of a receiver of OTLP over HTTP")
    if re.search(r"/v1/(?:traces|metrics)/?$", value):
        raise ValueError("must be the base address: /v1/traces and /v1/metrics are added")
    return value


def _zone(value: str) -> str:
    if value:
        import zoneinfo  # only for who sets it

        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("is no time zone that this machine knows") from error
    return value


_thaw = PlainSerializer(dict, return_type=dict)

Switch = Annotated[bool, Strict(), Allowed("true or false")]
Text = Annotated[str, Strict(), AfterValidator(_no_nul), Allowed("a text")]
Word = Annotated[Text, AfterValidator(_word), Allowed('a text of one line; "" for none')]
NonEmptyText = Annotated[Text, AfterValidator(_not_blank), Allowed("a text that is not empty")]
FileName = Annotated[
    str, Strict(), AfterValidator(_file_name), Allowed('a plain file name such as "STOP"')
]
PathText = Annotated[
    Path, BeforeValidator(_path, json_schema_input_type=str), Allowed("a path (text, not empty)")
]
Count = Annotated[
    int, Strict(), Field(ge=0, le=_LARGEST_COUNT), Allowed("a whole number, 0 or more")
]
AtLeastOne = Annotated[
    int, Strict(), Field(ge=1, le=_LARGEST_COUNT), Allowed("a whole number, 1 or more")
]
Integer = Annotated[int, Strict(), Allowed("a whole number")]
_CHECK = AfterValidator(_finite)
Seconds = Annotated[
    float,
    Strict(),
    Field(ge=0, le=_LONGEST_SEC),
    _CHECK,
    Allowed("a number of seconds from 0 to 1e9"),
]
Money = Annotated[
    float, Strict(), Field(ge=0, le=1e12), _CHECK, Allowed("a finite number, 0 or more")
]
Amount = Annotated[
    float, Strict(), Field(ge=0, le=_LARGEST_COUNT), _CHECK, Allowed("a number, 0 or more")
]
Share = Annotated[float, Strict(), Field(ge=0, le=1), _CHECK, Allowed("a number from 0 to 1")]
Template = Annotated[
    Text,
    AfterValidator(_template),
    Allowed('a command line with {prompt_file} and, if wanted, {workspace}; "" for none'),
]
Date = Annotated[
    str, BeforeValidator(_date, json_schema_input_type=str), Allowed('a date such as "2026-01-31"')
]
NoChangeGate = Annotated[Switch | Count, Allowed("true, false or a whole number, 0 or more")]
TextList = Annotated[
    tuple[NonEmptyText, ...],
    AfterValidator(_once),
    Allowed('a list of texts that are not empty, each once, such as ["a", "b"]'),
]
SomeTexts = Annotated[
    TextList,
    AfterValidator(_some),
    Allowed('a list of one or more texts that are not empty, each once, such as ["a", "b"]'),
]
ReplyUrl = Annotated[
    Text,
    AfterValidator(_reply_url),
    Allowed("a URL that begins with ntfys://, ntfy:// or tgram://"),
]
GlobList = Annotated[
    tuple[Annotated[NonEmptyText, AfterValidator(_glob)], ...],
    AfterValidator(_once),
    Allowed('a list of globs relative to the workspace, each once, such as ["tests/**"]'),
]
Command = Annotated[
    tuple[NonEmptyText, ...],
    Allowed('a list of texts that are not empty, such as ["program", "--flag"]'),
]
ArgList = Annotated[tuple[Text, ...], Allowed('a list of texts, such as ["--flag", "value"]')]
EnvTable = Annotated[
    Mapping[str, Text],
    AfterValidator(_variable_names),
    AfterValidator(freeze),
    _thaw,
    Allowed('a table of texts such as { NAME = "value" }'),
]

Protocol = Annotated[Literal["", "acp"], Allowed('"acp", or "" for the adapter of its own')]
AgentName = Annotated[agent_names.AgentName, Allowed(_ONE_OF)]
AgentChoice = Annotated[
    agent_names.AgentChoice,
    Allowed(_ONE_OF.replace("one of ", 'one of "auto", ')),
]
OptionalAgent = Annotated[
    agent_names.OptionalAgent, Allowed(_ONE_OF + '; "" for the same as `agent`')
]
AgentList = Annotated[
    tuple[AgentName, ...],
    AfterValidator(_once),
    Allowed("a list of adapter names: " + ", ".join(AGENT_NAMES)),
]
PoolTable = Annotated[
    Mapping[AgentName, AtLeastOne],
    AfterValidator(freeze),
    _thaw,
    Allowed("a table of adapter name = whole number, 1 or more"),
]
FenceLevel = Annotated[
    Literal["none", "write", "container"], Allowed('one of "none", "write", "container"')
]
OwnFenceLevel = Annotated[
    Literal["", "none", "write", "container"],
    Allowed('one of "none", "write", "container"; "" as [fence] has it'),
]
FenceMeans = Annotated[
    Literal["auto", "namespaces", "bubblewrap", "landlock"],
    Allowed('one of "auto", "namespaces", "bubblewrap", "landlock"'),
]
Network = Annotated[Literal["all", "none"], Allowed('one of "all", "none"')]
OwnNetwork = Annotated[
    Literal["", "all", "none"], Allowed('one of "all", "none"; "" as [fence] has it')
]
ContainerEngine = Annotated[
    Literal["auto", "podman", "docker"], Allowed('one of "auto", "podman", "docker"')
]
FencePaths = Annotated[
    tuple[Text, ...],
    AfterValidator(_fence_paths),
    Allowed('a list of paths, absolute, from ~ on or in the workspace, such as ["~/.cache/pip"]'),
]
CommitMode = Annotated[
    Literal["none", "supervisor", "agent"],
    BeforeValidator(_commit, json_schema_input_type=bool | Literal["none", "supervisor", "agent"]),
    Allowed('one of "none", "supervisor", "agent" (true: "supervisor", false: "none")'),
]
Event = Literal[
    "agent_stopped", "blocked", "budget", "completed", "cooldown", "crashed", "digest", "outage",
    "stagnated", "stopped",
]  # fmt: skip
EVENTS: tuple[str, ...] = typing.get_args(Event)
"""What a notification can be about: nothing else is ever told."""
EventList = Annotated[
    tuple[Event, ...], AfterValidator(_once), Allowed("a list of: " + ", ".join(EVENTS))
]
Hours = Annotated[
    str, Strict(), AfterValidator(_hours), Allowed('two times such as "22:00-07:00"; "" for none')
]
TimeOfDay = Annotated[
    str, Strict(), AfterValidator(_hour), Allowed('a time such as "08:00"; "" for none')
]
Textfile = Annotated[
    Text,
    AfterValidator(_textfile),
    Allowed('an absolute path that ends in .prom, with {name} if wanted; "" for none'),
]
LandedMessage = Annotated[
    Text,
    AfterValidator(_landed_message),
    Allowed("a text that is not empty, with {title}, {number}, {lane} and {body} if wanted"),
]
Identity = Annotated[
    Text,
    AfterValidator(_identity),
    Allowed('a text such as "Ann <ann@example.org>"; "" for git\'s'),
]
FarDirectory = Annotated[
    Text,
    AfterValidator(_far_directory),
    Allowed('an absolute path, or one that begins with ~; "" for none'),
]
PortNumber = Annotated[
    int, Strict(), Field(ge=1024, le=60000), Allowed("a whole number, 1024 to 60000")
]
Receiver = Annotated[
    Text,
    AfterValidator(_receiver),
    Allowed('an address such as "http://localhost:4318"; "" for none'),
]
Zone = Annotated[
    str,
    Strict(),
    AfterValidator(_zone),
    Allowed('a name such as "Europe/Berlin"; "" for the machine\'s'),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    Allowed('one of "debug", "info", "warning", "error"'),
]
