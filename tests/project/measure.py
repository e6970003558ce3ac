"""Measure the source: the table that CONTRIBUTING.md shows.

    python -m tests.project.measure

Beside each figure stands the one of 82ce659, before the house was put in order. Lines are lines of
files; code lines have something in them that is neither comment nor docstring; a function's length
is without its docstring; a public name is a module, class, function or method without a leading
underscore."""

from __future__ import annotations

import ast
import dataclasses
import io
import statistics
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "codex_self_iter"
BEFORE = {
    "modules": "160",
    "lines": "26,413",
    "code lines": "19,152",
    "module, median / largest": "136 / 690",
    "function, median / p90 / longest": "7 / 17 / 78",
    "arguments, p90": "3",
    "`try` per 1,000 lines": "12.3",
    "`try` per 1,000 lines of `core/`": "1.9",
    "tests to code, in lines": "0.88",
    "public names with a docstring": "98 %",
    "module names used twice": "clock, environment, files, machine, model, policy, recovery, "
    "registry, report, tree, work",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = Function | ast.ClassDef | ast.Module
NOTHING = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENCODING, tokenize.ENDMARKER,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Module:
    """One file and its syntax."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """All of them."""
        return len(self.text.splitlines())


def read(directory: Path) -> list[Module]:
    """Every module below a directory."""
    found = []
    for path in sorted(directory.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.append(Module(path, text, ast.parse(text)))
    return found


def docstring(node: ast.AST) -> ast.Expr | None:
    """The statement that is the node's docstring."""
    if isinstance(node, Documented) and node.body and isinstance(node.body[0], ast.Expr):
        value = node.body[0].value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return node.body[0]
    return None


def span(node: ast.stmt) -> int:
    """Lines of a statement."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def code_lines(module: Module) -> int:
    """Lines that hold more than comments and docstrings."""
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type not in NOTHING:
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(module.tree):
        if text := docstring(node):
            held.difference_update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    lines = module.text.splitlines()
    return sum(bool(lines[number - 1].strip()) for number in held)


def functions(module: Module) -> Iterator[Function]:
    """All of them, at whatever depth."""
    return (node for node in ast.walk(module.tree) if isinstance(node, Function))


def length(function: Function) -> int:
    """Lines from `def` to the end, without the docstring."""
    text = docstring(function)
    return span(function) - (span(text) if text else 0)


def arguments(function: Function) -> int:
    """Arguments that a caller gives."""
    spec = function.args
    names = [one.arg for one in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def tries(modules: list[Module]) -> float:
    """`try` statements in a thousand lines."""
    count = sum(isinstance(node, ast.Try) for m in modules for node in ast.walk(m.tree))
    return 1000 * count / max(1, sum(module.lines for module in modules))


def public(node: Documented) -> Iterator[Documented]:
    """The public names of a module or class, itself included."""
    yield node
    for child in node.body:
        if isinstance(child, Function) and not child.name.startswith("_"):
            yield child
        elif isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public(child)


def part(numbers: list[int], share: float) -> int:
    """The number below which this share of them lies."""
    return sorted(numbers)[min(len(numbers) - 1, int(share * len(numbers)))]


def twice(package: Path, modules: list[Module]) -> list[str]:
    """Names of modules that stand in more than one folder. Commands do not count: `cli/status.py`
    is the command `status`, whatever else is about the status. Nor do the fakes of `testing/`: they
    bear the name of what they stand for, as `clock`."""
    names = Counter(
        module.path.stem
        for module in modules
        if not {package / "cli", package / "testing"}.intersection(module.path.parents)
        and not module.path.stem.startswith("__")
    )
    return sorted(name for name, count in names.items() if count > 1)


def measures(package: Path, tests: Path) -> dict[str, str]:
    """Every figure by the name that it has in the table."""
    source = read(package)
    sizes = [module.lines for module in source]
    every = [function for module in source for function in functions(module)]
    lengths = [length(function) for function in every]
    core = [module for module in source if package / "core" in module.path.parents]
    named = [node for module in source for node in public(module.tree)]
    documented = sum(docstring(node) is not None for node in named)
    p50, p90 = part(lengths, 0.5), part(lengths, 0.9)
    tested = sum(module.lines for module in read(tests))
    return {
        "modules": str(len(source)),
        "lines": f"{sum(sizes):,}",
        "code lines": f"{sum(map(code_lines, source)):,}",
        "module, median / largest": f"{statistics.median(sizes):.0f} / {max(sizes)}",
        "function, median / p90 / longest": f"{p50} / {p90} / {max(lengths)}",
        "arguments, p90": str(part([arguments(function) for function in every], 0.9)),
        "`try` per 1,000 lines": f"{tries(source):.1f}",
        "`try` per 1,000 lines of `core/`": f"{tries(core):.1f}",
        "tests to code, in lines": f"{tested / sum(sizes):.2f}",
        "public names with a docstring": f"{100 * documented / len(named):.0f} %",
        "module names used twice": ", ".join(twice(package, source)) or "none",
    }


def table(now: dict[str, str]) -> str:
    """Markdown: each figure beside the review's."""
    rows = [f"| {what} | {BEFORE[what]} | {now[what]} |" for what in BEFORE]
    return "\n".join(["| measure | before | now |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(table(measures(PACKAGE, ROOT / "tests")))
