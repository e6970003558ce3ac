"""Gates are run by /bin/sh, which is not bash everywhere: what only bash understands, and which
program a gate is."""

from __future__ import annotations

import re
import shlex

_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.", re.DOTALL)
_BASH = re.compile(
    r"(?P<test>(?:^|[;&|(\s!])\[\[\s)"
    r"|(?P<source>(?:^|[;&|(]\s*|\b(?:then|do|else)\s+)source\s)"
    r"|(?P<array>(?:^|[;&|(\s])(?:declare|typeset|mapfile|readarray|shopt|pushd|popd|let)\s"
    r"|(?:^|[;&|\s])\w+\+?=\()"
    r"|(?P<process>[<>]\()"
    r"|(?P<here><<<)"
    r"|(?P<both>&>|\|&)"
    r"|(?P<function>(?:^|[;\s])function\s+\w)"
    r"|(?P<arithmetic>(?:^|[;&|\s])\(\()"
)
_PIPE = re.compile(r"(?<![|>])\|(?![|&])\s*(?!grep\b|(?:sh|bash)\b|test\b|jq -e)\w[^;&|]*$")
"""A last part that itself decides is meant."""
_WORDS = {
    "test": "[[ … ]]", "source": "source", "array": "arrays or another builtin",
    "process": "<(…)", "here": "<<<", "both": "&> or |&", "function": "function",
    "arithmetic": "(( … ))",
}  # fmt: skip


_SHELL_WORDS = frozenset((
    "!", ".", ":", "[", "[[", "{", "alias", "case", "cd", "command", "eval", "exec", "exit",
    "export", "false", "for", "if", "set", "source", "test", "time", "trap", "true", "umask",
    "unset", "until", "wait", "while",
))  # fmt: skip
"""First words of a gate that are the shell's own."""


def first_program(command: str) -> str:
    """The program that a shell command starts with; "" when only a shell can tell."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return ""
    name = next((word for word in words if "=" not in word.split("/")[0]), "")
    plain = name not in _SHELL_WORDS and not any(char in name for char in "$`(){};&|<>*?~")
    return name if plain and not words[0].startswith("PATH=") else ""


def bashism(command: str) -> str:
    """What in a shell command is bash's own, as people write it; "" for a plain command."""
    found = _BASH.search(_QUOTED.sub("_", command))
    return _WORDS[str(found.lastgroup)] if found else ""


def piped(command: str) -> bool:
    """True when the exit code is that of the last program of a pipe alone: what fails before it is
    not seen."""
    text = _QUOTED.sub("_", command)
    return bool(_PIPE.search(text)) and "pipefail" not in text


def with_bash(command: str) -> str:
    """The same command for a shell that is no bash."""
    return f"bash -c {shlex.quote(command)}"
