from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from codex_self_iter.world.state.root import StateRoot


@pytest.fixture
def root(tmp_path: Path) -> Iterator[StateRoot]:
    made = StateRoot(str(tmp_path / "state"))
    yield made
    made.close()
