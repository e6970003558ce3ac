"""Benchmarks of the process host. Run directly, or call `stop`, `idle`, `flood`, `overhead`, `poll`
(all blocking).

    python -m benchmarks.host [stop|idle|flood|overhead|poll ...]

Each function returns figures by name; times are seconds unless the name says otherwise."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import psutil

from codex_self_iter.core.runs import RunLimits, RunSpec
from codex_self_iter.world.process import proctable
from codex_self_iter.world.process.host import Host
from codex_self_iter.world.process.tool import run_tool

MIB = 1 << 20


def _spec(root: str, name: str, *argv: str, limits: RunLimits | None = None) -> RunSpec:
    return RunSpec(
        run_id=f"bench-{os.getpid()}-{name}",
        argv=argv,
        cwd=root,
        env=dict(os.environ),
        directory=f"{root}/{name}",
        run_lock_path=f"{root}/run.lock",
        limits=limits or RunLimits(),
    )


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 6)


async def _overhead(rounds: int) -> dict[str, float]:
    starts, wholes, tools = [], [], []
    with tempfile.TemporaryDirectory() as root:
        async with Host() as host:
            for number in range(rounds):
                begun = time.perf_counter()
                run = await host.start(_spec(root, str(number), "/bin/true"))
                starts.append(time.perf_counter() - begun)
                await run.wait()
                wholes.append(time.perf_counter() - begun)
                begun = time.perf_counter()
                await run_tool(["/bin/true"])
                tools.append(time.perf_counter() - begun)
    return {
        "first": round(wholes[0], 6),
        "start": _median(starts),
        "start_to_outcome": _median(wholes),
        "start_to_outcome_min": round(min(wholes), 6),
        "run_tool": _median(tools),
    }


def overhead(rounds: int = 100) -> dict[str, float]:
    """Start to outcome of /bin/true, and run_tool of the same."""
    return anyio.run(_overhead, rounds)


async def _stop(rounds: int) -> dict[str, float]:
    script = "sleep 1000 & (setsid sleep 1000 &) ; echo up; wait"
    times = []
    with tempfile.TemporaryDirectory() as root:
        async with Host() as host:
            for number in range(rounds):
                spec = _spec(root, str(number), "bash", "-c", script)
                run = await host.start(spec)
                while not os.path.getsize(f"{spec.directory}/stdout.log"):  # noqa: ASYNC110
                    await anyio.sleep(0.001)
                begun = time.perf_counter()
                await run.end()
                times.append(time.perf_counter() - begun)
    return {"stop": _median(times), "stop_max": round(max(times), 6)}


def stop(rounds: int = 30) -> dict[str, float]:
    """From `end` to everything gone, with an agent that obeys TERM and leaves two children."""
    return anyio.run(_stop, rounds)


async def _idle(seconds: float) -> dict[str, float]:
    me = psutil.Process()
    with tempfile.TemporaryDirectory() as root:
        async with Host() as host:
            await host.start(
                _spec(root, "idle", "sleep", "1000", limits=RunLimits(wall_sec=1e6, idle_sec=1e6))
            )
            await anyio.sleep(35)  # until the monitor is in its long run
            helpers = me.children(recursive=True)
            ours = [me, *(child for child in helpers if child.name().startswith("csi-"))]
            before = [sum(child.cpu_times()[:2]) for child in ours]
            await anyio.sleep(seconds)
            used = [
                sum(child.cpu_times()[:2]) - start
                for child, start in zip(ours, before, strict=True)
            ]
            memory = me.memory_info().rss / MIB
    return {
        "cpu_ms_per_sec": round(1000 * used[0] / seconds, 3),
        "helpers_cpu_ms_per_sec": round(1000 * sum(used[1:]) / seconds, 3),
        "rss_mib": round(memory, 1),
    }


def idle(seconds: float = 20.0) -> dict[str, float]:
    """CPU of this process and its helpers with one sleeping run, after the first half minute."""
    return anyio.run(_idle, seconds)


async def _flood(mib: int) -> dict[str, float]:
    script = f"import os\nb = b'x' * 199 + b'\\n'\nb *= 5243\nfor _ in range({mib}): os.write(1, b)"
    argv = [sys.executable, "-S", "-c", script]
    with tempfile.TemporaryDirectory() as root:
        plain = []
        for _ in range(3):
            with open(f"{root}/plain", "wb") as file:
                begun = time.perf_counter()
                subprocess.run(argv, stdout=file, check=True)  # noqa: ASYNC221 - nothing else runs
                plain.append(time.perf_counter() - begun)
            os.unlink(f"{root}/plain")
        capped, peak, before = [], 0, psutil.Process().memory_info().rss
        async with Host() as host:
            for number in range(3):
                spec = _spec(root, str(number), *argv)
                begun = time.perf_counter()
                run = await host.start(spec)
                while run.outcome is None:
                    peak = max(peak, os.stat(f"{spec.directory}/stdout.log").st_blocks * 512)
                    await anyio.sleep(0.01)
                capped.append((await run.wait()).duration_sec)
                size = Path(spec.directory, "stdout.log").stat().st_size
        grown = psutil.Process().memory_info().rss - before
    return {
        "plain_mib_per_sec": round(mib / min(plain), 1),
        "host_mib_per_sec": round(mib / min(capped), 1),
        "ratio": round(min(plain) / min(capped), 3),
        "peak_disk_mib": round(peak / MIB, 1),
        "final_mib": round(size / MIB, 1),
        "memory_grown_mib": round(grown / MIB, 1),
    }


def flood(mib: int = 1024) -> dict[str, float]:
    """Output of 1 GiB through the host against `agent > file`; the cap is the default one."""
    return anyio.run(_flood, mib)


def poll() -> dict[str, float]:
    """One look at the process table with 1, 100 and 1,000 descendants, in milliseconds."""
    figures = {}
    for count in (1, 100, 1000):
        script = f"for i in $(seq {count}); do sleep 1000 & done; echo up; wait"
        with subprocess.Popen(
            ["bash", "-c", script], stdout=subprocess.PIPE, start_new_session=True
        ) as shell:
            assert shell.stdout is not None
            shell.stdout.readline()
            times = []
            for _ in range(10):
                begun = time.perf_counter()
                table = proctable.scan()
                found = proctable.descendants(proctable.offspring(table), {shell.pid})
                times.append((time.perf_counter() - begun) * 1000)
            assert len(found) == count
            os.killpg(shell.pid, 9)
        figures[f"poll_{count}_ms"] = round(statistics.median(times), 3)
    return figures


BENCHMARKS: dict[str, Callable[[], dict[str, float]]] = {
    "overhead": overhead,
    "stop": stop,
    "flood": flood,
    "poll": poll,
    "idle": idle,
}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or BENCHMARKS:
        print(chosen, BENCHMARKS[chosen]())
