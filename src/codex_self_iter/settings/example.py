"""config.example.toml and the JSON schema, both made from the schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from codex_self_iter.settings.agent_tables import (
    AcpSettings,
    AgentFence,
    AgentSettings,
    AgentsSettings,
)
from codex_self_iter.settings.keys import fields_of, table_at
from codex_self_iter.settings.model import Settings

_HEAD = """\
# codex-self-iter: every configuration key with its default.
#
# Save it as codex-self-iter.toml in the workspace, or name it with --config. A flag wins over a variable,
# that over this file, this file over the default. Variables are named CODEX_SELF_ITER_MAX_ITERATIONS or, in
# a table, CODEX_SELF_ITER_VERIFY__COMMANDS='["make test"]'. Durations are seconds. Lines that begin with #
# and no space are examples of tables that are empty by default: take the # away to use them.
"""

_TAIL = """\
# Prices, in US dollars per million tokens, by the model's name as the agent reports it.
#[prices."name-of-a-model"]
#input_per_mtok = 1.0
#cached_input_per_mtok = 0.1
#output_per_mtok = 4.0
#as_of = "2026-01-31"

# More who are told, each with what differs: url, name, events, markdown, at_night.
#[[notify.targets]]
#url = "tgram://${TELEGRAM_TOKEN}/${TELEGRAM_CHAT}"
#name = "phone"
#events = ["blocked", "completed"]
#markdown = true

# Where you can answer from, and who may: url, allow.
#[[notify.replies]]
#url = "tgram://${TELEGRAM_TOKEN}"
#allow = ["123456789"]

# Several loops in one supervisor: path, name, priority, and any key of a loop that differs from those above.
#[[workspaces]]
#path = "../first-repository"
#name = "first"
#priority = 0
#max_iterations = 50
#[workspaces.verify]
#commands = ["make test"]
#[[workspaces]]
#path = "../second-repository"
"""


def example_toml() -> str:
    """The text of config.example.toml."""
    lines = [_HEAD]
    lines += _scalars(Settings, Settings())
    for name, field in fields_of(Settings).items():
        table = getattr(Settings(), name)
        if isinstance(table, BaseModel):
            lines += ["", f"# {_sentence(field.description)}", f"[{name}]"]
            lines += _scalars(type(table), table)
            lines += _adapters() if isinstance(table, AgentsSettings) else _below(name, table)
    return "\n".join([*lines, "", _TAIL])


def json_schema() -> dict[str, Any]:
    """JSON schema of the configuration file, with every description and default."""
    schema = Settings.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def toml_value(value: Any) -> str:
    """A value as TOML writes it, in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(key)} = {toml_value(below)}" for key, below in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    # JSON's escapes are TOML's, but for DEL, which JSON leaves as it is
    text = json.dumps("" if value is None else str(value), ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def _scalars(model: type[BaseModel], table: BaseModel, mark: str = "") -> Iterator[str]:
    """A comment and a line for each key that is no table and has a default to show."""
    for name, field in fields_of(model).items():
        value = getattr(table, name.replace("-", "_"))
        if isinstance(value, BaseModel) or name in ("prices", "workspaces", "targets", "replies"):
            continue
        yield f"# {_sentence(field.description)}"
        yield f"{mark}{name} = {toml_value(value)}"


def _below(name: str, table: BaseModel) -> Iterator[str]:
    """The tables inside a table."""
    for inner, field in fields_of(type(table)).items():
        below = getattr(table, inner)
        if isinstance(below, BaseModel):
            yield from ("", f"# {_sentence(field.description)}", f"[{name}.{inner}]")
            yield from _scalars(type(below), below)


def _adapters() -> Iterator[str]:
    """The first adapter's table in full, then what the tables of the others have of its keys."""
    first, *others = (name for name in fields_of(AgentsSettings) if name != "order")
    yield from ("", f"# A table for each adapter: {', '.join((first, *others))}.")
    yield from (f"#[agents.{first}]", *_scalars(AgentSettings, AgentSettings(), "#"))
    yield f"# {_sentence(AgentFence.__doc__)}"
    yield from (f"#[agents.{first}.fence]", *_scalars(AgentFence, AgentFence(), "#"))
    alike: dict[str, list[str]] = {}
    for name in others:
        alike.setdefault(_which(name), []).append(name)
    for which, names in alike.items():
        yield from (f"# {which}", *(f"#[agents.{name}]" for name in names))
    acp = fields_of(AcpSettings)["command"]
    yield from (
        f"# {_sentence(acp.description)}",
        f"#command = {toml_value(AcpSettings().command)}",
    )


def _which(adapter: str) -> str:
    """Which keys the table of an adapter has."""
    every, own = fields_of(AgentSettings), fields_of(table_at(("agents", adapter)) or AgentSettings)
    lacking = [key for key in every if key not in own]
    more = [key for key in own if key not in every]
    if len(lacking) >= len(own):
        return f"It has only {', '.join(own)}."
    return (
        f"The same keys{' without ' if lacking else ''}{', '.join(lacking)}"
        f"{', and ' if more else ''}{', '.join(more)}."
    )


def _sentence(text: str | None) -> str:
    """A description in one line."""
    return " ".join((text or "").split())
