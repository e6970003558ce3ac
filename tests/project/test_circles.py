"""No module of the source imports itself by way of others, not even for types alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import codex_self_iter

PACKAGE = Path(codex_self_iter.__file__).parent


def sources() -> dict[str, str]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path.read_text()
    return found


def imports(source: str) -> Iterator[str]:
    """What a module names in imports at whatever depth: also in functions and `TYPE_CHECKING`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "relative imports hide the arrow"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """The modules that each imports; a name that is no module is looked up in the one above."""
    return {
        name: {
            target if target in modules else target.rpartition(".")[0] for target in imports(source)
        }
        & modules.keys()
        for name, source in modules.items()
    }


def circles(modules: Mapping[str, str]) -> list[list[str]]:
    """The groups of modules that reach each other, and those that import themselves."""
    arrows = graph(modules)
    reached: dict[str, set[str]] = {}
    for name in arrows:
        seen: set[str] = set()
        ahead = [*arrows[name]]
        while ahead:
            if (one := ahead.pop()) not in seen:
                seen.add(one)
                ahead += arrows[one]
        reached[name] = seen
    groups = {
        frozenset(two for two in reached[one] if one in reached[two])
        for one in arrows
        if one in reached[one]
    }
    return sorted(sorted(group) for group in groups)


def test_nothing_goes_in_a_circle() -> None:
    assert circles(sources()) == []


def test_the_graph_is_the_projects() -> None:
    arrows = graph(sources())
    assert len(arrows) > 150
    assert "codex_self_iter.core.machine" in arrows["codex_self_iter.supervisor.rounds"]
    assert sum(map(len, arrows.values())) > 500


@pytest.mark.parametrize(
    "back",
    [
        "import p.a.one",
        "from p.a import one",
        "from p.a.one import Thing",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a.one import Thing",
        "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from p.a import one",
        "def late():\n    from p.a.one import Thing",
    ],
)
def test_negative_control_a_planted_circle_is_found(back: str) -> None:
    planted = {"p": "", "p.a": "", "p.a.one": "from p.b import two", "p.b.two": "import p.c"}
    planted |= {"p.b": "", "p.c": "import os"}
    assert circles(planted) == []
    assert circles(planted | {"p.c": back}) == [["p.a.one", "p.b.two", "p.c"]]


def test_negative_control_a_module_that_imports_itself_is_a_circle() -> None:
    assert circles({"p.one": "from p.one import Thing"}) == [["p.one"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", [f"codex_self_iter.{n}" for n in ("core.machine", "world.pool", "settings.model")]
)
def test_negative_control_one_arrow_more_closes_a_circle(part: str) -> None:
    modules = sources()
    target = next(name for name, names in graph(modules).items() if part in names)
    before = circles(modules)
    modules[part] += f"\nif TYPE_CHECKING:\n    import {target}\n"
    assert circles(modules) != before
