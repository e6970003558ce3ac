"""From a snapshot of any version to one that this program can go on from. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from codex_self_iter.core.state import SCHEMA, LoopState
from codex_self_iter.errors import UsageError
from codex_self_iter.world.state.codec import from_json

Runtime = dict[str, Any]
"""The content of `runtime.json`."""


def _from_0(runtime: Runtime) -> Runtime:
    """Before versions were written down the fields were the same."""
    return runtime | {"schema": 1}


MIGRATIONS: dict[int, Callable[[Runtime], Runtime]] = {0: _from_0}
"""Version → pure function that makes the next version of it. Never edited, only added to."""


def migrate(
    runtime: Runtime,
    schema: int = SCHEMA,
    migrations: Mapping[int, Callable[[Runtime], Runtime]] = MIGRATIONS,
) -> Runtime:
    """Bring a snapshot to `schema`. Raises UsageError if it is newer, ValueError without a way."""
    version = runtime.get("schema", 0)
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise ValueError("its schema version is no number")
    if version > schema:
        raise UsageError(
            f"it has schema version {version}, this program knows {schema}: "
            "it was written by a newer codex-self-iter; install that one,"
            " or choose another state_dir"
        )
    for step in range(version, schema):
        if step not in migrations:
            raise ValueError(f"no migration from schema version {step}")
        runtime = migrations[step](dict(runtime))
    return runtime


def accept(runtime: Mapping[str, Any]) -> None:
    """Raise ValueError unless it is a loop's whole state."""
    from_json(LoopState, runtime)
    number = runtime.get("iteration")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError("it has no iteration number")
