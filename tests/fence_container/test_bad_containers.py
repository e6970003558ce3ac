"""A container that cannot be had is told at the start, with exit code 2, and by doctor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import Workspace

ENGINE = """\
#!/bin/sh
echo "$*" >>"$0.calls"
case $1 in version) test -e "$0.down" || exit 0 ;; esac
case $1 in version) echo "permission denied while trying to connect to the daemon" >&2; exit 1 ;; esac
echo "Error: no such image" >&2
exit 125
"""


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path)
    (tmp_path / "bin").mkdir()
    yield workspace
    workspace.close()


def engine(ws: Workspace, name: str) -> Path:
    """Something that answers like an engine; nothing is run by it."""
    program = ws.root / "bin" / name
    program.write_text(ENGINE)
    program.chmod(0o755)
    ws.environment["PATH"] = f"{program.parent}:{ws.environment['PATH']}"
    return program


def refused(ws: Workspace, table: str, *, doctor: bool = False) -> str:
    """What the start says, and that `doctor` says the same."""
    ws.config(f'[fence]\nlevel = "container"\n{table}')
    assert ws.run("--max-iterations", "1") == 2, ws.log()
    assert "Traceback" not in ws.log()
    assert ws.started() == 0
    assert not ws.state.exists()
    if doctor:
        done = ws.cli("doctor", "--json")
        ids = "fence.container"
        found = [one for one in json.loads(done.stdout)["findings"] if one["id"] == ids]
        assert done.returncode == 4
        assert found
        assert all(one["status"] == "fail" and one["mend"] for one in found)
        for one in found:
            assert f"{one['what']}; {one['mend']}" in ws.log()
    return ws.log()


def test_no_image_is_named(ws: Workspace) -> None:
    said = refused(ws, "", doctor=True)
    assert 'the fence\'s level "container" for command has no image; build one' in said
    assert "deploy/docker/Dockerfile" in said


def test_the_image_is_not_there_and_is_not_fetched(ws: Workspace) -> None:
    program = engine(ws, "podman")
    said = refused(ws, 'image = "example.invalid/agent:1"\nengine = "podman"\n')
    assert "podman has no image 'example.invalid/agent:1', and it is never fetched unasked" in said
    assert "podman pull example.invalid/agent:1" in said
    calls = program.with_name("podman.calls").read_text()
    assert "pull" not in calls
    assert "run" not in calls.split()


def test_no_engine_is_installed(ws: Workspace) -> None:
    ws.environment["PATH"] = str(_without_engines(ws.root / "programs"))
    said = refused(ws, 'image = "a"\n')
    assert "no program podman or docker on PATH" in said
    assert "install podman" in said


def test_the_daemon_does_not_run(ws: Workspace) -> None:
    engine(ws, "docker").with_name("docker.down").touch()
    said = refused(ws, 'image = "a"\nengine = "docker"\n')
    assert "docker cannot be used: permission denied" in said
    assert "group docker" in said


def test_a_path_that_is_to_be_mounted_is_not_there(ws: Workspace) -> None:
    engine(ws, "podman").write_text("#!/bin/sh\nexit 0\n")
    said = refused(
        ws, 'image = "a"\nallow_write = ["~/no-cache"]\nallow_read = ["../no-docs"]\n', doctor=True
    )
    assert f"[fence] allow_write: {ws.home}/no-cache is not there" in said
    assert f"[fence] allow_read: {ws.root}/no-docs is not there" in said


def test_a_dry_run_says_the_image(ws: Workspace) -> None:
    engine(ws, "podman").write_text("#!/bin/sh\nexit 0\n")
    ws.config('[fence]\nlevel = "container"\nimage = "localhost/a:1"\nengine = "podman"\n')
    assert 'level "container", in localhost/a:1' in ws.cli("run", "--dry-run").stdout


def _without_engines(directory: Path) -> Path:
    """The programs of this machine but for engines."""
    directory.mkdir()
    for place in ("/usr/bin", "/bin"):
        for program in Path(place).iterdir():
            link = directory / program.name
            if program.name not in ("podman", "docker") and not link.is_symlink():
                link.symlink_to(program)
    return directory


def test_one_agent_may_have_an_image_of_its_own(ws: Workspace) -> None:
    engine(ws, "podman")
    table = 'image = "all:1"\nengine = "podman"\n[agents.command.fence]\nimage = "own:1"\n'
    assert "podman has no image 'own:1'" in refused(ws, table)
