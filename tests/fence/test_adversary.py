"""An agent that tries to get at everything around it: what level "write" refuses, by each of its
means, and what no fence lets through (the control)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from codex_self_iter.core.fence import EXACT, Means
from codex_self_iter.world.process.fence_machine import look
from tests.support.harness import Workspace

ATTACKER = Path(__file__).with_name("attacker.py")
INSIDE = {
    "hook", "git_config", "git_exclude", "hooks_path_of_the_configuration", "hooks_moved_away",
    "repository_moved_away", "gate_file", "gates_moved_away", "gate_by_hard_link", "gate_by_rename",
    "configuration", "by_unmount",
}  # fmt: skip
"""What lies in the workspace: Landlock cannot close it."""
NOT_OURS = {"by_unmount", "by_bind", "kernel_setting", "trace", "device"}
"""Succeed without a fence only for root."""
HARMLESS = {"hook_of_its_own", "escapee"}
"""May be done: what comes of them is looked at."""
NETWORK = {"network", "datagrams"}


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path)
    yield workspace
    workspace.close()


class Scene:
    """A workspace among what an agent could harm, and listeners outside."""

    def __init__(self, ws: Workspace, root: Path) -> None:
        self.ws, self.home, self.other = ws, root / "home", root / "other"
        self.state = ws.state = root / "state"
        for path, text in (
            (self.home / ".ssh/id", "KEY\n"), (self.home / ".netrc", "KEY\n"), (self.home / ".bashrc", "\n"),
            (self.home / ".codex/auth.json", "KEY\n"), (self.home / ".config/x", "\n"),
            (self.other / "file", "\n"), (ws.path / "tests/gate.py", "\n"),
        ):  # fmt: skip
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        ws.git("add", "tests")
        ws.git("commit", "-qm", "gates")
        self.before: dict[str, str] = {}
        self.listeners = [
            socket.socket(socket.AF_UNIX),
            socket.socket(socket.AF_UNIX),
            socket.socket(),
        ]
        name, path = f"csi-fence-{os.getpid()}-{id(self)}", str(root / "s")
        for listener, address in zip(
            self.listeners, ("\0" + name, path, ("127.0.0.1", 0)), strict=True
        ):
            listener.bind(address)
            listener.listen()
        targets = {
            "home": str(self.home), "other": str(self.other), "state": str(self.state), "abstract": name,
            "socket": path, "port": self.listeners[2].getsockname()[1],
        }  # fmt: skip
        self.targets = root / "targets.json"
        self.targets.write_text(json.dumps(targets))

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()

    def seen(self) -> dict[str, str]:
        """Every file that is not to be changed, outside the state directory."""
        places = (
            self.home,
            self.other,
            self.ws.path / "tests",
            *(self.ws.path / ".git" / n for n in ("hooks", "info", "config")),
        )
        files = (path for place in places for path in (place, *place.rglob("*")) if path.is_file())
        skipped = (self.home / "state", self.home / "config")  # the program's own
        return {
            str(path): path.read_text()
            for path in files
            if not any(path.is_relative_to(s) for s in skipped)
        }

    def attacked(self, fence: str, **keys: Any) -> dict[str, str]:
        """What the agent reports of one iteration."""
        tables = f'[verify]\ngate_files = ["tests/**"]\n[fence]\n{fence}\n'
        template = f"{sys.executable} {ATTACKER} {self.targets} {{prompt_file}} {{workspace}}"
        self.ws.config(
            tables,
            agent_command_template=template,
            agent="command",
            state_dir=str(self.state),
            **keys,
        )
        targets = json.loads(self.targets.read_text()) | {
            "walled": "none" not in fence.partition("\n")[0]
        }
        self.targets.write_text(json.dumps(targets))
        self.before = self.seen()
        code = self.ws.run("--max-iterations", "1", environment={"HOME": str(self.home)})
        assert code == 0, self.ws.log()
        report: dict[str, str] = json.loads((self.ws.path / "report.json").read_text())
        pid = int((self.ws.path / "escapee").read_text())
        assert not psutil.pid_exists(pid), "the escapee outlived its run"
        return report


@pytest.fixture
def scene(ws: Workspace, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(ws, tmp_path)
    yield made
    made.close()


def done(report: dict[str, str]) -> set[str]:
    return {name for name, said in report.items() if said == "done"}


@pytest.mark.parametrize("means", list(Means))
def test_what_level_write_refuses(scene: Scene, means: Means) -> None:
    assert look().flaw(means) == "", "every means works on a machine that runs the tests"
    report = scene.attacked(f'level = "write"\nby = "{means}"\nnetwork = "none"')
    allowed = HARMLESS if means in EXACT else HARMLESS | INSIDE | {"path_socket"}
    assert done(report) <= allowed, report
    assert report["hook_of_its_own"] == "done"  # git itself works
    left = scene.seen()
    if means in EXACT:
        assert left == scene.before
    else:  # put back after the run; what changes gate files voids a completion
        gate = str(scene.ws.path / "tests/gate.py")
        assert {k: v for k, v in left.items() if k != gate} == {
            k: v for k, v in scene.before.items() if k != gate
        }
        assert "put back" in scene.ws.log() or "as it was before" in scene.ws.log()


def test_without_a_fence_all_of_it_is_done(scene: Scene) -> None:
    """The control: these are attacks, and it is the fence that refuses them."""
    report = scene.attacked('level = "none"')
    missing = set(report) - done(report)
    assert missing <= (set() if os.geteuid() == 0 else NOT_OURS), report
    assert scene.seen() != scene.before
    assert shutil.which("unshare")
