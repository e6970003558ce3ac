"""The core decides and does nothing else; arrows between packages point one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import codex_self_iter

PACKAGE = Path(codex_self_iter.__file__).parent
PURE = {
    "__future__", "collections", "contextlib", "copy", "dataclasses", "datetime", "enum", "functools", "hashlib", "hmac",
    "html", "itertools", "json", "math", "operator", "re", "shlex", "string", "textwrap", "types", "typing", "unicodedata",
    "codex_self_iter",
}  # fmt: skip
CLOCKS = {"now", "utcnow", "today", "time", "monotonic", "sleep", "getenv"}
BUILTINS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}
LOWER = {"core", "errors"}
ARROWS = {
    "errors": set(),
    "core": {"core"},
    "world": {"world", *LOWER},
    "acp_host": {"acp_host", "world", *LOWER},
    "agents": {"agents", "world", *LOWER},
    "settings": {"settings", *LOWER},
    "views": {"views", "agents", *LOWER},
    "metrics": {"metrics", "views", "world", *LOWER},
    "setup": {"setup", "agents", "settings", "world", *LOWER},
    "supervisor": {"supervisor", "setup", "metrics", "views", "agents", "world", "settings", *LOWER},
    "lanes": {"lanes", "supervisor", "views", "agents", "world", "settings", *LOWER},
    "screens": {"screens", "metrics", "views", "agents", "world", "settings", *LOWER},
    "plan_shell": {"plan_shell", "world", *LOWER},
    "telling": {"telling"},
    "replies": {"replies", "screens", "views", "world", *LOWER},
    "mcp": {"mcp", "world", *LOWER},
    "service": {"service", "world", *LOWER},
    "demo": {"demo", "world", *LOWER},
    "testing": {"testing", "supervisor", "world", *LOWER},
    "cli": {
        "cli", "lanes", "screens", "replies", "supervisor", "metrics", "setup", "views", "agents", "world", "settings", "service",
        "demo", "mcp", *LOWER,
    },
    "__main__": {"cli"},
}  # fmt: skip
"""What each package, and each module beside them, may import of ours. Nothing names `testing`, and
nothing but the program's entry names `cli`."""


def modules(package: str) -> list[Path]:
    alone = PACKAGE / f"{package}.py"
    return [alone] if alone.exists() else sorted((PACKAGE / package).rglob("*.py"))


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
    """Everything in a module that is neither a decision nor a value; arrows are not judged here."""
    tree = ast.parse(source)
    tops = {name: name.split(".")[0] for name in imported(tree)}
    found = [f"imports {name}" for name, top in tops.items() if top not in PURE]
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


@pytest.mark.parametrize(
    "path",
    [path for package in ("core", "views") for path in modules(package)],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_the_core_and_the_views_are_pure(path: Path) -> None:
    assert impurities(path.read_text()) == []


@pytest.mark.parametrize(
    "planted",
    [
        "import os", "import time", "import anyio", "import logging", "import asyncio",
        "import subprocess",
        "import socket", "import random", "import psutil", "from pathlib import Path",
        "import os.path as p", "def f():\n    import threading", "async def f(): pass",
        "x = open('f')", "print('x')",
        "import datetime\nx = datetime.datetime.now()",
        "from datetime import datetime\nx = datetime.utcnow()",
        "def f():\n    global x\n    x = 1",
    ],
)  # fmt: skip
def test_negative_control_a_planted_impurity_is_found(planted: str) -> None:
    assert impurities(planted)


def test_what_is_pure_is_let_through() -> None:
    assert (
        impurities(
            "import hashlib, json, re\nfrom datetime import UTC, datetime\n"
            "x = datetime.fromtimestamp(0, UTC)"
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


def test_every_package_and_module_has_its_arrows() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert found - {"__init__", "__pycache__"} <= ARROWS.keys()


def test_nothing_but_the_entry_names_the_commands_and_nothing_names_the_fakes() -> None:
    assert [name for name, may in ARROWS.items() if "cli" in may] == ["cli", "__main__"]
    assert [name for name, may in ARROWS.items() if "testing" in may] == ["testing"]


def test_whoever_may_import_the_supervisor_stands_above_it() -> None:
    assert {name for name, may in ARROWS.items() if "supervisor" in may} == {
        "supervisor",
        "lanes",
        "testing",
        "cli",
    }


@pytest.mark.parametrize(
    ("package", "planted"),
    [
        ("errors", "from codex_self_iter.core.terms import State"),
        ("core", "from codex_self_iter.world.state import store"),
        ("core", "from codex_self_iter import world"),
        ("core", "from codex_self_iter.errors import StorageError"),
        ("core", "from codex_self_iter.views.report import report"),
        ("world", "from codex_self_iter.supervisor.loop import Loop"),
        ("world", "from codex_self_iter import cli"),
        ("world", "from codex_self_iter.agents import base"),
        ("world", "import codex_self_iter.settings.load"),
        ("agents", "import codex_self_iter.supervisor"),
        ("agents", "from codex_self_iter.settings import Settings"),
        ("agents", "from codex_self_iter.views import transcript"),
        ("settings", "from codex_self_iter.agents.base import Adapter"),
        ("settings", "from codex_self_iter.world import clock"),
        ("settings", "from codex_self_iter import supervisor"),
        ("views", "from codex_self_iter.world import clock"),
        ("views", "from codex_self_iter.settings import Settings"),
        ("views", "from codex_self_iter.supervisor import shared"),
        ("views", "from codex_self_iter.cli.common import x"),
        ("metrics", "from codex_self_iter.screens import sources"),
        ("metrics", "from codex_self_iter.settings import Settings"),
        ("setup", "from codex_self_iter.supervisor import shared"),
        ("lanes", "from codex_self_iter.cli import lanes"),
        ("screens", "from codex_self_iter.supervisor import app"),
        ("screens", "from codex_self_iter.cli import status"),
        ("supervisor", "from codex_self_iter.screens import sources"),
        ("supervisor", "from codex_self_iter.cli.common import x"),
        ("supervisor", "from codex_self_iter.testing import answer"),
        ("acp_host", "from codex_self_iter.agents import acp"),
        ("plan_shell", "from codex_self_iter.supervisor import app"),
        ("plan_shell", "if TYPE_CHECKING:\n    from codex_self_iter.settings import Settings"),
        ("telling", "from codex_self_iter.supervisor import courier"),
        ("replies", "from codex_self_iter.supervisor import ears"),
        ("mcp", "from codex_self_iter.screens import steering"),
        ("service", "from codex_self_iter.cli import common"),
        ("service", "from codex_self_iter.supervisor import app"),
        ("demo", "def f():\n    from codex_self_iter.cli import run"),
        ("testing", "from codex_self_iter.cli import common"),
        ("cli", "from codex_self_iter.testing import answer"),
        ("cli", "from codex_self_iter.plan_shell import step"),
        ("__main__", "from codex_self_iter.supervisor import app"),
    ],
)
def test_negative_control_a_wrong_arrow_is_found(package: str, planted: str) -> None:
    assert wrong_arrows(package, planted)


def test_every_package_has_a_negative_control() -> None:
    control = test_negative_control_a_wrong_arrow_is_found
    (mark,) = control.pytestmark  # type: ignore[attr-defined]
    assert {package for package, _ in mark.args[1]} == ARROWS.keys()
