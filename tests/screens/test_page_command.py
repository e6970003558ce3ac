"""`serve` and `export` as commands: what they say, how they end, what they refuse."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from codex_self_iter.cli import build_parser
from codex_self_iter.cli._extra import need
from codex_self_iter.errors import UsageError
from codex_self_iter.screens.page.listening import LOOPBACK, PORT
from tests.support.harness import PATIENCE, wait_until
from tests.support.program import PROGRAM
from tests.support.shown_loops import cases, on_disk
from tests.support.web import served

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "deploy/systemd/user"


def run(environment: dict[str, str], cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *args],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one clear line."""
    assert done.returncode == 2
    assert done.stderr.startswith("codex-self-iter: ")
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_nothing(
    environment: dict[str, str], tmp_path: Path, number: int
) -> None:
    with served(environment, tmp_path) as page:
        page.enter()
        events = page.events("/events")
        events.next("region")
        page.process.send_signal(number)
        while events.next()[0] != "end":  # told that it is over, not cut off
            pass
        assert events.response.isclosed()
        events.close()
        assert page.end(number) == (130 if number == signal.SIGINT else 0)
        assert "Traceback" not in page.said
        assert "Cancel" not in page.said
    left = sorted(p.name for p in (tmp_path / "state/codex-self-iter/page").iterdir())
    assert left == ["links", "secret"]


def test_it_says_who_has_the_port(environment: dict[str, str], tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = str(sock.getsockname()[1])
        said = refused(run(environment, tmp_path, "serve", "--port", port))
    assert f"port {port} is in use by " in said
    assert f"(pid {os.getpid()})" in said
    with served(environment, tmp_path) as page:
        said = refused(run(environment, tmp_path, "serve", "--port", str(page.port)))
        assert f"a page of yours runs at port {page.port} (pid {page.process.pid})" in said


def test_a_link_for_another_device(environment: dict[str, str], tmp_path: Path) -> None:
    with served(environment, tmp_path) as page:
        port = str(page.port)
        done = run(environment, tmp_path, "serve", "--link", "--port", port)
        assert done.returncode == 0
        link = done.stdout.strip()
        assert link.startswith(f"{page.origin}/enter?key=")
        assert link != page.link
        for one in (link, page.link):
            assert page.ask(one.removeprefix(page.origin)).status == 200
    said = refused(run(environment, tmp_path, "serve", "--link", "--port", port))
    assert "no page of yours runs" in said


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--port", "x"], "expected a port"),
        (["--port", "70000"], "expected a port"),
        (["--host", "example.org"], "is no IP address"),
        (["--host", "192.0.2.1"], "can be reached from other machines"),
        (["--tls-cert", "cert.pem"], "go together"),
        (["--tls-cert", "no.pem", "--tls-key", "no.pem"], "no TLS with"),
        (["--token-file", "no"], "cannot read the token"),
        (["--proxy", "http://loops.example.org"], "expected https://NAME"),
        (["--proxy", "https://loops.example.org/path"], "expected https://NAME"),
        (["--proxy-from", "10.0.0.2"], "does nothing without --proxy"),
        (["--proxy", "https://a.example", "--proxy-from", "x"], "is no IP address"),
        (["--workspace", "nowhere"], "does not exist"),
    ],
)
def test_bad_input_is_one_clear_line(
    environment: dict[str, str], tmp_path: Path, flags: list[str], why: str
) -> None:
    more = [] if "--port" in flags else ["--port", "0"]
    assert why in refused(run(environment, tmp_path, "serve", *more, *flags))


def test_a_place_where_no_secret_can_be_kept(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    broken = environment | {"XDG_STATE_HOME": str(tmp_path / "file")}
    assert "keeps its secret there" in refused(run(broken, tmp_path, "serve", "--port", "0"))


def test_an_extra_that_is_missing_is_named_with_its_command() -> None:
    with pytest.raises(
        UsageError, match=r"the page needs the extra \[screens\].* -m pip install .*starlette"
    ):
        need("screens", "the page", "starlette", "a_module_that_is_not_there")
    need("screens", "the page", "starlette")


def test_its_usual_port_and_address() -> None:
    args = build_parser("serve")[0].parse_args([])
    assert (args.host, args.port) == ("127.0.0.1", 8420) == (LOOPBACK, PORT)
    assert not args.control


def test_it_opens_a_browser_where_there_is_one(environment: dict[str, str], tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > "{tmp_path}/opened"\n')
    browser.chmod(0o755)
    with served(environment | {"BROWSER": f"{browser} %s"}, tmp_path, "--open") as page:
        wait_until((tmp_path / "opened").exists, "the browser")
        wait_until(lambda: (tmp_path / "opened").read_text().strip() == page.link, "the link")


def test_a_loop_that_is_named_need_not_be_known(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "apart").mkdir()
    (tmp_path / "apart/plan.md").write_text("- [ ] first\n")
    with served(environment, tmp_path, "--workspace", str(tmp_path / "apart")) as page:
        page.enter()
        assert "apart" in page.ask("/").words
        assert "not started" in page.ask("/").words


def test_the_service_manager_hands_the_socket(environment: dict[str, str], tmp_path: Path) -> None:
    """As systemd does it: descriptor 3, and who it is for."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        script = 'exec 3<&"$1"; shift; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        process = subprocess.Popen(
            ["/bin/bash", "-c", script, "sh", str(sock.fileno()), *PROGRAM, "serve", "--port", "1"],
            pass_fds=[sock.fileno()], env=environment, cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            done = run(environment, tmp_path, "serve", "--link", "--port", str(port))
            assert f"http://127.0.0.1:{port}/enter" in done.stdout, done.stderr
        finally:
            process.terminate()
            said, _ = process.communicate(timeout=PATIENCE)
    assert f"The page is at http://127.0.0.1:{port}." in said


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for unit in UNITS.glob("codex-self-iter-page.*"):
        text = unit.read_text().replace("%h/.local/bin/codex-self-iter", f'"{sys.executable}"')
        (tmp_path / unit.name).write_text(text)
    paths = sorted(map(str, tmp_path.glob("codex-self-iter-page.*")))
    assert len(paths) == 2
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", "--man=no", *paths],
        capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "page" not in done.stderr
    (tmp_path / "codex-self-iter-page.socket").write_text("[Socket]\nListenStreams=8420\n")
    broken = subprocess.run(
        ["systemd-analyze", "--user", "verify", "--man=no", *paths],
        capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    assert "ListenStreams" in broken.stderr, "negative control"


def test_export_writes_one_file(
    held: ExitStack, environment: dict[str, str], tmp_path: Path
) -> None:
    loop = held.enter_context(on_disk(tmp_path, "app", cases(time.time())["running"]))
    before = sorted(Path(loop.state_dir).rglob("*"))
    done = run(environment, tmp_path, "export", "app", "-o", "report.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Wrote {tmp_path / 'report.html'}")
    text = (tmp_path / "report.html").read_text()
    assert "Write the lexer" in text
    assert "Step 11 is done" in text
    assert "<script" not in text
    assert 'src="' not in text
    assert run(environment, tmp_path, "export", "app", "-o", "-").stdout.startswith(
        "<!doctype html>"
    )
    assert run(environment, tmp_path, "export", "app").returncode == 0
    assert (tmp_path / "app.html").exists()
    assert sorted(Path(loop.state_dir).rglob("*")) == before
    assert "cannot write" in refused(run(environment, tmp_path, "export", "app", "-o", "no/x.html"))
    assert "no loop is called" in refused(run(environment, tmp_path, "export", "other"))
