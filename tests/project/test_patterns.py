"""Regular expressions mean the same to every Python that we run on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "codex_self_iter"
POSSESSIVE_GROUP = re.compile(r"\)(?:[*+?]|\{+[\d,]*\}+)\+")
"""Before 3.11.5 (Debian 12 has 3.11.2) such a group may not end where it should, when a part of it
was tried in vain; an atomic group, `(?>(?:…)*)`, does."""


def test_no_group_is_possessive() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}: {match[0]}"
        for path in PACKAGE.rglob("*.py")
        for match in POSSESSIVE_GROUP.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("pattern", "is_one"),
    [("(?:a|b)*+", True), ("(a){2,5}+", True), ("(a){{0,9}}+", True), ("[ab]*+(?>(?:a)*)", False)],
)
def test_negative_control_the_search_knows_one(pattern: str, is_one: bool) -> None:
    assert bool(POSSESSIVE_GROUP.search(pattern)) is is_one
