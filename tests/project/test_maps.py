"""The maps name what is there: rooms, words and files exist, and no package is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import codex_self_iter
from tests.project.test_purity import ARROWS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "codex_self_iter"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
SOURCE = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
TOPS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())


def rooms(text: str) -> list[str]:
    """Every path of the source, the tests or the benchmarks that a document names."""
    tops = "|".join([*TOPS, *ARROWS, "tests", "benchmarks", "scripts"])
    return re.findall(rf"`((?:{tops})(?:/[a-z_/]*(?:\.py)?|\.py))`", text)


def exists(room: str) -> bool:
    return (PACKAGE / room).exists() or (ROOT / room).exists()


def words(text: str) -> dict[str, list[str]]:
    """Each word of the glossary, and the code names in its last column."""
    table = text.partition("## Words")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([a-z][^|]*) \|[^|]*\| ([^|]*) \|$", table, re.M)
    return {word: re.findall(r"`([^`]+)`", names) for word, names in rows if word != "word"}


def stands_for_something(name: str) -> bool:
    """A class, a function, a field or an event of the source, or one of its files."""
    if "/" in name:
        return exists(name)
    if "." in name:
        return f'"{name}"' in SOURCE
    return (
        re.search(rf"^ *(?:class|def|async def) {name}\b|^    {name}: ", SOURCE, re.M) is not None
    )


def named(docstring: str) -> list[str]:
    """What the map at the top of the package lists, one a line."""
    return re.findall(r"^    ([a-z_]+(?:/|\.py)) ", docstring, re.M)


@pytest.mark.parametrize(("text", "least"), [(ARCHITECTURE, 40), (CONTRIBUTING, 15)])
def test_every_room_on_the_map_exists(text: str, least: int) -> None:
    found = rooms(text)
    assert len(found) > least
    assert [room for room in found if not exists(room)] == []


def test_the_rooms_of_the_readers_guide_are_all_packages() -> None:
    assert {f"{name}/" for name in TOPS} <= set(rooms(CONTRIBUTING))


def test_every_code_name_of_the_glossary_exists() -> None:
    glossary = words(CONTRIBUTING)
    assert len(glossary) > 15
    assert all(glossary.values())
    names = {name for of_word in glossary.values() for name in of_word}
    assert {name for name in names if not stands_for_something(name)} == set()


def test_the_packages_own_map_names_every_package_and_only_what_is_there() -> None:
    assert codex_self_iter.__doc__
    found = named(codex_self_iter.__doc__)
    assert {f"{name}/" for name in TOPS} <= set(found)
    assert [name for name in found if not (PACKAGE / name).exists()] == []


def test_negative_control_what_is_not_there_is_noticed() -> None:
    assert [room for room in rooms("`core/nowhere.py` `core/plan.py`") if not exists(room)] == [
        "core/nowhere.py"
    ]
    table = "## Words\n| word | meaning | in the code |\n|---|---|---|\n| cat | purrs | `Cat` |\n"
    assert words(table)["cat"] == ["Cat"]
    assert not stands_for_something("Cat")
    assert not stands_for_something("cat.purred")
    assert stands_for_something("Loop")
    assert named("    settings.py  a border\n    core/  decides\n") == ["settings.py", "core/"]
    assert not (PACKAGE / "settings.py").exists()
