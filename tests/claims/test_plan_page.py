"""docs/plan.md: what is read as an item, a check and an order, and what a run makes of them. The
rules of `plan check` are tried in tests/cli/test_plan.py."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.claims.documents import ROOT
from tests.support.harness import Workspace
from tests.support.program import PROGRAM

PAGE = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
Plan = dict[str, Any]


def plan(directory: Path, *words: str) -> tuple[int, Plan]:
    """`plan … --json` there: exit code and object."""
    done = subprocess.run(
        [*PROGRAM, "plan", *words, "--json"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def items(directory: Path, text: str) -> list[Plan]:
    (directory / "plan.md").write_text(text, encoding="utf-8")
    found: list[Plan] = plan(directory, "show")[1]["items"]
    return found


def test_the_example_is_read_as_it_is_said(tmp_path: Path) -> None:
    _, _, rest = PAGE.partition("\n## Items\n\n")
    lines = rest.partition("\n\nAn item")[0].splitlines()
    assert [(one["text"], one["checks"]) for one in items(tmp_path, "\n".join(line[4:] for line in lines))] == [
        ("Write the parser", ["pytest -q tests/parser"]),
        ("Say in the README how to call it", ["python -m doctest README.md"]),
    ]  # fmt: skip
    assert plan(tmp_path, "check")[1]["faults"] == 0


def test_every_list_makes_items_but_not_in_code(tmp_path: Path) -> None:
    text = "- [ ] a\n* [x] b\n+ [ ] c\n\n1. [ ] d\n2) [x] e\n   - [ ] f\n```\n- [ ] g\n```\n<!--\n- [ ] h\n-->\n"
    found = items(tmp_path, text)
    assert "".join(one["text"] for one in found) == "abcdef"
    assert [one["ticked"] for one in found] == [False, True, False, False, True, False]
    assert [one["level"] for one in found] == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("text", "checks"),
    [
        ("- [ ] a\n  check: make\n  - check: make test\n", ["make", "make test"]),
        ("- [ ] a; check: make", ["make"]),
        ("- [ ] a, check: make", ["make"]),
        ("- [ ] A. check: make", ["make"]),
        ("- [ ] a — check: make", ["make"]),
        ("- [ ] a - check: make", ["make"]),
        ("- [ ] a (check: make)", ["make"]),
        ("- [ ] a check: `make`", ["make"]),
        ("- [ ] a; check: `make` and then `make test` pass", ["make", "make test"]),
        ("- [ ] a\n  Check: make", []),
        ("- [ ] a\ncheck: make", []),
        ("- [ ] Spell check: make", []),
    ],
)
def test_a_check_is_read_wherever_it_may_stand(
    tmp_path: Path, text: str, checks: list[str]
) -> None:
    assert items(tmp_path, text)[0]["checks"] == checks


def test_items_of_the_top_level_are_counted(tmp_path: Path) -> None:
    def faults(text: str) -> int:
        items(tmp_path, text)
        count: int = plan(tmp_path, "check")[1]["faults"]
        return count

    two = "- [ ] a\n  - [ ] b\n- [ ] c (after: {})\n"
    assert [faults(two.format(number)) for number in ("1", "2", "3", "1, 2")] == [0, 1, 1, 1]
    assert faults("- [ ] a (after: 2)\n- [ ] b\n  - [ ] c (after: 1)\n") == 1  # b waits with c


@pytest.mark.parametrize(
    ("item", "found"),
    [
        ("a" * 201, True), ("a" * 200, False), ("a and b and c", True), ("a and b", False),
        ("One. Two. Three.", True), ("One. Two.", False), ("`a and b and c`", False),
        ("a and b and c\n  - [ ] part", False),
    ],
)  # fmt: skip
def test_what_is_too_large(tmp_path: Path, item: str, found: bool) -> None:
    items(tmp_path, f"- [ ] {item}\n")
    said = [(one["line"], one["rule"]) for one in plan(tmp_path, "check")[1]["findings"]]
    assert ((1, "too-large") in said) is found
    assert ((1, "no-check") in said) is ("part" not in item)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("- [ ] a", [1]),
        ("- [x] a", []),
        ("- [ ] a\n  ```sh\n  make\n  ```", []),
        ("- [ ] a\n  - [ ] b\n  check: make", []),
        ("- [ ] a\n  - [ ] b\n- [ ] c; check: true", [2, 3]),
    ],
)
def test_what_has_no_check(tmp_path: Path, text: str, lines: list[int]) -> None:
    items(tmp_path, text)
    found = plan(tmp_path, "check")[1]["findings"]
    assert [one["line"] for one in found if one["rule"] == "no-check"] == lines


def test_a_run_is_told_of_checks_and_its_ticks_are_known(ws: Workspace) -> None:
    text = "- [ ] one; check: make one\n- [ ] two\n- [ ] three\n"
    ws.plan(text)
    first = text.replace("[ ] one", "[x] one")
    ws.script(
        {"write": {"plan.md": first}, "block": {"next_goal": "two"}},
        {"write": {"plan.md": first.replace("[ ] two", "[x] two")}, "block": {"completed": True}},
    )
    assert ws.run() == 0
    assert "# Checks in the plan" in ws.prompt(1)
    assert "run it before you tick the item" in ws.prompt(1)
    lines = [line["ticked"] for line in ws.journal()]
    assert [len(marks) for marks in lines] == [1, 1]
    after = (ws.path / "plan.md").read_text(encoding="utf-8")
    found = items(ws.path, after.replace("[ ] three", "[x] three"))  # a person's
    assert [one["since_iteration"] for one in found] == [1, 2, None]
    assert ws.status()["plan"]["path"] == str(ws.path / "plan.md")


def test_a_plan_without_checks_is_not_explained(ws: Workspace) -> None:
    """The control: the section is there because of the check."""
    ws.plan("- [ ] Spell check: one\n")
    ws.script({"append": {"a": "b"}, "block": {"completed": True}})
    assert ws.run() == 0
    assert "Checks in the plan" not in ws.prompt(1)
