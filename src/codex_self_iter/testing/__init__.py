"""A scripted world for tests and simulations: days of the real loop in milliseconds.

`VirtualEventLoop` is asyncio on virtual time: when nothing is ready it jumps to the next timer.
`VirtualClock` is a machine's clocks on it: suspends, reboots and wall-clock steps are calls.
`ScriptedMachine` keeps agents as a machine does, whatever happens to supervisors: each
`ScriptedHost` is the process host of one supervisor process, and one that `die`s leaves its agents
behind for the next to adopt. What an agent does is a `Performance`.

    async def main() -> None:
        machine = ScriptedMachine(VirtualClock(), lambda spec: Performance(600.0, answer("go on")))
        await Loop(scripted_shared(machine), settings).run()

    run_virtual(main)"""

from codex_self_iter.testing.clock import VirtualClock, VirtualEventLoop, run_inline, run_virtual
from codex_self_iter.testing.files import (
    Memory,
    MemoryStore,
    ScriptedStore,
    ScriptedWorkTree,
    SilentLog,
    scripted_shared,
)
from codex_self_iter.testing.scripted import (
    Performance,
    ScriptedAgent,
    ScriptedHost,
    ScriptedMachine,
    ScriptedRun,
    answer,
)

__all__ = [
    "Memory",
    "MemoryStore",
    "Performance",
    "ScriptedAgent",
    "ScriptedHost",
    "ScriptedMachine",
    "ScriptedRun",
    "ScriptedStore",
    "ScriptedWorkTree",
    "SilentLog",
    "VirtualClock",
    "VirtualEventLoop",
    "answer",
    "run_inline",
    "run_virtual",
    "scripted_shared",
]
