"""`Settings`: every key, frozen, with the memory of where each value came from."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from contextvars import ContextVar
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

    pinned: Mapping[str, Any] = {}
    """What no [[workspaces]] entry may change."""
    path: Path | None = None
    """The configuration file."""

    def of(self, path: KeyPath) -> str:  # noqa: ARG002 - the plain one has no sources
        """In words: "default", "flag --x", "environment X" or "file F:12"."""
        return "default"


_DEFAULTS = Origin()
_USERS = ("codex-self-iter", "config.toml")
"""The last parts of the path of a user's own file, which is read where there is no other."""


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """What is known of settings beside their values.

    Attributes:
        origin: where each value came from.
        base: directory that a relative workspace counts from; "" = the current one.
        name: the loop's name, where it was chosen.
        priority: a loop with a higher number gets a free place in the pool first.
        remark: what to say of the gates that were found, beside what they are."""

    origin: Origin = _DEFAULTS
    base: str = ""
    name: str = ""
    priority: int = 0
    remark: str = ""


_SOURCES: ContextVar[tuple[PydanticBaseSettingsSource, ...]] = ContextVar("sources", default=())


class Settings(BaseSettings, LoopFields):
    """All keys. Constructing it reads nothing from the surroundings: `load` reads, this holds and checks."""

    model_config = SettingsConfigDict(env_prefix="CODEX_SELF_ITER_", env_nested_delimiter="__")

    pool: PoolSettings = Field(default_factory=PoolSettings)
    """How many agent runs one supervisor may have alive at once."""
    service: ServiceSettings = Field(default_factory=ServiceSettings)
    """How a service stops, and whether the machine may sleep meanwhile."""
    log: LogSettings = Field(default_factory=LogSettings)
    """The supervisor's own log."""
    workspaces: tuple[WorkspaceEntry, ...] = ()
    """Several loops in one supervisor: a path each, and what differs from the keys above."""

    _loaded: Loaded = PrivateAttr(default=Loaded())

    @classmethod
    def read_from(cls, *sources: PydanticBaseSettingsSource) -> Settings:
        """Settings of these sources, the first of which wins. Raises ValidationError."""
        token = _SOURCES.set(sources)
        try:
            return cls()
        finally:
            _SOURCES.reset(token)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is passed in, then the sources of `read_from`, which know flag, variable and line.

        The library's own would read this process's environment and know none of them."""
        return (init_settings, *_SOURCES.get())

    def __eq__(self, other: object) -> bool:
        """Equal when every value is; where the values came from does not matter."""
        return isinstance(other, Settings) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    @property
    def sources(self) -> tuple[Path, ...]:
        """The configuration files that were read."""
        path = self._loaded.origin.path
        return () if path is None else (path,)

    @property
    def given_file(self) -> str:
        """The file that was read and that no command finds by itself from the workspace, absolute, or ""."""
        path = next(iter(self.sources), None)
        if path is None or path.parts[-2:] == _USERS:
            return ""
        return "" if path.parent.resolve() == self.workspace_path else str(path)

    @property
    def workspace_path(self) -> Path:
        """The workspace, absolute and without symbolic links; it need not exist."""
        return self._resolved(self._loaded.base, self.workspace)

    @property
    def name(self) -> str:
        """The loop's name: as configured, else its directory's."""
        return self._loaded.name or self.workspace_path.name or "root"

    @property
    def priority(self) -> int:
        """A loop with a higher number gets a free place in the pool first."""
        return self._loaded.priority

    @property
    def remark(self) -> str:
        """What to say of the gates that were found here, beside what they are; "" for nothing."""
        return self._loaded.remark

    def origin(self, *path: str | int) -> str:
        """Where a key's value came from: "default", "flag --x", "environment X" or "file F:12"."""
        return self._loaded.origin.of(path)

    def loaded_as(self, **changes: Any) -> Settings:
        """The same values with some fields of `Loaded` replaced."""
        copy = self.model_copy()
        copy._loaded = dataclasses.replace(self._loaded, **changes)
        return copy

    def leaves(self) -> Iterator[tuple[KeyPath, Any]]:
        """Every key that is no table, its value as plain JSON, in the order of the schema."""
        return _leaves((), self.model_dump(mode="json", by_alias=True))

    def loops(self) -> tuple[Settings, ...]:
        """One Settings for each loop: this one alone without [[workspaces]].

        An entry's keys win over the file's own; a flag or an environment variable wins over both. A
        workspace given by flag or environment picks its entry, or stands alone when it is none of
        them."""
        if not self.workspaces:
            return (self,)
        if "workspace" in self._loaded.origin.pinned:
            here = self.workspace_path
            mine = [entry for entry in self.workspaces if self.entry_path(entry) == here]
            alone = self.model_copy(update={"workspaces": ()})
            return (self._named(mine[0], set()) if mine else alone,)
        taken: set[str] = set()
        return tuple(self._named(entry, taken) for entry in self.workspaces)

    def loop_values(self, entry: WorkspaceEntry) -> dict[str, Any]:
        """The keys of one entry's loop that may differ from these settings, not yet checked."""
        keys = set(entry.overrides)
        below = self.model_dump(mode="json", by_alias=True, include=keys)
        pinned = {k: v for k, v in self._loaded.origin.pinned.items() if k in keys}
        return merge(merge(below, entry.overrides), pinned)

    def loop(self, entry: WorkspaceEntry, fields: LoopFields) -> Settings:
        """One entry's loop from its checked `loop_values`; the rest is shared with these settings."""
        differing = {name: getattr(fields, name) for name in fields.model_fields_set}
        own = {"workspace": self.entry_path(entry), "workspaces": ()}
        return self.model_copy(update={**differing, **own})

    def entry_path(self, entry: WorkspaceEntry) -> Path:
        """An entry's workspace; in a file it counts from the file's directory."""
        base, origin = self._loaded.base, self._loaded.origin
        if origin.path is not None and "workspaces" not in origin.pinned:
            base = str(origin.path.parent)
        return self._resolved(base, entry.path)

    @staticmethod
    def _resolved(base: str, path: Path) -> Path:
        return Path(os.path.realpath(os.path.join(base or os.getcwd(), os.path.expanduser(path))))

    def _named(self, entry: WorkspaceEntry, taken: set[str]) -> Settings:
        """The loop of an entry; two directories of the same name are told apart by a number."""
        loop = self.loop(entry, LoopFields.model_validate(self.loop_values(entry)))
        others = {other.name for other in self.workspaces} | taken
        name = entry.name or _free(loop.workspace_path.name or "root", others)
        taken.add(name)
        return loop.loaded_as(name=name, priority=entry.priority)


def tell_apart(loops: Iterable[Settings]) -> list[Settings]:
    """One Settings for each workspace; a number is added to a name that comes again."""
    found: dict[Path, Settings] = {}
    for loop in loops:
        if loop.workspace_path not in found:
            name = _free(loop.name, [other.name for other in found.values()])
            found[loop.workspace_path] = loop.loaded_as(name=name)
    return list(found.values())


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over `low`: tables are joined, every other value is replaced."""
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = merge(below, value) if both and below is not None else value
    return merged


def _free(name: str, taken: Container[str]) -> str:
    """The name, with a number where it is taken."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(one for one in names if one not in taken)


def _leaves(path: KeyPath, value: Any) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict) and (value or not path):
        for key, below in value.items():
            yield from _leaves((*path, key), below)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, below in enumerate(value):
            yield from _leaves((*path, index), below)
    else:
        yield path, value
