"""Fixtures of the fence's tests."""

from tests.agents.conftest import scene  # noqa: F401
