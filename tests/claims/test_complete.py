"""No sentence of the documents without its test."""

from __future__ import annotations

import pytest

from tests.claims import documents
from tests.claims.documents import claims, load, pages, problem, table_of

NOT_YET = frozenset(pages()) - {"README.md", "docs/commands.md", "docs/configuration.md", "docs/contract.md", "docs/doctor.md"}


@pytest.mark.parametrize("page", [page for page in pages() if page not in NOT_YET])
def test_every_sentence_has_its_test(page: str) -> None:
    said, table = claims(page), load(page)
    wrong = {claim.key: problem(page, claim, table.get(claim.key, [])) for claim in said}
    assert {key: why for key, why in wrong.items() if why} == {}, "see `python -m tests.claims`"
    assert [key for key in table if key not in wrong] == [], "no longer said"


def test_no_table_is_left_over() -> None:
    assert set(documents.TABLES.iterdir()) == {table_of(page) for page in pages()}
