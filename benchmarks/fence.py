"""What a fence costs a run: the look around it and the start of a program in it, beside the same start
without one; an iteration in a warm container beside one without a fence."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from codex_self_iter.core.fence import Ground, Means, walls
from codex_self_iter.world.git.ground import Wanted, survey
from codex_self_iter.world.process.fence_machine import look
from codex_self_iter.world.process.walls import Walls
from tests.fence_container.conftest import Place
from tests.fence_container.test_inside import SAY
from tests.support import container, tiny_image
from tests.support.container import Podman

ROUNDS, ITERATIONS = 60, 8


def run() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory(prefix="csi-") as base:
        root = Path(base)
        for name in ("ws", "home", "state/run/tmp"):
            (root / name).mkdir(parents=True)
        subprocess.run(["git", "init", "-q"], cwd=root / "ws", check=True)
        wanted = Wanted(
            agent="codex", workspace=f"{root}/ws", state=f"{root}/state", run=f"{root}/state/run",
            scratch=f"{root}/state/run/tmp", environment={"HOME": f"{root}/home"},
        )  # fmt: skip
        ground = survey(wanted)[0]
        bare = _median(lambda: _start(None))
        print(
            f"look around {_median(lambda: survey(wanted)) * 1000:.2f} ms; a bare start {bare * 1000:.2f} ms"
        )
        for means in Means:
            if flaw := look().flaw(means):
                print(f"{means}: {flaw}")
                continue
            _print(means, ground, bare)
    if lacking := container.missing():
        print(f"container: {lacking}")
        return
    engine = Path(tempfile.mkdtemp(prefix="csi-"))  # removed with the engine's namespaces
    with tempfile.TemporaryDirectory(prefix="csi-") as base, Podman(engine) as running:
        tiny_image.load(running)
        running.wrapper()
        _container(Place(running, Path(base)))


def _container(place: Place) -> None:
    took = {}
    for level in ("none", "container"):
        place.agent(f"echo run >>runs\n{SAY}", fence=f'level = "{level}"')
        place.run("--max-iterations", str(ITERATIONS))
        lines = place.journal()[1 - ITERATIONS :]
        took[level] = statistics.median(line["duration_sec"] for line in lines)
    place.close()
    more = took["container"] - took["none"]
    print(
        f"an iteration in a warm container {more * 1000:+.0f} ms, ratio {took['container'] / took['none']:.1f}"
    )


def _print(means: Means, ground: Ground, bare: float) -> None:
    plan = walls(ground, means, bwrap=look().bwrap)
    took = _median(lambda: _start(plan))
    print(f"{means}: {took * 1000:.2f} ms, {(took - bare) * 1000:+.2f} ms, ratio {took / bare:.1f}")


def _start(plan: dict[str, object] | None) -> None:
    around = Walls(plan) if plan else None
    argv = around.command(["/bin/true"]) if around else ["/bin/true"]
    enter = around.enter_forked if around else None
    subprocess.run(argv, preexec_fn=enter, check=True, start_new_session=True)
    if around:
        around.close()


def _median(do: object) -> float:
    assert callable(do)
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        do()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
