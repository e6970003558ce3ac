"""Fixtures for tests of what the documents say."""

from tests.program.conftest import ws

__all__ = ["ws"]
