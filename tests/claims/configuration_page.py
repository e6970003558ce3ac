"""docs/configuration.md as data: its rows, and values that its words allow and do not allow."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from typing import Any

from codex_self_iter.settings import AGENT_NAMES
from tests.claims.documents import ROOT

PAGE = ROOT / "docs" / "configuration.md"
_CELL = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class Row:
    """One key as the page has it; the adapters' keys are those of codex."""

    key: str
    meaning: str
    default: str
    allowed: str
    flag: str = ""
    variable: str = ""

    @property
    def value(self) -> Any:
        """The default, as a value."""
        return tomllib.loads(f"x = {self.default}")["x"]

    @property
    def good(self) -> list[str]:
        """Values as TOML that are allowed; the first is never the default."""
        found = _words(self.allowed) or GOOD[self.allowed]
        return sorted(found, key=lambda text: tomllib.loads(f"x = {text}")["x"] == self.value)

    @property
    def wrong(self) -> list[str]:
        """Values as TOML that are not."""
        return ['"nonsense"', "3", "[]"] if _words(self.allowed) else WRONG[self.allowed]


A_LIST_OF_AGENTS = f"a list of adapter names: {', '.join(AGENT_NAMES)}"
FENCE_PATHS = 'a list of paths, absolute, from ~ on or in the workspace, such as ["~/.cache/pip"]'
PROTOCOL = '"acp", or "" for the adapter of its own'
GOOD = {
    PROTOCOL: ['"acp"', '""'],
    "a path (text, not empty)": ['"sub dir/ö"'],
    "a whole number, 0 or more": ["7", "0", "9007199254740992"],
    "a whole number, 1 or more": ["7", "1"],
    "a number of seconds from 0 to 1e9": ["1000.5", "1000", "1e9"],
    "a number, 0 or more": ["7.5", "0", "3"],
    "a finite number, 0 or more": ["7.5", "0", "3"],
    "a number from 0 to 1": ["0.5", "0", "1"],
    "true, false or a whole number, 0 or more": ["3", "true", "false", "0"],
    FENCE_PATHS: ['["~/.cache"]', "[]"],
    "true or false": ["true", "false"],
    "a text": ['"x y"', '""'],
    'a text of one line; "" for none': ['"READY"', '""'],
    'an absolute path that ends in .prom, with {name} if wanted; "" for none': [
        '"/tmp/{name}.prom"', '"~/x.prom"', '""',
    ],
    'an absolute path, or one that begins with ~; "" for none': ['"/tmp/trees"', '"~/x"', '""'],
    "a whole number, 1024 to 60000": ["7000", "1024", "60000"],
    "a text that is not empty, with {title}, {number}, {lane} and {body} if wanted": [
        '"item {number}: {title}\\n\\n{body} ({lane})"', '"x"',
    ],
    'a text such as "Ann <ann@example.org>"; "" for git\'s': ['"A B <a@b>"', '""'],
    'an address such as "http://localhost:4318"; "" for none': [
        '"https://example.org/otlp"', '"${WHERE}/x"', '""',
    ],
    'a time such as "08:00"; "" for none': ['"07:30"', '"23:59"', '""'],
    'two times such as "22:00-07:00"; "" for none': ['"22:00-07:30"', '"09:00-17:00"', '""'],
    'a name such as "Europe/Berlin"; "" for the machine\'s': ['"UTC"', '"Europe/Berlin"', '""'],
    'a plain file name such as "STOP"': ['"own {}"'],
    'a command line with {prompt_file} and, if wanted, {workspace}; "" for none': [
        '"mine {prompt_file} {workspace}"', '"mine {prompt_file}"',
    ],
    'a list of texts, such as ["--flag", "value"]': ['["--x", "--x"]', "[]"],
    'a list of texts that are not empty, such as ["program", "--flag"]': ['["x", "x"]', "[]"],
    'a list of texts that are not empty, each once, such as ["a", "b"]': ['["x", "y"]', "[]"],
    'a list of globs relative to the workspace, each once, such as ["tests/**"]': [
        '["a/**"]', "[]",
    ],
    'a table of texts such as { NAME = "value" }': ['{ A = "b" }', "{}"],
    "a table of adapter name = whole number, 1 or more": ["{ codex = 1 }", "{}"],
    A_LIST_OF_AGENTS: [
        '["codex", "plan-shell"]', "[]",
    ],
    "a list of: agent_stopped, blocked, budget, completed, cooldown, crashed, digest, outage, stagnated,"
    " stopped": ['["stopped"]', "[]"],
}  # fmt: skip
_NUMBERS = ['"7"', "true", "-1", "[]", "nan", "inf", "-0.5"]
WRONG = {
    FENCE_PATHS: ['"x"', "[1]", '[""]', '["a", "a"]', '["a\\u0000"]'],
    PROTOCOL: ['"acpx"', "1", "[]"],
    "a path (text, not empty)": ['""', '" "', "3", "true", "[]", '"a\\u0000b"'],
    "a whole number, 0 or more": [*_NUMBERS, "1.5", "9007199254740993"],
    "a whole number, 1 or more": [*_NUMBERS, "1.5", "0"],
    "a number of seconds from 0 to 1e9": [*_NUMBERS, "1e10"],
    "a number, 0 or more": [*_NUMBERS, "1e300"],
    "a finite number, 0 or more": [*_NUMBERS, "1e300"],
    "a number from 0 to 1": [*_NUMBERS, "1.1"],
    "true, false or a whole number, 0 or more": ['"true"', "-1", "1.5", "[]"],
    "true or false": ['"true"', "1", "[]"],
    "a text": ["3", "true", "[]", '"a\\u0000b"'],
    'a text of one line; "" for none': ["3", '" x"', '"x\\ny"', "[]"],
    'an absolute path that ends in .prom, with {name} if wanted; "" for none': [
        '"x.prom"', '"/tmp/x"', '"/tmp/{nme}.prom"', "3",
    ],
    'an absolute path, or one that begins with ~; "" for none': ['"x"', '"./x"', "3"],
    "a whole number, 1024 to 60000": [*_NUMBERS, "1.5", "1023", "60001"],
    "a text that is not empty, with {title}, {number}, {lane} and {body} if wanted": [
        '"{what}"', '""', '" "', '"{"', "3",
    ],
    'a text such as "Ann <ann@example.org>"; "" for git\'s': ['"Ann"', '"<a@b>"', '"A <a b>"', "3"],
    'an address such as "http://localhost:4318"; "" for none': [
        '"localhost:4318"', '"http://x y"', '"http://x/v1/traces"', "3",
    ],
    'a time such as "08:00"; "" for none': ['"8:00"', '"24:00"', '"08:60"', '"x"', "8", '"08:00 "'],
    'two times such as "22:00-07:00"; "" for none': [
        '"22-7"', '"25:00-07:00"', '"07:00-07:00"', '"x"', "22", '"22:00-07:00 "',
    ],
    'a name such as "Europe/Berlin"; "" for the machine\'s': ['"Mars"', '"../etc"', "1"],
    'a plain file name such as "STOP"': ['""', '"a/b"', '".."', "3", '" x"', '"a\\nb"'],
    'a command line with {prompt_file} and, if wanted, {workspace}; "" for none': [
        '"run"', '"run {prompt_file} {x}"', '"run < {prompt_file}"', "3", "\"run '{prompt_file}\"",
    ],
    'a list of texts, such as ["--flag", "value"]': ['"x"', "3", "[1]", "[[]]"],
    'a list of texts that are not empty, such as ["program", "--flag"]': ['"x"', '[""]', "[1]"],
    'a list of texts that are not empty, each once, such as ["a", "b"]': [
        '"x"', '[""]', "[1]", '["x", "x"]', '[" "]',
    ],
    'a list of globs relative to the workspace, each once, such as ["tests/**"]': [
        '["/etc/passwd"]', '["../x"]', '["~/x"]', '["x", "x"]', '"x"', '[""]',
    ],
    'a table of texts such as { NAME = "value" }': ["3", '"A=b"', "{ A = 1 }", '{ "A=B" = "c" }'],
    "a table of adapter name = whole number, 1 or more": [
        "3", "{ codex = 0 }", "{ nobody = 1 }", '{ codex = "1" }',
    ],
    A_LIST_OF_AGENTS: [
        '"codex"', '["nobody"]', '["codex", "codex"]', "[1]",
    ],
    "a list of: agent_stopped, blocked, budget, completed, cooldown, crashed, digest, outage, stagnated,"
    " stopped": ['["running"]', '["blocked", "blocked"]', '"blocked"', '["crash"]'],
}  # fmt: skip
"""By the words in which the page says what may be given."""


def _words(allowed: str) -> list[str]:
    """The values of "one of …"."""
    if not allowed.startswith("one of "):
        return []
    return [json.dumps(word) for word in re.findall(r'"([^"]*)"', allowed.partition(" (")[0])]


def rows(text: str | None = None) -> list[Row]:
    """Every key of a loop or of the supervisor; without those of prices and workspaces."""
    found, prefix = [], ""
    for line in (PAGE.read_text(encoding="utf-8") if text is None else text).splitlines():
        if line.startswith("## "):
            first = line.removeprefix("## ").partition(",")[0]
            prefix = "" if first == "Top level" else first.strip("[]") + "."
        cells = [cell.strip().replace("\\|", "|") for cell in _CELL.split(line.strip("| "))]
        if line.startswith("| `") and len(cells) == 6:
            name, meaning, default, allowed, flag, variable = cells
            key = prefix + name.strip("`")
            row = Row(
                key, meaning, default.strip("`"), allowed, flag.strip("`"), variable.strip("`")
            )
            found.append(row)
    return found


ROWS = rows()
