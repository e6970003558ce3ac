"""A supervisor made to be killed: starts the runs described by JSON on stdin, says so, and
sleeps."""

from __future__ import annotations

import json
import sys

import anyio

from codex_self_iter.core.runs import RunLimits, RunSpec
from codex_self_iter.world.process.host import Host


async def main() -> None:
    host = Host()
    for data in json.load(sys.stdin):
        limits = RunLimits(**data.pop("limits"))
        spec = RunSpec(**data | {"argv": tuple(data["argv"]), "limits": limits})
        await host.start(spec)
    print("ready", flush=True)
    await anyio.sleep_forever()


anyio.run(main)
