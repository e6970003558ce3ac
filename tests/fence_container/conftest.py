"""podman in namespaces of its own, with a small image, for all tests here; a loop inside them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import container, tiny_image
from tests.support.container import Podman
from tests.support.harness import Workspace


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    if lacking := container.missing():
        if os.environ.get("CODEX_SELF_ITER_REQUIRE_REAL_AGENTS") == "1" and os.geteuid() == 0:
            pytest.fail(f"containers: {lacking}")
        pytest.skip(f"containers: {lacking}")
    directory = Path(tempfile.mkdtemp(prefix="csi-"))  # podman wants short paths
    with Podman(directory) as running:
        tiny_image.load(running)
        running.wrapper()
        yield running
        assert running("ps", "--all", "--quiet").strip() == ""
    assert not directory.exists()


class Place(Workspace):
    """A workspace whose supervisors, and the agents of which, are in podman's namespaces."""

    def __init__(self, podman: Podman, root: Path) -> None:
        self.podman = podman
        super().__init__(root)
        self.environment |= podman.environment

    def start(self, *flags: str, **options: Any) -> Any:
        return super().start(*flags, prefix=self.podman.entrance, **options)

    def agent(self, script: str, *, fence: str = "", tables: str = "", **keys: Any) -> None:
        """A shell script in the workspace is the agent; `{state}` is the state directory."""
        path = self.path / "agent.sh"
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
        level = fence or 'level = "container"'
        image = f'image = "{tiny_image.IMAGE}"\nengine = "podman"\n'
        self.config(
            f"{tables}\n[fence]\n{level}\n{image}",
            agent_command_template=f"{json.dumps(str(path))} {{prompt_file}}",
            **keys,
        )

    def supervisor(self) -> psutil.Process:
        """The one that was started last, not what stands before it in another namespace."""
        return psutil.Process(self.supervisors[-1].pid).children()[0]


@pytest.fixture
def place(podman: Podman) -> Iterator[Place]:
    root = Path(tempfile.mkdtemp(prefix="csi-"))
    made = Place(podman, root)
    try:
        yield made
        made.close()
        assert podman("ps", "--all", "--quiet").strip() == "", "a container is left"
    finally:
        shutil.rmtree(root)
    mounts = Path("/proc/mounts").read_text().splitlines()
    assert [line for line in mounts if str(root) in line] == []
