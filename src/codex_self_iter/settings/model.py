"""`Settings`: every key, frozen, with the memory of where each value came from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from codex_self_iter.settings.schema import (
    LogSettings,
    LoopFields,
    PoolSettings,
    ServiceSettings,
    WorkspaceEntry,
)

KeyPath = tuple[str | int, ...]
"""A key as the tables, names and list positions that lead to it."""


class Origin:
    """Where values came from. Subclassed by `load`; a bare one knows only defaults."""

    def of(self, path: KeyPath) -> str:  # noqa: ARG002 - the plain one has no sources
        """In words: "default", "flag --x", "environment X" or "file F:12"."""
        return "default"


class Settings(BaseSettings, LoopFields):
    """All keys. Constructing it reads nothing from the surroundings: `load` reads, this holds and
    checks.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        env_prefix="CODEX_SELF_ITER_",
        env_nested_delimiter="__",
    )

    pool: PoolSettings = Field(default_factory=PoolSettings)
    """How many agent runs one supervisor may have alive at once."""
    service: ServiceSettings = Field(default_factory=ServiceSettings)
    """How a service stops."""
    log: LogSettings = Field(default_factory=LogSettings)
    """The supervisor's own log."""
    workspaces: tuple[WorkspaceEntry, ...] = ()
    """Several loops in one supervisor: a path each, and what differs from the keys above."""

    _origin: Origin = PrivateAttr(default_factory=Origin)
    _config_file: Path | None = PrivateAttr(default=None)
    _base: str = PrivateAttr(default="")
    _pinned: Mapping[str, Any] = PrivateAttr(default_factory=dict)
    _name: str = PrivateAttr(default="")
    _priority: int = PrivateAttr(default=0)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: `load` merges the layers, because it can say where each value
        came from.
        """
        return (init_settings,)

    def __eq__(self, other: object) -> bool:
        """Equal when every value is; where the values came from does not matter."""
        return isinstance(other, Settings) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    @property
    def sources(self) -> tuple[Path, ...]:
        """The configuration files that were read."""
        return () if self._config_file is None else (self._config_file,)

    @property
    def workspace_path(self) -> Path:
        """The workspace, absolute and without symbolic links; it need not exist."""
        return Path(
            os.path.realpath(os.path.join(self._base or os.getcwd(), self.workspace.expanduser()))
        )

    @property
    def name(self) -> str:
        """The loop's name: as configured, else its directory's."""
        return self._name or self.workspace_path.name or "root"

    @property
    def priority(self) -> int:
        """A loop with a higher number gets a free place in the pool first."""
        return self._priority

    def origin(self, *path: str | int) -> str:
        """Where a key's value came from: "default", "flag --x", "environment X" or "file F:12"."""
        return self._origin.of(path)

    @property
    def provenance(self) -> Mapping[str, str]:
        """`origin` of every leaf key, by its dotted name."""
        return {".".join(map(str, path)): self._origin.of(path) for path, _ in self.leaves()}

    def leaves(self) -> Iterator[tuple[KeyPath, Any]]:
        """Every key that is no table, with its value as plain JSON values, in the order of the
        schema.
        """
        return _leaves((), self.model_dump(mode="json", by_alias=True))

    def loops(self) -> tuple[Settings, ...]:
        """One Settings for each loop: this one alone without [[workspaces]].

        An entry's keys win over the file's own; a flag or an environment variable wins over both. A
        workspace given by flag or environment picks its entry, or stands alone when it is none of
        them."""
        if not self.workspaces:
            return (self,)
        if "workspace" in self._pinned:
            mine = [
                entry for entry in self.workspaces if self.entry_path(entry) == self.workspace_path
            ]
            return (
                self._named(mine[0], set()) if mine else self.model_copy(update={"workspaces": ()}),
            )
        taken: set[str] = set()
        return tuple(self._named(entry, taken) for entry in self.workspaces)

    def loop_values(self, entry: WorkspaceEntry) -> dict[str, Any]:
        """The keys of one entry's loop that may differ from these settings, not yet checked."""
        keys = set(entry.overrides)
        below = self.model_dump(mode="json", by_alias=True, include=keys)
        return merge(
            merge(below, entry.overrides),
            {key: self._pinned[key] for key in keys & set(self._pinned)},
        )

    def loop(self, entry: WorkspaceEntry, fields: LoopFields) -> Settings:
        """One entry's loop from its checked `loop_values`; every other table is shared with these
        settings.
        """
        differing = {name: getattr(fields, name) for name in fields.model_fields_set}
        return self.model_copy(
            update={**differing, "workspace": self.entry_path(entry), "workspaces": ()},
        )

    def entry_path(self, entry: WorkspaceEntry) -> Path:
        """An entry's workspace: in a file it counts from the file's directory, else from the
        current one.
        """
        base = self._base or os.getcwd()
        if self._config_file is not None and "workspaces" not in self._pinned:
            base = str(self._config_file.parent)
        return Path(os.path.realpath(os.path.join(base, entry.path.expanduser())))

    def _named(self, entry: WorkspaceEntry, taken: set[str]) -> Settings:
        """The loop of an entry; two directories of the same name are told apart by a number."""
        loop = self.loop(entry, LoopFields.model_validate(self.loop_values(entry)))
        others = {other.name for other in self.workspaces} | taken
        name = entry.name or next(
            n for n in _numbered(loop.workspace_path.name or "root") if n not in others
        )
        taken.add(name)
        loop._name, loop._priority = name, entry.priority
        return loop


def tell_apart(loops: Iterable[Settings]) -> list[Settings]:
    """One Settings for each workspace; where directories have the same name, a number is added to
    the later ones.
    """
    found: dict[Path, Settings] = {}
    names: set[str] = set()
    for loop in loops:
        if loop.workspace_path not in found:
            found[loop.workspace_path] = loop
            loop._name = next(name for name in _numbered(loop.name) if name not in names)
            names.add(loop._name)
    return list(found.values())


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over `low`: tables are joined, every other value is replaced."""
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = merge(below, value) if both and below is not None else value
    return merged


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def _leaves(path: KeyPath, value: Any) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict) and (value or not path):
        for key, below in value.items():
            yield from _leaves((*path, key), below)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, below in enumerate(value):
            yield from _leaves((*path, index), below)
    else:
        yield path, value
