"""What the documents say, sentence by sentence, and the tables that name a test for each.

A claim is a sentence of a paragraph or list, a row of a table, or a line of code with a comment. A
table (`tables/README.toml` for `README.md`) has one line for each:

    "a1b2 Nothing outlives its iteration: every process that an …" = "program/test_x.py::test_y"

The first four characters depend on the whole sentence: one that is edited has lost its test until
somebody says again which one shows it. What stands for a test may be

* a path below `tests/` and the name of a function, or a list of them;
* `-instruction`, `-definition`, `-pointer`, `-background`: nothing that could fail by itself;
* `-untested: why`; then the sentence or its paragraph says "not tested here" to its readers, too.

`python -m tests.claims` brings the tables into line with the documents; what is left open has "?".

Where the last cell of a row names tests itself (`owed: a refusing hook`: the one in `test_owed.py`
that begins so), the table has those. What stands between `<!-- results:start -->` and its end are
figures of one run of a program that can be run again, and no claims: the program has its tests."""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
TABLES = TESTS / "claims" / "tables"

WORDS = ("-instruction", "-definition", "-pointer", "-background")
UNTESTED = "-untested: "
SAID = "not tested here"

OUTSIDE = frozenset(
    {
        "acp",
        "claims",
        "cli",
        "fence",
        "fence_container",
        "lanes",
        "mcp",
        "plan_shell",
        "program",
        "screens",
        "service",
    }
)
"""Rooms whose tests run the program as a user does: only they count for what users read."""
REAL = "agents/test_real_"
"""So do tests of real CLIs, for what is said of these."""
FOR_DEVELOPERS = frozenset(
    {
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/benchmarks.md",
        "docs/faults.md",
        "docs/simulation.md",
    }
)

