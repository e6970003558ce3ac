"""The settings in force, for people: every key with its value and where that comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from codex_self_iter.settings.keys import dotted
from codex_self_iter.settings.model import Settings
from codex_self_iter.settings.problems import is_secret


def values(settings: Settings, *, changed: bool = False) -> Iterator[tuple[str, Any, str]]:
    """(key, value, origin) of every key, or of those that were `changed`; secrets are `***`."""
    defaults = dict(Settings().leaves())
    for path, value in settings.leaves():
        secret, origin = is_secret(path) and value, settings.origin(*path)
        differs = origin != "default" and (path not in defaults or value != defaults[path])
        if differs or not changed:
            yield dotted(path), "***" if secret else value, origin
