"""kill -9 of the supervisor at random moments: the next one finds the run, or knows that it never
began."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codex_self_iter.core.runs import EndCause
from codex_self_iter.world.process import proctable, traces
from codex_self_iter.world.process.host import Host
from tests.support.hosting import escape_script, kill_tagged, make_spec, new_tag, tagged

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def killed_after(seconds: float, specs: str) -> None:
    """A supervisor that is killed while it starts a run, or a little later."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent.parent / "support" / "supervisor_to_kill.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as supervisor:
        try:
            assert supervisor.stdin is not None
            assert supervisor.stdout is not None
            supervisor.stdin.write(specs.encode())
            supervisor.stdin.close()
            # otherwise: at once after the request, which takes about -seconds to begin
            if seconds > 0:
                supervisor.stdout.readline()
            time.sleep(abs(seconds))
        finally:
            supervisor.kill()


@pytest.mark.parametrize("seed", range(4))
async def test_no_moment_loses_a_run_or_leaves_one_behind(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for round_number in range(8):
        tag = new_tag()
        script = escape_script(
            "all_at_once", tag, deaf=False, then=chance.choice(["exit 7", "sleep 60"])
        )
        spec = make_spec(tmp_path, "bash", "-c", script, name=f"run-{seed}-{round_number}")
        spec = dataclasses.replace(spec, run_lock_path=str(tmp_path / "run.lock"))
        moment = chance.choice(
            [-chance.uniform(0.1, 0.6), chance.uniform(0, 0.01), chance.uniform(0, 0.6)]
        )
        killed_after(moment, json.dumps([dataclasses.asdict(spec)]))
        try:
            async with Host() as host:
                run = await host.adopt(spec, None)
                if run is None:
                    assert not tagged(tag)
                else:
                    outcome = await run.end()
                    assert outcome.cause in {EndCause.EXIT, EndCause.REQUEST, EndCause.LOST}
                    assert outcome.cause is not EndCause.EXIT or outcome.exit_code == 7
                assert not tagged(tag)
                assert proctable.marked(proctable.scan(), spec.run_id) == set()
                assert not traces.lock_is_held(spec.run_lock_path)
        finally:
            kill_tagged(tag)
