"""Gates are run by /bin/sh, which is not bash everywhere: what only bash understands, which
programs a gate needs, and whether it can fail at all."""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.", re.DOTALL)
_BEGIN = r"(?:^|[;&|(\n{!]\s*|\b(?:then|do|else|if|while|until)\s+)"
_PIPE = re.compile(r"(?<![|>])\|(?![|&])\s*(?!grep\b|(?:sh|bash)\b|test\b|jq -e)\w[^;&|]*$")
"""A last part that itself decides is meant."""


class Bashism(NamedTuple):
    """What of a command is bash's own. `probe`: a command that succeeds in a shell that knows it,
    too; `sure`: another shell stops at it, or does something else."""

    words: str
    probe: str
    sure: bool = True


_BASHISMS = tuple(
    (re.compile(pattern, re.MULTILINE), Bashism(*found))
    for pattern, *found in (
        (r"(?:^|[;&|(\s!])\[\[\s", "[[ … ]]", "[[ a == a ]]"),
        (r"(?:^|[;&|(\s!])(?:\[|test)\s[^;&|]*\s==\s", "[ … == … ]", "[ a == a ]"),
        (r"(?:^|[;&|\s])\w+\+?=\(", "an array", "a=(b c); [ ${#a[@]} = 2 ]"),
        (r"[<>]\(", "<(…)", ": <(:)"),
        (r"<<<", "<<<", ": <<<a"),
        (r"&>|\|&", "&> or |&", '[ -z "$(echo a &>/dev/null)" ]'),
        (r"(?:^|[;\s])function\s+\w", "function", "function f { :; }; f"),
        (r"(?:^|[;&|\s])\(\(", "(( … ))", "((1))"),
        (r"\bset\s[^;&|]*pipefail\b", "pipefail", "set -o pipefail"),
        (r"\$''", "$'…'", "[ $'a' = a ]"),
        (r"(?<!\$)\{[^\s{}'\"]*(?:,|\.\.)[^\s{}]*\}", "{a,b}", "set -- {a,b}; [ $# = 2 ]", False),
    )
)
_BUILTIN = re.compile(
    _BEGIN + r"(source|declare|typeset|mapfile|readarray|shopt|pushd|popd|let|time|coproc|select)\s"
)
_EXPANSION = re.compile(r"\$\{(?:!\w|[\w@*]+(?:\[|/|\^|,|@[A-Za-z]|:\s*[\d$(]|:\s+-))")


_SHELL_WORDS = frozenset((
    "!", ".", ":", "[", "{", "alias", "case", "cd", "command", "eval", "exec", "exit",
    "export", "false", "for", "if", "set", "test", "trap", "true", "umask",
    "unset", "until", "wait", "while",
))  # fmt: skip
"""First words of a gate that are the shell's own."""
_ELSEWHERE = frozenset((".", "alias", "eval", "export", "source"))
"""After these, programs are found otherwise."""
_NOTHING = re.compile(r"|(?:(?:/usr)?/bin/)?true|:|exit 0|(?:echo|printf)\b[^|>]*")
_CHOICE = frozenset(("||", "(", "{", "if", "for", "while", "until", "case", "function"))


def first_program(command: str) -> str:
    """The program that a shell command starts with; "" when only a shell can tell."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return ""
    name = next((word for word in words if "=" not in word.split("/")[0]), "")
    plain = name not in _SHELL_WORDS and not any(char in name for char in "$`(){};&|<>*?~")
    return name if plain and not words[0].startswith("PATH=") else ""


def later_programs(command: str) -> list[str]:
    """The other programs of a plain list (`a && b; c | d`) that are looked for on PATH."""
    lexer = shlex.shlex(command.replace("\n", ";"), posix=True, punctuation_chars=True)
    lexer.whitespace_split, found, part = True, list[str](), list[str]()
    try:
        words = [*lexer, ";"]
    except ValueError:
        return []
    for word in words if _CHOICE.isdisjoint(words) else ():
        if word not in ("&&", ";", "|"):
            part.append(word)
            continue
        if part and (part[0] in _ELSEWHERE or part[0].startswith("PATH=") or "install" in part):
            break
        found, part = [*found, first_program(shlex.join(part))], []
    return [name for name in found[1:] if name and "/" not in name]


def bashism(command: str) -> Bashism | None:
    """What in a shell command is bash's own, as people write it; None for a plain command."""
    text = _QUOTED.sub(lambda found: "''" if found[0][0] == "'" else "_", command)
    for pattern, what in _BASHISMS:
        if pattern.search(text):
            return what
    if found := _BUILTIN.search(text):
        return Bashism(found[1], f"command -v {found[1]}")
    inside = _QUOTED.sub(lambda found: found[0][1:-1] if found[0][0] == '"' else "_", command)
    if expansion := _EXPANSION.search(inside):
        return Bashism(f"{expansion[0]}…}}", "a=xy; [ ${a/x/} = y ]")
    return None


def piped(command: str) -> bool:
    """True when the exit code is that of the last program of a pipe alone: what fails before it is
    not seen."""
    text = _QUOTED.sub("_", command)
    return bool(_PIPE.search(text)) and "pipefail" not in text


def hollow(command: str) -> bool:
    """True when it succeeds whatever is wrong: `true`, `make; exit 0`, `make || true`, `make &`."""
    text = re.sub(r"(?:^|\s)#.*", "", _QUOTED.sub("_", command)).strip(" \t\n;(){}")
    if re.search(r"[(){}]|\bset\s+-\w*e", text):
        return False  # too much for a simple eye
    last = re.split(r"\|\||[;\n]", text)[-1]
    parts = [part.strip() for part in last.split("&&")]
    return bool(re.search(r"[^&]&$", text)) or all(map(_NOTHING.fullmatch, parts))


def with_bash(command: str) -> str:
    """The same command for a shell that is no bash."""
    return f"bash -c {shlex.quote(command)}"
