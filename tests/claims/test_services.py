"""`service install` and the files under deploy/, tried from outside."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.harness import Workspace
from tests.support.program import PROGRAM

ROOT = Path(__file__).resolve().parents[2]
CAN_UNSHARE = os.geteuid() == 0 and shutil.which("unshare") is not None
SAYS = '#!/bin/sh\necho "$0 $@" >> "{}"\nexit 0\n'


def service(
    ws: Workspace, *words: str, prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, *PROGRAM, "service", *words, "--manager", "systemd", "--name", "shop"],
        cwd=ws.path, env=ws.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def unit(ws: Workspace) -> Path:
    return ws.home / "config" / "systemd" / "user" / "codex-self-iter-shop.service"


def test_install_starts_nothing_and_needs_no_network(ws: Workspace) -> None:
    asked = ws.root / "asked"
    (ws.root / "bin").mkdir()
    for name in ("systemctl", "launchctl", "loginctl"):
        (ws.root / "bin" / name).write_text(SAYS.format(asked))
        (ws.root / "bin" / name).chmod(0o755)
    ws.environment["PATH"] = f"{ws.root / 'bin'}:{ws.environment['PATH']}"
    offline = ("unshare", "-n") if CAN_UNSHARE else ()
    for words in (("install", "--dry-run"), ("install",), ("show",), ("uninstall",)):
        done = service(ws, *words, prefix=offline)
        assert done.returncode == 0, done.stderr
    assert not asked.exists()
    assert not ws.state.exists()
    assert not unit(ws).exists()


def test_another_file_of_variables_is_named_and_made_private(ws: Workspace) -> None:
    place = ws.root / "keys.env"
    assert service(ws, "install", "--env-file", str(place)).returncode == 0
    assert f"EnvironmentFile=-{place}\n" in unit(ws).read_text()
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    place.write_text("KEY=mine\n")
    assert service(ws, "install", "--env-file", str(place)).returncode == 0
    assert place.read_text() == "KEY=mine\n"
    assert service(ws, "uninstall").returncode == 0
    assert place.exists()  # it holds a person's keys


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED HERE: another owner needs root")
def test_a_system_service_runs_as_the_owner_or_as_it_is_told(ws: Workspace) -> None:
    other = next(one for one in pwd.getpwall() if one.pw_uid not in (0, os.getuid()))
    for flags, name in (((), other.pw_name), (("--run-as", "root"), "root")):
        os.chown(ws.path, other.pw_uid, -1)
        shown = service(ws, "install", "--system", "--dry-run", *flags).stdout
        assert f"\nUser={name}\n" in shown
        assert "EnvironmentFile=-/etc/codex-self-iter/shop.env\n" in shown
        assert "would write /etc/systemd/system/codex-self-iter-shop.service" in shown
        assert "WantedBy=multi-user.target" in shown
    os.chown(ws.path, os.getuid(), -1)


def test_show_says_whether_the_file_is_still_what_would_be_written(ws: Workspace) -> None:
    assert service(ws, "install").returncode == 0
    assert "(up to date)" in service(ws, "show").stdout
    text = unit(ws).read_text()
    ws.config("[service]\non_stop = 'finish'\nfinish_timeout_sec = 500\n")
    assert "(differs from what would be written now)" in service(ws, "show").stdout
    assert service(ws, "install").returncode == 0
    (old,), (new,) = (
        re.findall(r"TimeoutStopSec=(\d+)", each) for each in (text, unit(ws).read_text())
    )
    assert int(new) > 500 > int(old)  # longer than the bound


def test_the_health_check_of_the_image_tells_a_living_loop(ws: Workspace) -> None:
    """Docker itself is not tried here; what it would ask is."""
    text = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    (code,) = re.findall(r'CMD \["python3", "-c", "(import json.*)"\]', text)
    environment = ws.with_command()
    check = [PROGRAM[0], "-c", code.replace("/workspace", str(ws.path))]

    def healthy() -> bool:
        done = subprocess.run(check, env=environment, cwd=ws.root, timeout=60, check=False)
        return done.returncode == 0

    ws.script({"sleep": 60, "until": "go", "block": {"completed": True}})
    assert not healthy()
    process = ws.start()
    ws.wait_runs(1)
    ws.wait_state("running")
    assert healthy()
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert not healthy()
