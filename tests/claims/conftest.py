"""Fixtures for tests of what the documents say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.claims.scenes import Theatre, theatre
from tests.program.conftest import ws

__all__ = ["seen", "ws"]


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Theatre]:
    """Scenes by name, each played once for all workers."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "scenes"
    root.mkdir(exist_ok=True)
    with theatre(root) as played:
        yield played
