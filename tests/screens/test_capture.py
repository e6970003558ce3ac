"""The pictures of the README are made from what runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.screens import capture
from tests.screens.test_page_browser import need

pytestmark = pytest.mark.slow


def test_the_pictures_show_every_loop_and_load_nothing(tmp_path: Path) -> None:
    need(capture.CHROMIUM, "apt-get install chromium")
    capture.main(tmp_path)
    board = (tmp_path / "board.svg").read_text()
    assert all(name in board for name in (*capture.LOOPS, "needs", "blocked", "limited"))
    assert "url(" not in board.replace("url(#", "")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
