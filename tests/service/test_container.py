"""deploy/docker for real: the image is built, and a loop runs in it as process 1."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from codex_self_iter.errors import ExitCode
from tests.support import container
from tests.support.container import BASE, Podman
from tests.support.harness import wait_until

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "localhost/codex-self-iter:test"
OWNER = 1000
"""The default UID and GID of the image."""
NARROW = ("--cap-drop=all", "--security-opt=no-new-privileges", "--pids-limit=4096")
"""As the compose file."""
ESCAPEE = ("sleep", "54327")
PLAN = f"""\
- [ ] leave something behind, and wait

```sh
setsid {" ".join(ESCAPEE)} > escaped.log 2>&1 &
touch waiting; until [ -e go ]; do sleep 0.1; done; touch one
```

- [ ] go on

```sh
touch two
```
"""
needs_podman = pytest.mark.skipif(
    container.missing() == "needs root on Linux", reason="containers: needs root on Linux"
)
pytestmark = [pytest.mark.slow, pytest.mark.root, needs_podman]


@pytest.fixture
def podman() -> Iterator[Podman]:
    if lacking := container.missing():
        if os.environ.get("CODEX_SELF_ITER_REQUIRE_REAL_AGENTS") == "1":
            pytest.fail(f"containers: {lacking}")
        pytest.skip(f"containers: {lacking}")
    directory = Path(tempfile.mkdtemp(prefix="csi-"))  # podman wants short paths
    with Podman(directory) as running:
        yield running
    assert not directory.exists()
    assert not [
        line for line in Path("/proc/mounts").read_text().splitlines() if str(directory) in line
    ]


@pytest.fixture
def workspace(podman: Podman) -> Path:
    """A repository of somebody else's, with a plan for the agent that needs no key."""
    path = podman.directory / "work space"
    path.mkdir()
    (path / "plan.md").write_text(PLAN)
    (path / "codex-self-iter.toml").write_text('agent = "plan-shell"\n')
    person = ("-c", "user.name=A", "-c", "user.email=a@example.invalid")
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), (*person, "commit", "-qm", "start")):
        subprocess.run(["git", "-C", path, *words], check=True)
    podman.directory.chmod(0o711)
    for each in (path, *path.rglob("*")):
        os.chown(each, OWNER, OWNER)
    return path


def status(workspace: Path) -> dict[str, Any]:
    file = workspace / ".codex-self-iter" / "status.json"
    return json.loads(file.read_text()) if file.exists() else {}


def escaped() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == [*ESCAPEE]]


@pytest.mark.timeout(900)  # making the base from Debian's archive takes a minute or two alone
def test_the_image_is_built_and_a_loop_runs_in_it_as_process_1(
    podman: Podman, workspace: Path
) -> None:
    podman.import_base()
    file = ROOT / "deploy" / "docker" / "Dockerfile"
    podman("build", "--format=docker", f"--from={BASE}", "-f", file, "-t", IMAGE, ROOT)

    version = podman("run", "--rm", IMAGE, "--version")
    assert re.fullmatch(r"codex-self-iter \d+\.\d+\.\d+\n", version)
    demo = podman("run", "--rm", *NARROW, IMAGE, "demo")
    assert "completed: Every item of the plan is ticked (5 of 5)." in demo

    podman("run", "-d", "--name=loop", *NARROW, f"--volume={workspace}:/workspace", IMAGE)
    wait_until((workspace / "waiting").exists, lambda: podman("logs", "loop"))
    wait_until(lambda: status(workspace).get("state") == "running", "the state")
    assert podman("exec", "loop", "cat", "/proc/1/comm") == "codex-self-iter\n"
    assert podman("exec", "loop", "id", "-u").strip() == str(OWNER)
    podman("healthcheck", "run", "loop")  # fails unless it is healthy
    assert len(escaped()) == 1
    podman("run", "--rm", f"--volume={workspace}:/workspace", IMAGE, code=ExitCode.BUSY)

    podman("stop", "--time=45", "loop")
    ended = "{{.State.Status}} {{.State.ExitCode}}"
    assert podman("inspect", "--format", ended, "loop") == "exited 0\n"
    assert status(workspace)["state"] == "stopped"
    assert not escaped()
    assert not (workspace / "one").exists()

    (workspace / "go").touch()
    podman("start", "loop")
    assert podman("wait", "loop") == "0\n"
    assert status(workspace)["state"] == "completed"
    assert (workspace / "two").exists()
    assert "[ ]" not in (workspace / "plan.md").read_text()
    assert not escaped()
    journal = (workspace / ".codex-self-iter" / "logs" / "iterations.jsonl").read_text()
    verdicts = [json.loads(line)["verdict"] for line in journal.splitlines()]
    assert verdicts == ["aborted", "continue", "completed"]
    made = (".codex-self-iter", "one", "two")
    assert {(workspace / name).stat().st_uid for name in made} == {OWNER}


def test_the_image_is_given_what_is_installed_and_no_more(podman: Podman, tmp_path: Path) -> None:
    """State of loops, keys, environments and history stay outside; also without a `.git`."""
    context = tmp_path / "context"
    wanted = {
        "LICENSE",
        "README.md",
        "constraints.txt",
        "pyproject.toml",
        "share/man/a.1",
        "src/package/a.py",
    }
    private = {".codex-self-iter/runtime.json", ".env", ".git/config", ".venv/bin/python",
               "deploy/docker/service.env", "src/package/__pycache__/a.pyc"}  # fmt: skip
    for name in wanted | private:
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text("")
    shutil.copy(ROOT / ".dockerignore", context)
    definition = tmp_path / "Dockerfile"
    definition.write_text("FROM scratch\nCOPY . /\n")

    def given() -> set[str]:
        image = podman("build", "-q", "-f", definition, context).strip()
        archive = podman.directory / f"{image}.tar"
        podman("image", "save", "--format=docker-dir", "-o", archive, image)
        (layer,) = (each for each in archive.iterdir() if _is_tar(each))
        listed = subprocess.run(["tar", "-tf", layer], check=True, capture_output=True, text=True)
        return {line for line in listed.stdout.splitlines() if not line.endswith("/")}

    assert given() == wanted
    (context / ".dockerignore").unlink()
    assert given() == wanted | private  # negative control


def _is_tar(path: Path) -> bool:
    return subprocess.run(["tar", "-tf", path], capture_output=True, check=False).returncode == 0
