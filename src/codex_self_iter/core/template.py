"""The agent command template: split first, substitute after, never a shell.

Because the words are fixed before any value is put in, a path with spaces, quotes, braces, `$` or a
newline is always exactly one word, or exactly the stretch of a word that its field stood for."""

from __future__ import annotations

import re
import shlex

FIELDS = ("prompt_file", "workspace")
"""The fields that a template may have; the first one is required."""

_WHOLE = re.compile(r"""(?:[^'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")*""", re.DOTALL)
_LONE = re.compile(r"""(?:"(?:[^"\\]|\\.)*)?\\""", re.DOTALL)
"""What `shlex` can split, and how a rest that it cannot split ends when it is not for a quote."""

Piece = tuple[bool, str]
"""(is a field, its name) or (False, literal text)."""


def parse_template(text: str) -> tuple[str, ...]:
    """Split a template into words and check its fields; the words keep their fields and doubled
    braces.

    Raises ValueError with one clear line: unbalanced quotes, an unknown field, a lone brace, no
    program, or no `{prompt_file}`."""
    if "\0" in text:
        raise ValueError("has a NUL character, which no program argument can hold")
    rest = _WHOLE.sub("", text, count=1)
    if rest:
        what = "it ends in a lone backslash" if _LONE.fullmatch(rest) else "a quote is never closed"
        raise ValueError(f"cannot be split into words: {what}")
    words = tuple(shlex.split(text))
    if not words or not words[0]:
        raise ValueError("names no program")
    fields = {value for word in words for is_field, value in _pieces(word) if is_field}
    if FIELDS[0] not in fields:
        raise ValueError("must contain {prompt_file}, the path of the prompt to work on")
    return words


def render_template(parts: tuple[str, ...], prompt_file: str, workspace: str) -> tuple[str, ...]:
    """Put the values into the words of `parse_template`. Values are inserted verbatim."""
    values = {"prompt_file": prompt_file, "workspace": workspace}
    return tuple(
        "".join(values[text] if is_field else text for is_field, text in _pieces(word))
        for word in parts
    )


def _pieces(word: str) -> list[Piece]:
    """Literal stretches and fields of one word, in order."""
    pieces: list[Piece] = []
    at = 0
    while at < len(word):
        piece, at = _next_piece(word, at)
        pieces.append(piece)
    return pieces


def _next_piece(word: str, at: int) -> tuple[Piece, int]:
    """The piece that starts at `at`, and where the next one starts."""
    char = word[at]
    if char not in "{}":
        ends = [end for end in (word.find("{", at), word.find("}", at)) if end >= 0]
        end = min(ends, default=len(word))
        return (False, word[at:end]), end
    if word[at : at + 2] == char * 2:
        return (False, char), at + 2
    if char == "}":
        raise ValueError("has a lone '}'; write '}}' for a brace that is meant as itself")
    end = word.find("}", at)
    if end < 0:
        raise ValueError("has a lone '{'; write '{{' for a brace that is meant as itself")
    name = word[at + 1 : end]
    if name not in FIELDS:
        known = " and ".join(f"{{{field}}}" for field in FIELDS)
        raise ValueError(
            f"has the unknown field {{{name}}}; known are {known} "
            "(write '{{' and '}}' for braces that are meant as such)"
        )
    return (True, name), end + 1
