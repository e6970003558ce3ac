"""Workspaces with lanes that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.lanes import LaneWorkspace

Make = Callable[..., LaneWorkspace]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with ExitStack() as stack:

        def one(items: object, **config: object) -> LaneWorkspace:
            ws = LaneWorkspace(tmp_path, items, **config)  # type: ignore[arg-type]
            stack.callback(ws.close)
            return ws

        yield one
