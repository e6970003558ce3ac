"""`[service] inhibit_sleep`: the machine stays awake while a run is on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import psutil
import pytest

from tests.support.control_steps import CLAIM, FAILS, long_run, wait_log
from tests.support.harness import Workspace, wait_until

ON = "[service]\ninhibit_sleep = true\n"
HOLDS = """#!/bin/sh
echo "$@" > "$0.asked"
env > "$0.environment"
while case "$1" in -*) ;; *) false;; esac; do shift; done
echo $$ > "$0.pid"
"$@"
echo ended >> "$0.ended"
"""
REFUSES = "#!/bin/sh\necho x >> \"$0.asked\"\necho 'Failed to inhibit: Access denied' >&2\nexit 1\n"
NAME = "caffeinate" if sys.platform == "darwin" else "systemd-inhibit"
MAY_SLEEP = "the machine may sleep while a run is on ([service] inhibit_sleep)"


@pytest.fixture
def fake(ws: Workspace) -> str:
    """Path of a program that holds, first on PATH."""
    directory = ws.root / "bin"
    directory.mkdir()
    ws.environment["PATH"] = f"{directory}:{ws.environment['PATH']}"
    program = directory / NAME
    program.write_text(HOLDS)
    program.chmod(0o755)
    return str(program)


def pid(fake: str) -> int:
    def read() -> int:
        if not os.path.exists(f"{fake}.pid"):
            return 0
        with open(f"{fake}.pid", encoding="ascii") as file:
            return int(file.read() or 0)

    return int(wait_until(read, "the hold"))


def test_it_is_held_while_a_run_is_on_and_let_go_at_the_end(ws: Workspace, fake: str) -> None:
    ws.environment |= {"NOTIFY_SOCKET": "/nowhere", "MY_API_KEY": "sesame-12345678"}
    ws.config(ON)
    ws.script(long_run("go"), CLAIM)
    process = ws.start()
    holder = pid(fake)
    wait_log(ws, "awake.held")
    with open(f"{fake}.asked", encoding="utf-8") as asked:
        words = asked.read()
    if NAME == "systemd-inhibit":
        assert words.startswith("--what=idle:sleep --mode=block ")
    assert os.getsid(holder) == holder != os.getsid(process.pid)
    with open(f"{fake}.environment", encoding="utf-8") as environment:
        assert not {"NOTIFY_SOCKET", "MY_API_KEY"} & {line.split("=")[0] for line in environment}
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    assert os.path.exists(f"{fake}.ended")
    assert not psutil.pid_exists(holder)
    assert "awake.released" in ws.log()
    assert not ws.status()["warnings"]


def test_without_the_key_nothing_is_held(ws: Workspace, fake: str) -> None:
    """The control of the test above."""
    assert ws.run() == 0
    assert not os.path.exists(f"{fake}.asked")


def test_it_ends_with_us_also_at_a_kill(ws: Workspace, fake: str) -> None:
    ws.config(ON)
    ws.script(long_run("go"), CLAIM)
    process = ws.start()
    holder = pid(fake)
    process.kill()
    process.wait()
    wait_until(lambda: not psutil.pid_exists(holder), "the end of the hold")
    assert os.path.exists(f"{fake}.ended")  # by itself
    (ws.control / "go").touch()
    assert ws.run() == 0


@pytest.mark.slow
def test_a_long_wait_lets_the_machine_sleep(ws: Workspace, fake: str) -> None:
    ws.config(ON, backoff_base_sec=600, backoff_max_sec=900)
    ws.script({**FAILS, "sleep": 5})
    ws.start()
    holder = pid(fake)
    ws.wait_state("backoff")
    wait_log(ws, "awake.released")
    assert not psutil.pid_exists(holder)
    assert ws.status()["state"] == "backoff"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["refused", "missing"])
def test_what_cannot_be_had_is_said_once_and_holds_up_nothing(
    ws: Workspace, fake: str, how: str
) -> None:
    if how == "refused":
        with open(fake, "w", encoding="utf-8") as file:
            file.write(REFUSES)
        why = f"{NAME} has ended: Failed to inhibit: Access denied"
    else:
        os.unlink(fake)
        for tool in ("git", "sh", "ps", "cat", "rm"):
            found = shutil.which(tool)
            assert found is not None
            os.symlink(found, os.path.join(os.path.dirname(fake), tool))
        ws.environment["PATH"] = os.path.dirname(fake)
        why = f"{NAME} is not there"
    ws.config(ON)
    ws.script(long_run("go"), CLAIM)
    process = ws.start()
    wait_until(lambda: f"{MAY_SLEEP}: {why}" in "\n".join(ws.status().get("warnings", [])), why)
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
    said = [line for line in ws.log().splitlines() if "state.warning" in line]
    assert sum(MAY_SLEEP in line for line in said) == 1
    if how == "refused":
        with open(f"{fake}.asked", encoding="ascii") as asked:
            assert asked.read() == "x\n"
    found = json.loads(ws.cli("doctor", "--json").stdout)["findings"]
    (finding,) = [one for one in found if one["id"] == "service.inhibit_sleep"]
    assert finding["status"] == "warn"
    assert "the machine may sleep while a run is on" in finding["what"]


def test_doctor_tries_it(ws: Workspace, fake: str) -> None:
    for text, there in (("", False), (ON, True)):
        ws.config(text)
        said = ws.cli("doctor").stdout
        assert (f"service.inhibit_sleep: {NAME} keeps the machine awake" in said) == there
    assert os.path.exists(f"{fake}.ended")


def test_the_real_program_holds_or_says_why_not(ws: Workspace) -> None:
    """Where no login manager answers it refuses, as in most containers."""
    real = shutil.which(NAME)
    ws.config(ON)
    ws.script(long_run("go"), CLAIM)
    process = ws.start()
    held = real and subprocess.run([real, "true"], capture_output=True, check=False).returncode == 0

    def told() -> bool:
        return MAY_SLEEP in "\n".join(ws.status().get("warnings", []))

    if held:
        assert real is not None
        listed = [real, "--list"]
        who = b"codex-self-iter"
        wait_until(lambda: who in subprocess.run(listed, capture_output=True).stdout, "the hold")
        assert not told()
    else:
        wait_until(told, "why not")
    (ws.control / "go").touch()
    assert ws.ended(process) == 0
