"""Loops for the screens, in a home of the test's own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.shown_loops import cases, on_disk
from tests.support.web import Page, served


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ExitStack]:
    """A scratch home; what is entered here is let go at the end."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """For programs: the same home."""
    return {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path)}


@pytest.fixture
def state(held: ExitStack, tmp_path: Path) -> Path:
    """The state directory of a loop that runs."""
    case = cases(time.time())["running"]
    return Path(held.enter_context(on_disk(tmp_path, "app", case)).state_dir)


@pytest.fixture
def page(environment: dict[str, str], tmp_path: Path, state: Path) -> Iterator[Page]:
    """A page that shows it, and this test is in."""
    with served(environment, tmp_path) as one:
        one.enter()
        yield one
