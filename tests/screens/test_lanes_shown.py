"""Board, page and digest show the lanes of a loop, and what one of them needs."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from codex_self_iter.screens.board import sheets
from codex_self_iter.screens.board.bindings import TABS
from codex_self_iter.screens.digests import digest
from codex_self_iter.screens.page.site import digest_page, export
from codex_self_iter.screens.sources import Shown, show
from codex_self_iter.views import digest as view
from tests.support.shown_loops import cases, on_disk


def shown(held: ExitStack, tmp_path: Path, case: str) -> Shown:
    loop = held.enter_context(on_disk(tmp_path, "app", cases(time.time())[case]))
    return show("app", loop)


def test_the_board_has_a_table_of_them_above_the_plan(held: ExitStack, tmp_path: Path) -> None:
    one = shown(held, tmp_path, "lane")
    lines = sheets.sheet(TABS.index("plan"), one, None, [], time.time())
    assert ("  5  needs you  Write part 5: its loop has stagnated", "red") in lines
    assert any(
        text.startswith("lanes: 1 at work, 1 landing, 2 landed, 7 left") for text, _ in lines
    )
    assert "lane 5 needs you: its loop has stagnated" in one.row.doing


@pytest.mark.parametrize("case", ["running", "lane"])
def test_the_page_has_a_table_of_them(held: ExitStack, tmp_path: Path, case: str) -> None:
    text = export(shown(held, tmp_path, case))
    assert ('aria-label="lanes"' in text) is (case == "lane")
    assert ('<td class="red">needs you</td>' in text) is (case == "lane")
    assert ("codex-self-iter lanes show 5 --workspace" in text) is (case == "lane")


def test_the_digest_says_how_they_stand(held: ExitStack, tmp_path: Path) -> None:
    shown(held, tmp_path, "lane")
    loops = digest(time.time() - 3600)
    line = "1 at work, 1 landing, 2 landed, 7 left; lane 5 needs you: its loop has stagnated"
    assert f"  lanes    {line}" in view.text(loops, "an hour ago")
    assert view.to_json(loops, "", "")["loops"][0]["lanes"] == line
    assert f"<dt>lanes</dt><dd>{line}</dd>" in digest_page(loops, time.time() - 3600)
