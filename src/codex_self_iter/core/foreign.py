"""Reading JSON that others wrote: whatever it holds, the reader gets the shape that it asked for.

The only place in the core where something may be raised and is not let out: the library has no
decoder that says None, and how deep a value may be nested, only the attempt tells. Only light
imports: `status` comes through here."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STRICT, _TOLERANT = json.JSONDecoder(), json.JSONDecoder(strict=False)


def decode_at(text: str, start: int, *, strict: bool = True) -> tuple[Any, int] | None:
    """The JSON value that begins at `start` and where it ends, or None. Not `strict`: a text may
    hold line breaks."""
    try:
        return (_STRICT if strict else _TOLERANT).raw_decode(text, start)
    except (ValueError, RecursionError):
        return None


def flaw_at(text: str, start: int) -> tuple[str, int]:
    """Why no JSON value can be read at `start`, in the decoder's words, and where it gave up."""
    try:
        _TOLERANT.raw_decode(text, start)
    except json.JSONDecodeError as error:
        return error.msg, error.pos
    except (ValueError, RecursionError):
        return "a number or a nesting is too large", start
    return "", start


def encode(value: object) -> str | None:
    """The value as JSON; None when it is nested too deeply."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return None


def decode(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, or None. Cut, foreign and absurdly nested texts are None."""
    text = text.strip()
    found = decode_at(text, 0) if text.startswith("{") else None
    return found[0] if found and found[1] == len(text) else None


def as_dict(value: object) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """The value if it is text, else ""."""
    return value if isinstance(value, str) else ""


def as_words(value: object) -> str:
    """The value as people can read it: text as it is, nothing as "", anything else as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return encode(value) or "…"


def as_number(value: object) -> float:
    """The value if it is a number that a float can hold, else 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if abs(value) < 1e300 else 0.0


def as_int(value: object) -> int:
    """The value if it is a number in a sensible range, cut to a whole one, else 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value < 1e15 else 0


def as_cost(value: object) -> float | None:
    """The value if it is a believable amount of money, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e6 else None
