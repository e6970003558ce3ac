"""The page below a real `systemd --user`: its socket waits, whoever connects starts it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
from collections.abc import Iterator

import pytest

from tests.support import lab as laboratory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(laboratory.missing()), reason=laboratory.missing()),
]
SOCKET, SERVICE = "codex-self-iter-page.socket", "codex-self-iter-page.service"
LO_UP = """
import fcntl, socket, struct
with socket.socket() as sock:
    fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 0x1))  # SIOCSIFFLAGS, IFF_UP
"""
ASK = """
import json, sys, urllib.request
headers = {"Cookie": sys.argv[2]}
with urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers=headers), timeout=30) as answer:
    print(json.dumps([answer.status, answer.headers.get("set-cookie") or "", answer.read().decode()]))
"""


@pytest.fixture
def manager(manager: laboratory.Lab) -> Iterator[laboratory.Lab]:
    """With the units as they are shipped, the program where they look for it, and a loopback."""
    manager.run(sys.executable, "-c", LO_UP)
    program = manager.directory / "home/.local/bin/codex-self-iter"
    program.parent.mkdir(parents=True)
    source = f"{laboratory.SOURCE}/src"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH="{source}" exec "{sys.executable}" -m codex_self_iter "$@"\n'
    )
    program.chmod(0o755)
    for unit in (SOCKET, SERVICE):
        text = (laboratory.SOURCE / "deploy/systemd/user" / unit).read_text(encoding="utf-8")
        manager.install(unit, text, **({"RestartSec": "100ms"} if unit == SERVICE else {}))
    yield manager
    manager.systemctl("stop", SOCKET, SERVICE)
    shutil.rmtree(program.parent)


def ask(manager: laboratory.Lab, address: str, cookie: str = "") -> tuple[int, str, str]:
    said = manager.run(sys.executable, "-c", ASK, address, cookie).stdout
    status, told, text = json.loads(said)
    return status, told.partition(";")[0], text


def test_whoever_opens_the_page_starts_it(manager: laboratory.Lab) -> None:
    program = str(manager.directory / "home/.local/bin/codex-self-iter")
    manager.systemctl("start", SOCKET)
    assert manager.show(SERVICE)["ActiveState"] == "inactive"

    said = manager.run(program, "serve", "--link").stdout
    link = re.findall(r"http://127\.0\.0\.1:8420/enter\?key=\S+", said)
    assert link, said
    first = manager.until_state(SERVICE, ActiveState="active", SubState="running")
    status, cookie, _ = ask(manager, link[0])
    assert status == 200
    assert cookie

    manager.kill(SERVICE, signal.SIGKILL)  # the socket is the manager's: nobody is refused
    status, _, text = ask(manager, "http://127.0.0.1:8420/", cookie)
    assert status == 200, "a crash of the page sends nobody out"
    assert "No loop of this user is known" in text
    again = manager.until_state(SERVICE, ActiveState="active", SubState="running")
    assert again["MainPID"] != first["MainPID"]

    manager.systemctl("stop", SERVICE)
    manager.until_state(SERVICE, ActiveState="inactive", Result="success")
    assert manager.show(SOCKET)["ActiveState"] == "active"
    assert ask(manager, "http://127.0.0.1:8420/", cookie)[0] == 200, "who comes next starts it"
    manager.until_state(SERVICE, ActiveState="active")


def test_without_its_socket_nothing_answers(manager: laboratory.Lab) -> None:
    done = manager.run(sys.executable, "-c", ASK, "http://127.0.0.1:8420/", "", check=False)
    assert "Connection refused" in done.stderr
