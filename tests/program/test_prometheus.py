"""A real Prometheus scrapes the page by the shipped example, and fires the shipped alert."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.harness import PATIENCE, Workspace
from tests.support.web import TOKEN, served

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's prometheus"),
]


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path, "loop")
    yield workspace
    workspace.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def prometheus(directory: Path, target: str) -> Iterator[Callable[[str], Any]]:
    """One that has the shipped files, but looks every second and waits for nothing. Asks its API."""
    example = (DEPLOY / "prometheus.yml").read_text()
    assert "127.0.0.1:8420" in example
    example = example.replace("127.0.0.1:8420", target).replace(
        "scrape_interval: 30s", "scrape_interval: 1s"
    )
    (directory / "prometheus.yml").write_text("global:\n  evaluation_interval: 1s\n" + example)
    rules = (DEPLOY / "alerts.yml").read_text()
    (directory / "alerts.yml").write_text(rules.replace("for: 1m", "for: 0s"))
    (directory / "token").write_text(TOKEN)
    port = free_port()
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{port}",
             "--storage.tsdb.path=data"],
            cwd=directory, stdout=log, stderr=log,
        )  # fmt: skip

    def ask(path: str) -> Any:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/api/v1/{path}", timeout=10
            ) as answer:
                return json.load(answer)["data"]
        except OSError:
            assert process.poll() is None, (directory / "prometheus.log").read_text()[-2000:]
            return None

    try:
        yield ask
    finally:
        process.terminate()
        process.wait(PATIENCE)


def until(found: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < deadline, what
        time.sleep(0.3)
    return value


def test_the_shipped_alert_fires_for_a_loop_that_went_in_circles(
    ws: Workspace, tmp_path: Path
) -> None:
    ws.config(max_stagnation=2)
    same = {"block": {"summary": "looked around", "next_goal": "look around"}}
    ws.script(*[same] * 8)
    assert ws.run() == 3
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    beside = tmp_path / "prometheus"
    beside.mkdir()
    with (
        served(ws.environment, ws.root, "--token-file", str(token)) as page,
        prometheus(beside, f"{page.host}:{page.port}") as ask,
    ):
        assert page.ask("/metrics").status == 401, "nobody else reads them"
        alerts = until(lambda: (ask("alerts") or {}).get("alerts"), "an alert")
        by_name = {one["labels"]["alertname"]: one for one in alerts}
        one = by_name["CodexSelfIterStagnated"]
        assert one["state"] == "firing"
        assert one["labels"]["loop"] == "loop"
        assert "went in circles" in one["annotations"]["summary"]
        query = quote('csi_iterations_total{loop="loop"}')
        found = until(lambda: ask(f"query?query={query}")["result"], "the series")
        counted = {series["metric"]["verdict"]: int(series["value"][1]) for series in found}
        assert sum(counted.values()) == len(ws.journal())
        (up,) = until(lambda: ask(f"query?query={quote('up')}")["result"], "the target")
        assert up["value"][1] == "1"
