"""The agent command template: split first, substitute after, never a shell.

Because the words are fixed before any value is put in, a path with spaces, quotes, braces, `$` or a
newline is always exactly one word, or exactly the stretch of a word that its field stood for."""

from __future__ import annotations

import functools
import re
import shlex

FIELDS = ("prompt_file", "workspace")
"""The fields that a template may have; the first one is required."""

_WHOLE = re.compile(r"""(?:[^'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")*""", re.DOTALL)
_LONE = re.compile(r"""(?:"(?:[^"\\]|\\.)*)?\\""", re.DOTALL)
"""What `shlex` can split, and how a rest that it cannot split ends when it is not for a quote."""

Piece = tuple[bool, str]
"""(is a field, its name) or (False, literal text)."""


@functools.lru_cache
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


def for_a_shell(text: str) -> str:
    """What only a shell, or a CLI of another kind, would understand in a template that can be
    parsed, with the line that is right; "" when there is nothing of that. A quoted word is meant as
    it is."""
    words, raw = parse_template(text), _RAW_WORD.findall(text)
    program = words[0].rpartition("/")[2]
    if program in _SHELLS and any(word.startswith("-") and "c" in word for word in words[1:3]):
        return ""
    found = next((word for word in raw if _SHELL_WORD.match(word)), "")
    if found:
        right = _as_shell_line(text, program, exec_it=found[0] in "<>")
        return f"is not given to a shell, so {found} would be an argument; write: {right}"
    prompt = "{prompt_file}"
    if program in _STDIN_CLIS and prompt in words[1:]:
        at = words.index(prompt)
        if not _FILE_FLAG.match(words[at - 1]):
            call = f"{shlex.join((*words[:at], *words[at + 1 :]))} < {prompt}"
            right = _as_shell_line(call, program, exec_it=True)
            return f"gives {program} the prompt's path as its whole prompt; write: {right}"
    return ""


def _as_shell_line(text: str, program: str, *, exec_it: bool) -> str:
    """The template that has a shell do what `text` says."""
    fields = [field for field in FIELDS if f"{{{field}}}" in text]
    for number, field in enumerate(fields, 1):
        text = text.replace(f"'{{{field}}}'", f"{{{field}}}").replace(
            f"{{{field}}}", f'"${number}"'
        )
    given = " ".join(f"{{{field}}}" for field in fields)
    line = f"exec {text}" if exec_it else text
    return f"sh -c {shlex.quote(line)} {program} {given}"


_RAW_WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+""", re.DOTALL)
"""A word with its quotes."""
_SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish", "busybox")
_SHELL_WORD = re.compile(
    r"(?:[0-9&]?>{1,2}|<{1,3}|\|\|?|&&|;|&|2>&1)$|[0-9&]?>>?[^=]|<\{|\"?\$\(|\"?`"
)
"""Redirections, pipes, lists and command substitutions, each a word of its own or its beginning."""
_STDIN_CLIS = ("claude", "codex", "copilot", "gemini", "opencode", "qwen")
"""They take the prompt on stdin or as an argument, not as the name of a file."""
_FILE_FLAG = re.compile(r"-f$|--?[\w-]*file\b|@$")


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
