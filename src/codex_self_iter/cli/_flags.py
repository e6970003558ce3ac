"""The flags of `run`: one for each configuration key of a loop, made from the schema.

`max_iterations` is `--max-iterations`, `budget.max_tokens` is `--budget-max-tokens`. The values are
converted here and judged by the settings, which see flag, environment and file alike."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo

from codex_self_iter.settings import Settings
from codex_self_iter.settings.example import toml_value
from codex_self_iter.settings.keys import allowed_in, fields_of, table_at
from codex_self_iter.settings.types import Option

_TABLES = (
    "verify", "prompt", "notes", "hooks", "budget", "output", "pool", "git", "fence", "lanes", "roles", "agents", "notify",
    "service", "log",
)  # fmt: skip
"""In the order of `--help`, after the keys that are in no table."""
_BY_SET = ("workspace", "workspaces", "prices", "pool.per_agent", "notify.targets")
"""Keys with an option of their own, or none but `--set`, like the tables of adapters and roles."""
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")


class Flag(NamedTuple):
    """One key. `kind` is str, int, float, bool, gate (true, false or a number) or list."""

    key: str
    kind: str
    help: str
    option: str

    @property
    def dest(self) -> str:
        """The attribute in argparse's namespace; cannot collide with another option's."""
        return "key:" + self.key


def _flags() -> Iterator[Flag]:
    yield from (_flag(key, field) for key, field in _fields("", fields_of(Settings)))
    for name in _TABLES:
        table = table_at((name,))
        assert table is not None
        yield from (_flag(key, field) for key, field in _fields(f"{name}.", fields_of(table)))


def _fields(prefix: str, fields: dict[str, FieldInfo]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in fields.items():
        key = prefix + name
        if key not in _BY_SET and table_at(tuple(key.split("."))) is None:
            yield key, field


def _flag(key: str, field: FieldInfo) -> Flag:
    origin = typing.get_origin(field.annotation)
    plain = {bool: "bool", int: "int", float: "float", tuple: "list", typing.Union: "gate"}
    kind = plain.get(origin or field.annotation, "str")
    named = [item.name for item in field.metadata if isinstance(item, Option)]
    option = named[0] if named else "--" + key.replace(".", "-").replace("_", "-")
    return Flag(key, kind, _help(kind, field), option)


def _help(kind: str, field: FieldInfo) -> str:
    text = " ".join((field.description or "").split()).removesuffix(".").replace("%", "%%")
    if kind == "list":
        return f"{text}; repeatable"
    words = typing.get_args(field.annotation)
    if not all(f'"{word}"' in text for word in words if isinstance(word, str)):
        text += f"; {allowed_in(field)}"
    default = field.get_default()
    return f"{text} (default: {toml_value(default)})" if str(default) else text


FLAGS: tuple[Flag, ...] = tuple(_flags())


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the whole table, and `--set` for the tables of agents and prices."""
    what = "Each also stands in the configuration file and environment."
    group = parser.add_argument_group("settings", what)
    for flag in FLAGS:
        settings: dict[str, Any] = {"metavar": flag.kind.upper(), "type": _TYPES.get(flag.kind)}
        if flag.kind == "list":
            settings = {"metavar": "TEXT", "action": "append"}
        elif flag.kind in ("bool", "gate"):
            settings |= {"nargs": "?", "const": True}
        group.add_argument(flag.option, dest=flag.dest, help=flag.help, **settings)
        if flag.kind in ("bool", "gate"):
            no, hidden = "--no-" + flag.option.removeprefix("--"), argparse.SUPPRESS
            group.add_argument(no, dest=flag.dest, action="store_const", const=False, help=hidden)
    group.add_argument(
        "--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE", type=_assignment,
        help="any key, its value in TOML: --set agents.codex.model='\"gpt-6\"'; repeatable",
    )  # fmt: skip


def collect(args: argparse.Namespace) -> dict[str, Any]:
    """What was given, nested as in the configuration file: {"verify": {"commands": [...]}}."""
    found: dict[str, Any] = {}
    for flag in FLAGS:
        value = getattr(args, flag.dest)
        if value is not None:
            _put(found, flag.key, value)
    for key, value in args.assignments:
        _put(found, key, value)
    return found


def _put(target: dict[str, Any], key: str, value: object) -> None:
    *tables, last = key.split(".")
    for table in tables:
        target = target.setdefault(table, {})
    target[last] = value


def _bool(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE + _FALSE:
        raise argparse.ArgumentTypeError(f"expected true or false, not {text!r}")
    return word in _TRUE


def _gate(text: str) -> bool | int:
    try:
        return _bool(text) if text.strip().lower() in _TRUE + _FALSE else int(text)
    except ValueError:
        what = f"expected true, false or a number, not {text!r}"
        raise argparse.ArgumentTypeError(what) from None


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, not {text!r}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, not {text!r}") from None


def _assignment(text: str) -> tuple[str, Any]:
    """`KEY=VALUE`; a value that is no TOML is a text, so that `model=gpt-6` needs no quotes."""
    import tomllib

    key, equals, value = text.partition("=")
    if not equals or not all(part for part in key.split(".")):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, not {text!r}")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


_TYPES = {"str": str, "int": _integer, "float": _number, "bool": _bool, "gate": _gate}
