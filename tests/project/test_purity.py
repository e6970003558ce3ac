"""The core decides and does nothing else; arrows between packages point one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import codex_self_iter

PACKAGE = Path(codex_self_iter.__file__).parent
PURE = {
    "__future__", "collections", "copy", "dataclasses", "datetime", "enum", "functools", "hashlib", "itertools", "json",
    "math", "operator", "re", "shlex", "string", "textwrap", "types", "typing", "unicodedata",
}  # fmt: skip
CLOCKS = {"now", "utcnow", "today", "time", "monotonic", "sleep", "getenv"}
BUILTINS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}
ARROWS = {
    "core": {"core"},
    "world": {"world", "core", "errors"},
    "agents": {"agents", "core", "errors", "world"},
    "settings": {"settings", "core", "errors"},
    "views": {"views", "core", "agents"},
    "supervisor": {"supervisor", "views", "agents", "world", "core", "settings", "errors"},
}
"""What each package may import of ours."""


def modules(package: str) -> list[Path]:
    return sorted((PACKAGE / package).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, at whatever depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the arrow"
            base = node.module or ""
            yield base
            if base == "codex_self_iter":
                yield from (f"{base}.{alias.name}" for alias in node.names)


def impurities(source: str) -> list[str]:
    """Everything in a module of the core that is not a decision."""
    tree = ast.parse(source)
    found = []
    for name in imported(tree):
        top = name.split(".")[0]
        if top == "codex_self_iter":
            if name != "codex_self_iter" and not name.startswith("codex_self_iter.core"):
                found.append(f"imports {name}")
        elif top not in PURE:
            found.append(f"imports {name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            found.append(f"line {node.lineno}: awaits")
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in BUILTINS
        ):
            found.append(f"line {node.lineno}: calls {node.func.id}()")
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in CLOCKS
        ):
            found.append(f"line {node.lineno}: calls .{node.func.attr}()")
        elif isinstance(node, ast.Global | ast.Nonlocal):
            found.append(f"line {node.lineno}: keeps state in a module or a closure")
    return found


@pytest.mark.parametrize("path", modules("core"), ids=lambda path: path.stem)
def test_the_core_is_pure(path: Path) -> None:
    assert impurities(path.read_text()) == []


@pytest.mark.parametrize(
    "planted",
    [
        "import os", "import time", "import anyio", "import logging", "import asyncio", "import subprocess",
        "import socket", "import random", "import psutil", "from pathlib import Path", "import os.path as p",
        "def f():\n    import threading", "from codex_self_iter.world import store",
        "from codex_self_iter import world",
        "from codex_self_iter.errors import StorageError", "async def f(): pass", "x = open('f')", "print('x')",
        "import datetime\nx = datetime.datetime.now()", "from datetime import datetime\nx = datetime.utcnow()",
        "def f():\n    global x\n    x = 1",
    ],
)  # fmt: skip
def test_negative_control_a_planted_impurity_is_found(planted: str) -> None:
    assert impurities(planted)


def test_what_is_pure_is_let_through() -> None:
    assert (
        impurities(
            "import hashlib, json, re\nfrom datetime import UTC, datetime\nx = datetime.fromtimestamp(0, UTC)"
        )
        == []
    )


def wrong_arrows(package: str, source: str) -> list[str]:
    names = (name.split(".") for name in imported(ast.parse(source)))
    ours = {name[1] for name in names if name[0] == "codex_self_iter" and len(name) > 1}
    return sorted(ours - ARROWS[package] - {"__version__"})


@pytest.mark.parametrize(
    ("package", "path"),
    [(package, path) for package in ARROWS for path in modules(package)],
    ids=lambda value: value if isinstance(value, str) else value.stem,
)
def test_arrows_point_one_way(package: str, path: Path) -> None:
    assert wrong_arrows(package, path.read_text()) == []


@pytest.mark.parametrize(
    ("package", "planted"),
    [
        ("world", "from codex_self_iter.supervisor.loop import Loop"),
        ("world", "from codex_self_iter import cli"),
        ("agents", "import codex_self_iter.supervisor"),
        ("supervisor", "from codex_self_iter.cli.common import x"),
        ("core", "from codex_self_iter.world import files"),
    ],
)
def test_negative_control_a_wrong_arrow_is_found(package: str, planted: str) -> None:
    assert wrong_arrows(package, planted)
