"""Reading JSON as models write it by hand: with commas at the end, comments, backslashes that begin
no escape, single or typographic quotes, and Python's words. It is put into strict JSON token by
token, in linear time, and then read; whatever else is wrong with it stays wrong."""

from __future__ import annotations

import re
from typing import Any

from codex_self_iter.core.foreign import decode_at

_TOKEN = re.compile(
    r"""(?P<text>"(?>(?:[^"\\]|\\.)*)"|'(?>(?:[^'\\]|\\.)*)'|“(?>(?:[^”\\]|\\.)*)”)"""
    r"|(?P<skip>\s+|//[^\n]*|/\*.*?\*/)"
    r"|(?P<word>(?:True|False|None)\b)"
    r"|(?P<plain>[{}\[\]:,]|[-+.\w]+)",
    re.DOTALL,
)
_INSIDE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|\\\'|["\\]')
_WORDS = {"True": "true", "False": "false", "None": "null"}


def decode_nearly(text: str, start: int) -> tuple[Any, int] | None:
    """The object or list that begins at `start` and where it ends, or None."""
    tokens: list[str] = []
    depth, at = 0, start
    while (found := _TOKEN.match(text, at)) is not None:
        at, said = found.end(), found[0]
        match found.lastgroup:
            case "skip":
                continue
            case "text":
                said = f'"{_INSIDE.sub(_escaped, said[1:-1])}"'
            case "word":
                said = _WORDS[said]
        if said in ("}", "]") and tokens[-1:] == [","]:
            tokens.pop()
        tokens.append(said)
        depth += (said in ("{", "[")) - (said in ("}", "]"))
        if depth <= 0:
            value = decode_at("".join(tokens), 0, strict=False)
            return (value[0], at) if value else None
    return None


def _escaped(found: re.Match[str]) -> str:
    """Inside a text: an escape as it is; a quote, or a backslash that is meant as one, escaped."""
    if found[0] == "\\'":
        return "'"
    return found[0] if len(found[0]) > 1 else f"\\{found[0]}"
