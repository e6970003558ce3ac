from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.git_repo import Repo, isolate


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    isolate(monkeypatch)
    return Repo(tmp_path / "work tree")
