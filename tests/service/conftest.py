"""One service manager for all tests, and a fresh unit for each."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import lab as laboratory


@pytest.fixture(scope="session")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[laboratory.Lab]:
    """One service manager for all tests."""
    directory = tmp_path_factory.mktemp("lab")
    keep = tuple({laboratory.SOURCE, Path(sys.prefix), Path(sys.base_prefix)})
    with laboratory.Lab(directory, keep) as manager:
        yield manager


@pytest.fixture
def service(manager: laboratory.Lab, tmp_path: Path) -> Iterator[laboratory.Service]:
    """A fresh service; stopped and forgotten afterwards."""
    service = laboratory.Service(manager, tmp_path.name)
    yield service
    service.forget()
