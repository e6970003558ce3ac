"""What the program that speaks ACP costs: its start beside bare Python's, memory and CPU while the agent
thinks."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from codex_self_iter.agents.acp import over_acp
from codex_self_iter.agents.base import AgentConfig, Request

ROUNDS, THINKS_SEC = 15, 20.0


def run() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory(prefix="csi-") as base:
        host = _host(Path(base), ["/bin/true"])
        ours = _median([*host, "--probe", "--", "/bin/true"], base)
        python = _median([sys.executable, "-I", "-S", "-c", "pass"], base)
        print(
            f"start to the agent's end (which says nothing) {ours * 1000:.0f} ms, bare Python "
            f"{python * 1000:.0f} ms, ratio {ours / python:.1f}"
        )
        script = Path(base) / "script.json"
        script.write_text(json.dumps({"turns": [[{"sleep": 3600}]]}))
        agent = [sys.executable, "-m", "codex_self_iter.testing.acp_agent", str(script)]
        with subprocess.Popen(
            [*host, "--", *agent], cwd=base, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            while b"acp.turn" not in process.stdout.readline():
                pass
            own = psutil.Process(process.pid)
            before = sum(own.cpu_times()[:2])
            time.sleep(THINKS_SEC)
            spent = (sum(own.cpu_times()[:2]) - before) / THINKS_SEC
            memory = own.memory_full_info()
            process.terminate()
        print(
            f"while the agent thinks {spent * 1000:.2f} ms CPU/s; {memory.uss / 2**20:.1f} MiB of its own, "
            f"{memory.rss / 2**20:.1f} MiB in all"
        )


def _host(base: Path, command: list[str]) -> list[str]:
    """The command line of the program, up to the agent's."""
    config = AgentConfig("acp", mode="bypass", command=tuple(command))
    paths = {
        name: str(base / name) for name in ("prompt_path", "workspace", "plan_path", "directory")
    }
    paths["workspace"] = str(base)
    argv = over_acp("acp")(config).prepare(Request("", **paths, environment={})).argv
    return list(argv[: argv.index("--")])


def _median(argv: list[str], cwd: str) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        times.append(time.perf_counter() - began)
    return statistics.median(times)