_FENCE = re.compile(r"\s*(```|~~~)")
_ITEM = re.compile(r"^\s*([-*+]|\d+\.) +")
_RULE = re.compile(r"\|[-:| ]+\|?")
_CELL = re.compile(r"(?<!\\)\|")
_SENTENCE = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)\s+(?=[A-Z0-9`\"'(*\[…<])")
_COMMENT = re.compile(r"\s{2,}# ?")
_RESULTS = re.compile(r"<!-- results:start -->.*?<!-- results:end -->", re.DOTALL)
_NAMED = re.compile(r"`(\w+): ([^`]+)`")


@dataclass(frozen=True)
class Claim:
    """One sentence, with the paragraph or row that it stands in."""

    text: str
    block: str

    @property
    def key(self) -> str:
        """The name that the tables know it by."""
        mark = hashlib.sha256(self.text.encode()).hexdigest()[:4]
        short = self.text if len(self.text) <= 72 else self.text[:71] + "…"
        return f"{mark} {short}"


def pages() -> list[str]:
    """Every document for people, relative to the root."""
    found = ["README.md", "CONTRIBUTING.md"]
    for directory in ("docs", "examples", "plugin"):
        found += [str(path.relative_to(ROOT)) for path in sorted((ROOT / directory).rglob("*.md"))]
    plans = {"examples/TASK.md", "examples/plan.md", "examples/plan-shell.md"}
    return [page for page in found if page not in plans]


def table_of(page: str) -> Path:
    return TABLES / f"{page.removesuffix('.md').replace('/', '.')}.toml"


def claims(page: str) -> list[Claim]:
    """What a document says, in its order; the same sentence once."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = _RESULTS.sub("", re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S))
    found = (Claim(sentence, block) for block in _blocks(text) for sentence in _sentences(block))
    return list({claim.text: claim for claim in found}.values())


def _sentences(block: str) -> list[str]:
    if block.startswith("|"):
        return [" | ".join(cell.strip() for cell in _CELL.split(block.strip("| ")))]
    return [part for part in _SENTENCE.split(block) if re.search(r"\w", part)]


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs, list items, rows (with their bars), and lines of code that have a comment."""
    fenced, cells, lines = False, False, list[str]()
    for line in [*re.sub(r"<!--.*?-->", "", text, flags=re.S).splitlines(), ""]:
        row, code = line.startswith("|"), line.startswith("    ") and not lines
        if _FENCE.match(line):
            fenced = not fenced
        if lines and (not line.strip() or row or fenced or line[0] == "#" or _ITEM.match(line)):
            yield " ".join(lines)
            lines = []
        if fenced or not line.strip() or line[0] == "#" or _FENCE.match(line):
            cells = False
        elif row:
            # the first row names the columns
            if cells and not _RULE.fullmatch(line.strip()):
                yield line.strip()
            cells = True
        elif code:
            if _COMMENT.search(line):
                yield _COMMENT.sub(" # ", line.strip())
        else:
            lines.append(_ITEM.sub("", line).strip())


def load(page: str) -> dict[str, list[str]]:
    """The table of a document: its keys, and what stands for a test of each."""
    path = table_of(page)
    table = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {key: [value] if isinstance(value, str) else value for key, value in table.items()}


def renew(page: str) -> int:
    """Write a table anew in the document's order; the number of lines that are open ("?")."""
    old, new, count = load(page), list[str](), 0
    gone = [key for key in old if key not in {claim.key for claim in claims(page)}]
    for claim in claims(page):
        tests = named(claim) or old.get(claim.key)
        if tests is None:
            near = difflib.get_close_matches(claim.key[5:], [key[5:] for key in gone], 1, 0.6)
            was = next((old[key] for key in gone if near and key[5:] == near[0]), [])
            tests = ["?", *(test for test in was if test != "?")]
        count += "?" in tests
        value = json.dumps(tests[0]) if len(tests) == 1 else json.dumps(tests)
        new.append(f"{json.dumps(claim.key, ensure_ascii=False)} = {value}\n")
    table_of(page).write_text("".join(new), encoding="utf-8")
    return count


def named(claim: Claim) -> list[str]:
    """The tests that a row names in its last cell, in the form of the tables; else nothing."""
    cell = claim.text.rpartition(" | ")[2] if claim.block.startswith("|") else ""
    if not cell or _NAMED.sub("", cell).strip("; "):
        return []
    return [
        _begins(stem, f"test_{words.replace(' ', '_')}") for stem, words in _NAMED.findall(cell)
    ]


def _begins(stem: str, begins: str) -> str:
    """The test whose name begins so, one from outside before others; or what was looked for."""
    found = [
        f"{path.relative_to(TESTS)}::{name}"
        for path in _files()[stem]
        for name in sorted(functions(path))
        if name.startswith(begins)
    ]
    outside = [test for test in found if test.partition("/")[0] in OUTSIDE]
    chosen = outside or found
    return chosen[0] if len(chosen) == 1 else f"test_{stem}.py::{begins}"


@functools.cache
def _files() -> dict[str, list[Path]]:
    found = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        found[path.stem.removeprefix("test_")].append(path)
    return found


@functools.cache
def functions(path: Path) -> frozenset[str]:
    """Names of the test functions in a file, those of its classes with the class's name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}::{part.name}"
                for part in node.body
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
            }
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
    return frozenset(found)


def problem(page: str, claim: Claim, tests: list[str]) -> str | None:
    """Why a line of a table does not do, or None."""
    if not tests or "?" in tests:
        return "no test is named"
    rooms = set()
    for test in tests:
        if test in WORDS:
            return None if len(tests) == 1 else f"{test} and tests"
        if test.startswith(UNTESTED):
            if len(tests) > 1:
                return "untested and tests"
            return None if SAID in claim.block.lower() else f'its readers are not told "{SAID}"'
        file, _, name = test.partition("::")
        if not (TESTS / file).is_file():
            return f"{file} does not exist"
        if name.partition("[")[0] not in functions(TESTS / file):
            return f"{file} has no {name}"
        rooms.add("program" if file.startswith(REAL) else file.partition("/")[0])
    if page not in FOR_DEVELOPERS and not rooms & OUTSIDE:
        return f"no test from outside ({', '.join(sorted(OUTSIDE))})"
    return None
