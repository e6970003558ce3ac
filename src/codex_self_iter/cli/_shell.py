"""Gates are run by /bin/sh, which is not bash everywhere: what only bash understands."""

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
