"""Bring the tables into line with the documents, and say what is open: `python -m tests.claims`."""

from __future__ import annotations

from tests.claims.documents import claims, load, pages, problem, renew

for page in pages():
    count = renew(page)
    table = load(page)
    wrong = [
        (claim, why) for claim in claims(page) if (why := problem(page, claim, table[claim.key]))
    ]
    print(f"{page}: {len(table)} claims, {count} open")
    for claim, why in wrong:
        if why != "no test is named":
            print(f"  {claim.key}: {why}")
