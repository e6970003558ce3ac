"""Reading back what `core.state.to_json` and the journal wrote.

By hand and not by pydantic, whose adapter for `LoopState` costs a start 0.1 s and a load 1 ms less,
and which refuses the escapes of lone surrogates that our own files may hold."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from codex_self_iter.core.recovery import Line, RecoveryError, reconcile
from codex_self_iter.core.state import LoopState

T = TypeVar("T")
Fields = tuple[tuple[str, str, Any, bool], ...]


def recover(
    snapshot: Mapping[str, Any] | None, line: Mapping[str, Any] | None, new_loop_id: str
) -> LoopState:
    """The state from which the loop goes on, from what was kept. Raises RecoveryError."""
    state = None
    if snapshot is not None:
        state, flaw = _state(snapshot, "runtime.json")
        if flaw:
            raise RecoveryError(flaw)
    return reconcile(state, None if line is None else _line(line), new_loop_id)


def _line(line: Mapping[str, Any]) -> Line:
    number, after, state, flaw = line.get("iteration"), line.get("after"), None, ""
    if isinstance(after, Mapping):
        state, flaw = _state(after, "the journal's last line")
    goal = str(line.get("next_goal") or "")
    return Line(number if isinstance(number, int) else None, goal, state, flaw)


def _state(data: Mapping[str, Any], what: str) -> tuple[LoopState | None, str]:
    """(state, "") or (None, what is wrong with it)."""
    try:
        return from_json(LoopState, data), ""
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        return None, f"{what} is not the state of a loop: {error}"


def from_json(kind: type[T], data: Mapping[str, Any]) -> T:
    """Rebuild a dataclass of `core.state` from plain JSON: unknown keys ignored, missing default.

    Raises TypeError, ValueError or KeyError when the value cannot be one."""
    if not isinstance(data, Mapping):
        raise TypeError(f"expected an object, not {type(data).__name__}")
    return kind(
        **{name: _build(hint, data[key]) for name, key, hint, _ in _FIELDS(kind) if key in data}
    )


def _fields(kind: Any) -> Fields:
    """Name, key in JSON, type, and whether it must be there, of every field."""
    hints = typing.get_type_hints(kind)
    return tuple(
        (
            field.name,
            field.metadata.get("json", field.name),
            hints[field.name],
            field.default is field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(kind)
    )


_FIELDS: Callable[[Any], Fields] = functools.cache(_fields)


def _build(kind: Any, value: Any) -> Any:
    """Rebuild a value of the annotated type. Raises as `from_json` does."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _build(_arm(args, value), value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"expected a list, not {type(value).__name__}")
        return tuple(_build(args[0], item) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, not {type(value).__name__}")
        return {str(key): _build(args[1], item) for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return from_json(kind, value)
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, not {type(value).__name__}")
    return value


def _arm(kinds: tuple[Any, ...], value: Any) -> Any:
    """The type of a union that a value is of, or the first one, which will say what is wrong."""
    if len(kinds) == 1 or kinds[1] is types.NoneType:
        return kinds[0]
    for kind in kinds:
        if not dataclasses.is_dataclass(kind):
            fits = type(value) is kind
        else:
            needed = (key for _, key, _, needed in _FIELDS(kind) if needed)
            fits = isinstance(value, Mapping) and all(key in value for key in needed)
        if fits:
            return kind
    return kinds[0]
