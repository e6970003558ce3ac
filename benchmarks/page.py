"""The page of the browser: first paint, what it holds, what an open page costs.

    python -m benchmarks.page [LOOPS] [ITERATIONS]

100 loops that wait, one of them with 10,000 iterations. The paint is measured in chromium where there is one
(CHROMIUM, else /usr/bin/chromium), else the time of the answer alone is."""

from __future__ import annotations

import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from tests.support.shown_loops import NOW, cases, on_disk, record

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
PAINT = """() => new Promise((found) => new PerformanceObserver((list) => {
    for (const one of list.getEntriesByName("first-contentful-paint")) found(one.startTime);
}).observe({type: "paint", buffered: true}))"""
ROUNDS = 9
IDLE_SEC = 30.0
REST_SEC = 1.0


def ask(port: int, path: str, cookie: str = "") -> tuple[float, str, str]:
    """Milliseconds until all of the answer is there, the answer, the cookie it gives."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={"Cookie": cookie})
    response = connection.getresponse()
    text = response.read().decode()
    given = (response.getheader("set-cookie") or "").partition(";")[0]
    connection.close()
    return 1000 * (time.perf_counter() - began), text, given


def paints(origin: str, cookie: str, paths: dict[str, str]) -> dict[str, float]:
    """Median milliseconds from the request to the first contentful paint, of each path.

    In a tab that has come to rest: beside a window that opens, a browser loads pages of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context()
        name, _, value = cookie.partition("=")
        context.add_cookies([{"name": name, "value": value, "url": origin}])
        times: dict[str, list[float]] = {label: [] for label in paths}
        for _ in range(ROUNDS):
            for label, path in paths.items():  # in turn: a busy moment hits all of them
                tab = context.new_page()
                tab.wait_for_timeout(1000 * REST_SEC)
                tab.goto(origin + path)
                times[label].append(float(tab.evaluate(PAINT)))
                tab.close()
        found = {label: statistics.median(each) for label, each in times.items()}
        browser.close()
    return found


def page(loops: int = 100, iterations: int = 10_000) -> None:
    """Print the figures."""
    with ExitStack() as held:
        root = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="bench-page-")))
        environment = {**os.environ, "XDG_STATE_HOME": str(root / "state")}
        os.environ["XDG_STATE_HOME"] = environment["XDG_STATE_HOME"]
        case = cases(time.time())["limited"]
        for number in range(loops):
            target = held.enter_context(on_disk(root, f"loop-{number:03}", case))
        state = Path(target.state_dir)
        lines = (
            json.dumps(record(n, NOW + 60 * n, after={"x": "y" * 1500})) + "\n"
            for n in range(1, iterations + 1)
        )
        (state / "logs/iterations.jsonl").write_text("".join(lines))
        server = subprocess.Popen(
            [sys.executable, "-m", "codex_self_iter", "serve", "--port", "0"],
            env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert server.stdout
            link = ""
            while not link:
                link = "".join(re.findall(r"http://\S+key=\S+", server.stdout.readline()))
            origin, _, entrance = link.partition("/enter")
            port = int(origin.rpartition(":")[2])
            process = psutil.Process(server.pid)
            cookie = ask(port, f"/enter{entrance}")[2]
            _, text, _ = ask(port, "/api/v1/loops", cookie)
            key = next(
                one["id"] for one in json.loads(text)["loops"] if one["name"] == state.parent.name
            )
            paths = {
                "a page of two letters": "/healthz",
                f"{loops} loops": "/",
                f"a loop of {iterations} iterations": f"/loop/{key}",
            }
            print(f"memory {process.memory_info().rss / 2**20:.0f} MiB, nobody looks")
            for label, path in paths.items():
                times = [ask(port, path, cookie)[0] for _ in range(ROUNDS)]
                print(
                    f"{label}: answer {statistics.median(times):.0f} ms ({min(times):.0f} to {max(times):.0f})"
                )
            if Path(CHROMIUM).exists():
                for label, paint in paints(origin, cookie, paths).items():
                    print(f"{label}: first paint {paint:.0f} ms")
            for label, path in (
                ("a loop's page", f"/loop/{key}/events"),
                ("the page of all loops", "/events"),
            ):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                connection.request("GET", path, headers={"Cookie": cookie})
                response = connection.getresponse()
                time.sleep(5)
                used = sum(process.cpu_times()[:2])
                time.sleep(IDLE_SEC)
                spent = 1000 * (sum(process.cpu_times()[:2]) - used) / IDLE_SEC
                print(
                    f"{label} open: {spent:.1f} ms CPU/s, {process.memory_info().rss / 2**20:.0f} MiB"
                )
                response.close()
                connection.close()
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    page(*map(int, sys.argv[1:]))
