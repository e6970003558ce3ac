"""No sentence of the documents without its test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.claims import documents
from tests.claims.documents import Claim, claims, load, named, pages, problem, table_of


@pytest.mark.parametrize("page", pages())
def test_every_sentence_has_its_test(page: str) -> None:
    said, table = claims(page), load(page)
    wrong = {claim.key: problem(page, claim, table.get(claim.key, [])) for claim in said}
    assert {key: why for key, why in wrong.items() if why} == {}, "see `python -m tests.claims`"
    assert [key for key in table if key not in wrong] == [], "no longer said"


def test_no_table_is_left_over() -> None:
    assert set(documents.TABLES.iterdir()) == {table_of(page) for page in pages()}


@pytest.mark.parametrize("page", pages())
def test_what_a_row_names_is_what_its_table_has(page: str) -> None:
    table = load(page)
    rows = [claim for claim in claims(page) if named(claim)]
    assert [row.key for row in rows if named(row) != table.get(row.key)] == []


def test_figures_of_a_run_are_no_claims_and_what_stands_around_them_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "It works.\n\n<!-- results:start -->\n| n | ms |\n|---|---|\n| a | 5 |\n\nMeasured in May.\n"
        "<!-- results:end -->\nIt is quick.\n"
    )
    assert [claim.text for claim in claims(str(page))] == ["It works.", "It is quick."]


def test_a_row_that_names_no_test_or_two_is_found() -> None:
    def row(cell: str) -> Claim:
        return Claim(f"a | b | {cell}", f"| a | b | {cell} |")

    assert named(row("`complete: a row that names no`")) == [
        "claims/test_complete.py::test_a_row_that_names_no_test_or_two_is_found"
    ]
    assert named(row("some words; `complete: x`")) == named(row("words")) == []
    for cell in ("`complete: nothing like it`", "`nofile: x`"):
        wrong = problem("docs/field.md", row(cell), named(row(cell)))
        assert wrong is not None
        assert "does not exist" in wrong
