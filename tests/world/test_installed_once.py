"""What is installed is looked for once: on the way of each message it would be too slow."""

from __future__ import annotations

import importlib.util

import pytest

from codex_self_iter.world import installed


def test_a_module_that_was_found_is_not_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_there", set())
    asked: list[str] = []
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: (asked.append(name), find(name))[1]
    )
    for _ in range(3):
        assert installed.lack("notify", "apprise") == ""
    assert asked == ["apprise"]
    for _ in range(2):
        assert "no_such_module is not installed" in installed.lack("notify", "no_such_module")
    assert asked.count("no_such_module") == 2, "it may be installed meanwhile"
