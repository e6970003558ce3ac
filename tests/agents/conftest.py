"""Fixtures of the adapters' tests."""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
for path in (HERE, os.path.dirname(HERE)):
    if path not in sys.path:
        sys.path.insert(0, path)

from tests.support.agent_runs import Scene, need_real  # noqa: E402


@pytest.fixture
def scene():
    """A scratch home, a git workspace and a place for runs. Its path is short: the CLIs' sandboxes
    make UNIX sockets below it, whose paths may have some hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="csi-", ignore_cleanup_errors=True) as base:
        scene = Scene(pathlib.Path(base))
        yield scene
        scene.check_nothing_left()


@pytest.fixture(params=["codex", "claude", "gemini", "opencode"])
def any_cli(request):
    """The name of each CLI that has an adapter."""
    return request.param


@pytest.fixture
def older():
    """Whether a real CLI is the oldest measured one; `both_versions` runs a test with either."""
    return False


def _real(name):
    @pytest.fixture
    def fixture(scene, older):
        return need_real(name, older=older)

    return fixture


real_codex = _real("codex")
real_claude = _real("claude")
real_gemini = _real("gemini")
real_opencode = _real("opencode")
real_qwen = _real("qwen")
real_copilot = _real("copilot")
real_aider = _real("aider")
