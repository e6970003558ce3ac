"""Walking the schema by key: which field is there, what is allowed in it, which key is nearest."""

from __future__ import annotations

import difflib
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from codex_self_iter.settings.model import KeyPath, Settings
from codex_self_iter.settings.schema import LoopFields, WorkspaceEntry
from codex_self_iter.settings.types import Allowed

_SHOWN = 5
"""Keys of a table that are named where something else stands in its place."""


def dotted(path: KeyPath) -> str:
    """The key as people write it: workspaces[0].verify.commands, prices."a.b".as_of."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = part.replace("-", "").replace("_", "").isalnum() and part.isascii()
            text += ("." if text else "") + (part if plain else f'"{part}"')
    return text


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A table's fields by their names in a file; a [[workspaces]] entry has a loop's, too."""
    own = {field.alias or name: field for name, field in model.model_fields.items()}
    if model is WorkspaceEntry:
        loop = fields_of(LoopFields)
        loop.pop("workspace")
        return own | loop
    return own


def kind_at(path: KeyPath) -> Any:
    """The annotation of what is at a key, list items and table values too; None for no such key."""
    kind: Any = Settings
    for part in path:
        kind = _below(kind, part)
        if kind is None:
            return None
    return kind


def table_at(path: KeyPath) -> type[BaseModel] | None:
    """The table at a key, or None when it is no table of fixed keys."""
    kind = _bare(kind_at(path))
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def tables_at(path: KeyPath, above: KeyPath = ()) -> tuple[str, str]:
    """What belongs where a table, or several, are, and how it is written; "" twice for other keys.

    `above`: the entry of [[workspaces]] in which the key is."""
    header = dotted(tuple(part for part in (*above, *path) if isinstance(part, str)))
    if table := table_at(path):
        if isinstance(path[-1], int):
            return "a table", f"write [[{header}]]"
        names = [*fields_of(table)]
        most = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        return "a table", f"write [{header}], and below it its keys ({most})"
    if not any(table_at((*path, part)) for part in (0, "name")):
        return "", ""
    several = typing.get_origin(_bare(kind_at(path))) is tuple
    if several:
        return "a list of tables", f"write [[{header}]]"
    return "a table", f"write [{header}.NAME]"


def names_in(path: KeyPath) -> tuple[str, ...]:
    """The names that a table of free keys is restricted to; () for any."""
    args = typing.get_args(_bare(kind_at(path)))
    names = _bare(args[0]) if len(args) == 2 else None
    return typing.get_args(names) if typing.get_origin(names) is typing.Literal else ()


def field_at(path: KeyPath) -> FieldInfo | None:
    """The field of a key or of the nearest field above it (for list items and table values)."""
    for end in range(len(path), 0, -1):
        table, name = table_at(path[: end - 1]), path[end - 1]
        if table is not None and isinstance(name, str) and name in fields_of(table):
            return fields_of(table)[name]
    return None


def allowed_at(path: KeyPath) -> str:
    """What is allowed at a key, in words, or ""."""
    field = field_at(path)
    return "" if field is None else allowed_in(field)


def allowed_in(field: FieldInfo) -> str:
    """What is allowed in a field, in words, or ""."""
    return next((item.text for item in reversed(field.metadata) if isinstance(item, Allowed)), "")


def suggestion(path: KeyPath) -> str:
    """A hint about the key that was probably meant, or ""."""
    name, parent = str(path[-1]), path[:-1]
    table = table_at(parent)
    siblings = list(fields_of(table)) if table is not None else []
    homes = [other for other in _catalogue() if other[-1] == name]
    # A letter too many or too few is likelier than the wrong table.
    near = difflib.get_close_matches(name, siblings, 1, 0.9 if homes else 0.7)
    if near:
        return f"did you mean {dotted((*parent, near[0]))}?"
    if homes and parent[:1] == ("agents",) and table is not None and len(parent) == 2:
        return f"the {parent[1]} adapter has no use for it; known here: {', '.join(siblings)}"
    if homes:
        return f"{name} {_home(homes, parent)}"
    names = sorted({str(other[-1]) for other in _catalogue()})
    far = difflib.get_close_matches(name, names, 1, 0.8)
    if far:
        home = next(other for other in _catalogue() if other[-1] == far[0])
        return f"did you mean {dotted(home)}?"
    return f"known here: {', '.join(siblings)}" if 0 < len(siblings) <= 14 else ""


def _home(homes: list[KeyPath], parent: KeyPath) -> str:
    tables = [dotted(home[:-1]) for home in homes]
    if "" in tables and not (parent and parent[0] == "workspaces"):
        return "belongs at the top level, above the first [table]"
    if "" in tables:
        return "belongs to the supervisor, at the top level, not to one workspace"
    if parent and parent[0] == "workspaces" and tables[0] in ("pool", "service", "log"):
        return f"belongs to the supervisor's own table [{tables[0]}]"
    return "belongs in " + " or ".join(f"[{table}]" for table in dict.fromkeys(tables))


@functools.cache
def _catalogue() -> tuple[KeyPath, ...]:
    """Every key that has a fixed name; the adapters' tables once, as [agents.codex]."""
    return tuple(_keys((), Settings))


def _keys(path: KeyPath, model: type[BaseModel]) -> Iterator[KeyPath]:
    for name in fields_of(model):
        below = table_at((*path, name))
        yield (*path, name)
        if below is not None and not (path == ("agents",) and name != "codex"):
            yield from _keys((*path, name), below)


def _below(kind: Any, part: str | int) -> Any:
    kind = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = fields_of(kind).get(part) if isinstance(part, str) else None
        return None if field is None else _full(field)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(part, int):
        return args[0]
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(part, str):
        return args[1]
    return None


def _full(field: FieldInfo) -> Any:
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _bare(kind: Any) -> Any:
    """Without Annotated and without `| None`."""
    while typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        some = [arg for arg in typing.get_args(kind) if arg is not type(None)]
        if len(some) == 1:
            return _bare(some[0])
    return kind
