"""Fixtures for tests of the real program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import Workspace


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace with a space in its name; nothing of it outlives the test."""
    workspace = Workspace(tmp_path)
    workspace.config()
    workspace.script({"append": {"work.txt": "x\n"}, "block": {"completed": True}})
    yield workspace
    workspace.close()
